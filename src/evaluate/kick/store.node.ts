import { appendFile, mkdir, readFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { explained } from "../../formats/files.node.ts";
import { decodeUtf8, isJsonObject, parseJson } from "../../formats/json.ts";
import { TaskError } from "../errors.ts";
import { sha256 } from "../journal.node.ts";
import type { KickStore } from "./kick.ts";

/**
 * The finished parts of an audit in a folder: a file of JSON lines, named for a hash of everything that they depend on, so
 * that other settings never mix with these. A line that was cut off in the middle is removed.
 * @param settings what the results depend on; it is the file's first line
 * @throws TaskError for a damaged file; FileError
 */
export async function openKickStore(folder: string, settings: object): Promise<KickStore & { readonly path: string }> {
  const key = sha256(settings);
  const path = join(folder, `kick-${key.slice(0, 16)}.jsonl`);
  await explained("make", folder, mkdir(folder, { recursive: true }));
  const known = await readParts(path);
  if (!known) await explained("write", path, writeFile(path, `${JSON.stringify({ key, settings })}\n`));
  const parts = known ?? new Map<string, unknown>();
  return {
    path,
    get: (part) => parts.get(part),
    async put(part, value) {
      parts.set(part, value);
      await explained("write", path, appendFile(path, `${JSON.stringify({ part, value })}\n`));
    },
  };
}

/** What a file holds, or null where there is none. */
async function readParts(path: string): Promise<Map<string, unknown> | null> {
  const bytes = await explained(
    "read",
    path,
    readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return null;
      throw error;
    }),
  );
  const whole = bytes === null ? 0 : bytes.lastIndexOf(10) + 1;
  if (bytes === null || whole === 0) return null;
  if (whole < bytes.length) await explained("write", path, truncate(path, whole));
  const lines = decodeUtf8(bytes.subarray(0, whole), path).split("\n").slice(1, -1);
  return new Map(
    lines.map((line, i) => {
      const entry = parseJson(line, `${path}:${i + 2}`);
      if (!isJsonObject(entry) || typeof entry["part"] !== "string" || entry["value"] === undefined)
        throw new TaskError(`${path}:${i + 2} is no part of an audit; remove the file`);
      return [entry["part"], entry["value"]];
    }),
  );
}
