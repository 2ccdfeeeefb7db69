import { createHash } from "node:crypto";
import { appendFile, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { explained } from "../formats/files.node.ts";
import { isJsonObject, parseJson } from "../formats/json.ts";
import { wholeLines } from "../formats/json-lines.node.ts";
import { TaskError } from "./errors.ts";
import type { DocumentRecord } from "./tasks/evaluate-document.ts";
import type { Journal } from "./tasks/run.ts";

/** The SHA-256 of bytes, or of a value's JSON, in hexadecimal. */
export function sha256(content: Uint8Array | object): string {
  return createHash("sha256")
    .update(content instanceof Uint8Array ? content : JSON.stringify(content))
    .digest("hex");
}

/**
 * The journal of one task in a folder: a file of JSON lines, named for the task and a hash of everything that its numbers
 * depend on, so that other settings never mix with these. Each document's line is on the disk before the next begins.
 * @param settings what the numbers depend on; it is the file's first line
 * @throws TaskError for a damaged file; FileError
 */
export async function openJournal(
  folder: string,
  task: string,
  settings: object,
): Promise<Journal & { readonly path: string }> {
  const key = sha256(settings);
  const path = join(folder, `${task}-${key.slice(0, 16)}.jsonl`);
  await explained("make", folder, mkdir(folder, { recursive: true }));
  const records = await readRecords(path);
  if (!records) await explained("write", path, writeFile(path, `${JSON.stringify({ key, settings })}\n`));
  return {
    path,
    records: records ?? new Map(),
    append: (record) => explained("write", path, appendFile(path, `${JSON.stringify(record)}\n`)),
  };
}

/** What a journal holds, or null where there is none. */
async function readRecords(path: string): Promise<Map<number, DocumentRecord> | null> {
  const lines = await wholeLines(path);
  if (!lines) return null;
  return new Map(
    lines.slice(1).map((line, i) => {
      const record = parseJson(line, `${path}:${i + 2}`);
      if (!isRecord(record)) throw new TaskError(`${path}:${i + 2} is no record of an evaluation; remove the file`);
      return [record.document, record];
    }),
  );
}

function isRecord(value: unknown): value is DocumentRecord {
  return (
    isJsonObject(value) &&
    Number.isInteger(value["document"]) &&
    isJsonObject(value["values"]) &&
    Object.values(value["values"]).every((number) => typeof number === "number") &&
    Array.isArray(value["fewShot"]) &&
    typeof value["truncated"] === "boolean"
  );
}
