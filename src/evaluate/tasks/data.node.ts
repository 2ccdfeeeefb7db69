import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { explained } from "../../formats/files.node.ts";
import { decodeUtf8, isJsonObject, parseJson } from "../../formats/json.ts";
import { TaskError } from "../errors.ts";
import { continuationRows } from "./continuations.ts";
import { parseCsv } from "./csv.ts";
import type { Splits } from "./few-shot.ts";
import type { Task, TaskData } from "./task.ts";
import type { Row } from "./template.ts";

/** Above every published set of questions; more is a bomb in a small file. */
const LARGEST = 2 ** 30;

/** The rows of a task's splits, and the bytes that they were read from. */
export interface Dataset {
  readonly splits: Splits;
  readonly files: readonly { readonly name: string; readonly bytes: Uint8Array }[];
}

/**
 * Reads a task's data: `.jsonl`, `.json` (a list of objects), `.csv` and `.txt`, each also with `.gz` behind it.
 * @param folders where paths are looked for, in this order
 * @throws TaskError for data that is missing, saying where to get it, or malformed, saying in which line; FileError
 */
export async function readDataset(
  { name, data }: Pick<Task, "name" | "data">,
  folders: readonly string[],
): Promise<Dataset> {
  const splits: Record<string, Row[]> = {};
  const files: { name: string; bytes: Uint8Array }[] = [];
  for (const [split, path] of Object.entries(data.splits)) {
    const found = await locate(path, folders);
    if (found.length === 0) {
      const source = data.source === "" ? "" : ` It comes from ${data.source}.`;
      throw new TaskError(
        `the task ${name} needs ${path}, which is not in ${folders.join(" or ")}.${source} Put it into a folder and name that with --data <folder>`,
      );
    }
    const rows: Row[] = [];
    for (const file of found) {
      const bytes = await explained("read", file, readFile(file));
      files.push({ name: basename(file), bytes });
      for (const row of await rowsOf(file, bytes, data)) rows.push(starred(row, path, file, data.star));
    }
    if (rows.length === 0) throw new TaskError(`the task ${name}: ${found[0]} holds no row`);
    splits[split] = rows;
  }
  return { splits, files };
}

/** Files that a path stands for, in the first folder that has any. */
async function locate(path: string, folders: readonly string[]): Promise<string[]> {
  const [before, behind] = basename(path).split("*") as [string, string?];
  for (const folder of folders) {
    const inside = join(folder, dirname(path));
    const names = await readdir(inside).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") return [];
      throw error;
    });
    const fits = (name: string): boolean =>
      behind === undefined
        ? name === before
        : name.length > before.length + behind.length && name.startsWith(before) && name.endsWith(behind);
    const found = names.filter(fits).sort();
    if (found.length > 0) return found.map((name) => join(inside, name));
  }
  return [];
}

function starred(row: Row, path: string, file: string, star: string | null): Row {
  if (star === null) return row;
  const [before, behind = ""] = basename(path).split("*") as [string, string?];
  const name = basename(file);
  return { ...row, [star]: name.slice(before.length, name.length - behind.length).replaceAll("_", " ") };
}

async function rowsOf(file: string, bytes: Uint8Array, data: TaskData): Promise<Row[]> {
  const packed = /\.gz$/i.test(file);
  const text = decodeUtf8(packed ? await unpacked(file, bytes) : bytes, file).replace(/^\uFEFF/, "");
  const type = /\.(jsonl|json|csv|txt)(\.gz)?$/i.exec(file)?.[1]?.toLowerCase();
  switch (type) {
    case "jsonl":
      return text
        .split("\n")
        .flatMap((line, i) =>
          line.trim() === "" ? [] : [rowIn(parseJson(line, `${file}:${i + 1}`), `${file}:${i + 1}`)],
        );
    case "json": {
      const list = parseJson(text, file);
      if (!Array.isArray(list)) throw new TaskError(`${file}: it must be a list of objects`);
      return list.map((item, i) => rowIn(item, `${file}: item ${i}`));
    }
    case "csv":
      return csvRows(text, file, data.columns);
    case "txt":
      return textRows(text, data);
    default:
      throw new TaskError(`${file}: data is read from .jsonl, .json, .csv and .txt files, also with .gz behind that`);
  }
}

async function unpacked(file: string, bytes: Uint8Array): Promise<Uint8Array> {
  try {
    return await promisify(gunzip)(bytes, { maxOutputLength: LARGEST });
  } catch (cause) {
    throw new TaskError(`${file}: it cannot be unpacked: ${(cause as Error).message}`, { cause });
  }
}

function rowIn(value: unknown, where: string): Row {
  if (isJsonObject(value)) return value;
  throw new TaskError(`${where}: a row must be an object, not ${JSON.stringify(value)?.slice(0, 80)}`);
}

function csvRows(text: string, file: string, columns: readonly string[] | null): Row[] {
  const records = parseCsv(text, file).filter((record) => record.length > 1 || record[0] !== "");
  const names = columns ?? records.shift() ?? [];
  return records.map((record, i) => {
    if (record.length !== names.length)
      throw new TaskError(
        `${file}: record ${i + 1} has ${record.length} fields, not ${names.length} (${names.join(", ")})`,
      );
    return Object.fromEntries(names.map((name, column) => [name, record[column]!]));
  });
}

function textRows(text: string, { separator, continuations }: TaskData): Row[] {
  const parts = separator === null ? [text] : text.split(separator);
  const documents = parts.map((part) => part.trim()).filter((part) => part !== "");
  return continuations ? continuationRows(documents, continuations) : documents.map((document) => ({ text: document }));
}
