import { randomBytes } from "node:crypto";
import { constants, type FileHandle, open, readdir, rename, stat, unlink } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { allocate, type ByteSink, type ByteSource, checkRange } from "./bytes.ts";
import { FileError, FormatError } from "./errors.ts";

/** Linux moves at most 2 GiB less a page in one call. */
const largestTransfer = 2 ** 30;

const advice: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file or folder",
  EACCES: "permission denied",
  EPERM: "not permitted",
  EROFS: "the file system is read-only",
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EISDIR: "it is a folder",
  ENOTDIR: "a part of the path is not a folder",
  EMFILE: "too many files are open; close some, or raise the limit",
};

/** What `work` gives; a system error becomes a FileError that says which file and what was tried. */
export async function explained<T>(verb: string, path: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (cause) {
    if (!(cause instanceof Error && "syscall" in cause && "code" in cause)) throw cause;
    throw new FileError(`cannot ${verb} ${path}: ${advice[String(cause.code)] ?? cause.message}`, { cause });
  }
}

class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandle;

  constructor(name: string, size: number, handle: FileHandle) {
    this.name = name;
    this.size = size;
    this.#handle = handle;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this, offset, length);
    const bytes = allocate(length, this.name);
    await this.readInto(offset, bytes);
    return bytes;
  }

  async readInto(offset: number, into: Uint8Array): Promise<void> {
    const length = into.byteLength;
    checkRange(this, offset, length);
    for (let done = 0; done < length; ) {
      const step = Math.min(length - done, largestTransfer);
      const { bytesRead } = await explained("read", this.name, this.#handle.read(into, done, step, offset + done));
      if (bytesRead === 0) throw new FormatError(`${this.name}: it became shorter while it was being read`);
      done += bytesRead;
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** Opens a file for positioned reads. @throws FileError when it cannot be opened or is not a regular file */
export async function openFile(path: string): Promise<ByteSource> {
  // Without O_NONBLOCK, opening a named pipe would wait for its writer.
  const handle = await explained("open", path, open(path, constants.O_RDONLY | constants.O_NONBLOCK));
  const stat = await handle.stat();
  if (stat.isFile()) return new FileSource(path, stat.size, handle);
  await handle.close();
  throw new FileError(`cannot open ${path}: it is not a regular file`);
}

/** What tells the files at a path, a file or a folder, from others: names, sizes and times of change, as JSON. */
export async function filesIdentity(path: string): Promise<string> {
  const one = await explained("look at", path, stat(path));
  const names = one.isDirectory() ? (await readdir(path, { recursive: true })).sort() : [""];
  const entries: (readonly [string, number, number])[] = [];
  for (const name of names) {
    const found = await explained("look at", path, stat(join(path, name)));
    if (found.isFile()) entries.push([name, found.size, found.mtimeMs]);
  }
  return JSON.stringify([resolve(path), entries]);
}

/**
 * Writes a file so that `path` holds either what it held before or all of the new content, whenever the process
 * dies: the content goes to a temporary file beside it, is flushed to the disk and then renamed over `path`.
 * Files that `path` is being read from stay readable to the end. @throws FileError; whatever `write` throws
 */
export async function writeFileAtomic(path: string, write: (sink: ByteSink) => Promise<void>): Promise<void> {
  await writeFilesAtomic([{ path, write }]);
}

/**
 * `writeFileAtomic` for several files that belong together: none is renamed before all are on the disk, and they
 * are renamed in the order given.
 */
export async function writeFilesAtomic(
  files: readonly { readonly path: string; write(sink: ByteSink): Promise<void> }[],
): Promise<void> {
  const waiting: { readonly temporary: string; readonly path: string }[] = [];
  try {
    for (const { path, write } of files) {
      const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}.tmp`);
      const handle = await explained("write", path, open(temporary, "wx"));
      waiting.push({ temporary, path });
      try {
        await write({ write: (bytes) => explained("write", path, writeAll(handle, bytes)) });
        await explained("write", path, handle.sync());
      } finally {
        await handle.close();
      }
    }
    for (const { temporary, path } of [...waiting]) {
      await explained("replace", path, rename(temporary, path));
      waiting.shift();
    }
  } finally {
    for (const { temporary } of waiting) await unlink(temporary);
  }
  for (const folder of new Set(files.map(({ path }) => dirname(path)))) {
    await explained("write", folder, syncFolder(folder));
  }
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const step = Math.min(bytes.byteLength - done, largestTransfer);
    done += (await handle.write(bytes, done, step)).bytesWritten;
  }
}

/** Puts renames on the disk. Windows cannot open folders, and needs no such flush. */
async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
