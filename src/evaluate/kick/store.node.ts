import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { explained } from "../../formats/files.node.ts";
import { isJsonObject, parseJson } from "../../formats/json.ts";
import { wholeLines } from "../../formats/json-lines.node.ts";
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
  const lines = await wholeLines(path);
  if (!lines) return null;
  return new Map(
    lines.slice(1).map((line, i) => {
      const entry = parseJson(line, `${path}:${i + 2}`);
      if (!isJsonObject(entry) || typeof entry["part"] !== "string" || entry["value"] === undefined)
        throw new TaskError(`${path}:${i + 2} is no part of an audit; remove the file`);
      return [entry["part"], entry["value"]];
    }),
  );
}
