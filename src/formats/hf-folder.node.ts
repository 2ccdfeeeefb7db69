import { mkdir, readdir, realpath, stat } from "node:fs/promises";
import { basename, dirname, join, relative, resolve, sep } from "node:path";
import { FileError, FormatError, LimitError } from "./errors.ts";
import { explained, openFile, writeFilesAtomic } from "./files.node.ts";
import { type ModelFiles, type ModelFolder, readModelFiles } from "./hf-folder.ts";
import { folderLimits } from "./hf-limits.ts";
import type { JsonObject } from "./json.ts";

/** Subfolders within subfolders that are looked into; `onnx/` and the like are one deep. */
const depth = 3;

/**
 * The files of a model in a local folder. Links are followed only within the folder, or, for a folder of the hub's
 * cache, within the repository's part of it.
 * @throws FileError when the folder cannot be read; LimitError when it holds too many files
 */
export async function localModelFiles(path: string): Promise<ModelFiles> {
  const folder = await explained("open", path, realpath(path));
  const allowed = allowedRoot(folder);
  const files = new Map<string, { path: string; bytes: number }>();
  const walk = async (at: string, level: number): Promise<void> => {
    for (const entry of await explained("list", at, readdir(at, { withFileTypes: true }))) {
      const full = join(at, entry.name);
      if (entry.isDirectory()) {
        if (level < depth) await walk(full, level + 1);
        continue;
      }
      const target = await realpath(full).catch(() => undefined);
      // A link that leads nowhere is no file; one that leads elsewhere is not this model's.
      if (target === undefined || !isInside(target, allowed)) continue;
      const { size, isFile } = await stat(target).then((s) => ({ size: s.size, isFile: s.isFile() }));
      if (isFile) files.set(relative(folder, full).split(sep).join("/"), { path: target, bytes: size });
      if (files.size > folderLimits.files)
        throw new LimitError(`${path}: it has more than ${folderLimits.files} files`);
    }
  };
  await walk(folder, 0);
  return {
    name: path,
    list: async () => Array.from(files, ([name, { bytes }]) => ({ path: name, bytes })),
    async read(name, limit) {
      const file = files.get(name);
      if (!file) throw new FileError(`${path} has no ${name}`);
      const source = await openFile(file.path);
      try {
        if (source.size > limit)
          throw new LimitError(`${path}/${name}: its ${source.size} bytes are over the limit of ${limit}`);
        return await source.read(0, source.size);
      } finally {
        await source.close();
      }
    },
  };
}

/** Where a folder's links may lead: snapshots of the hub's cache link into the blobs beside them. */
function allowedRoot(folder: string): string {
  const snapshots = dirname(folder);
  const repository = dirname(snapshots);
  return basename(snapshots) === "snapshots" && basename(repository).startsWith("models--") ? repository : folder;
}

const isInside = (path: string, folder: string): boolean => path.startsWith(folder + sep);

/**
 * Reads the model in a local folder: its small files, parsed and checked, and where its weights are.
 * @throws FileError when files are missing or unreadable; FormatError, LimitError when one is malformed
 */
export async function readModelFolder(path: string): Promise<ModelFolder> {
  return await readModelFiles(await localModelFiles(path));
}

/**
 * Writes the small files of a model into `folder`, which is made if need be: JSON objects as indented text, strings
 * as UTF-8, bytes as they are. All of them are complete on the disk before the first takes its place.
 * @throws FileError; FormatError when a name is not that of a file right in the folder
 */
export async function writeModelFiles(
  folder: string,
  files: Readonly<Record<string, JsonObject | string | Uint8Array>>,
): Promise<void> {
  const named = Object.entries(files).map(([name, content]) => {
    if (!/^\w[\w.-]*$/.test(name))
      throw new FormatError(`${JSON.stringify(name)} is not the name of a file in a model's folder`);
    return { path: join(resolve(folder), name), bytes: bytesOf(content) };
  });
  await explained("make", folder, mkdir(folder, { recursive: true }));
  await writeFilesAtomic(named.map(({ path, bytes }) => ({ path, write: (sink) => sink.write(bytes) })));
}

function bytesOf(content: JsonObject | string | Uint8Array): Uint8Array {
  if (content instanceof Uint8Array) return content;
  return new TextEncoder().encode(typeof content === "string" ? content : `${JSON.stringify(content, null, 2)}\n`);
}
