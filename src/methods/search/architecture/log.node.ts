import { appendFile, mkdir, readFile, truncate } from "node:fs/promises";
import { dirname } from "node:path";
import { explained } from "../../../formats/files.node.ts";
import { decodeUtf8, isJsonObject, type JsonObject, parseJson } from "../../../formats/json.ts";
import { StateError } from "../../weights/errors.ts";
import type { Architecture } from "./architecture.ts";
import type { Latency } from "./probe.ts";
import type { Trial } from "./search.ts";

/** An architecture with its latency; null where it could not be measured. */
export interface MeasuredArchitecture {
  readonly architecture: Architecture;
  readonly latency: Latency | null;
}

/** What a search has found so far, in a file of JSON lines: settings, latencies, trials. */
export interface SearchLog {
  readonly latencies: readonly MeasuredArchitecture[];
  readonly trials: readonly Trial[];
  append(line: { readonly latency: MeasuredArchitecture } | { readonly trial: Trial }): Promise<void>;
}

/**
 * Opens the log of a search, or begins one. A last line that was cut off is removed.
 * @param settings plain JSON that everything in the log depends on
 * @throws StateError where another search left the file, or it is damaged; FileError
 */
export async function openSearchLog(path: string, settings: JsonObject): Promise<SearchLog> {
  const write = async (line: object): Promise<void> =>
    explained("write", path, appendFile(path, `${JSON.stringify(line)}\n`));
  const lines = await readLines(path);
  if (lines.length === 0) {
    await explained("make", dirname(path), mkdir(dirname(path), { recursive: true }));
    await write({ settings });
  } else checkSettings(path, lines[0]!["settings"], settings);
  const found = { latencies: [] as MeasuredArchitecture[], trials: [] as Trial[] };
  lines.slice(1).forEach((line, i) => {
    if (isJsonObject(line["latency"])) found.latencies.push(line["latency"] as unknown as MeasuredArchitecture);
    else if (isJsonObject(line["trial"])) found.trials.push(line["trial"] as unknown as Trial);
    else throw new StateError(`${path}:${i + 2} is no line of a search; remove the file to start again`);
  });
  return { ...found, append: write };
}

async function readLines(path: string): Promise<JsonObject[]> {
  const bytes = await explained(
    "read",
    path,
    readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return new Uint8Array();
      throw error;
    }),
  );
  const whole = bytes.lastIndexOf(10) + 1;
  if (whole < bytes.length) await explained("write", path, truncate(path, whole));
  const text = decodeUtf8(bytes.subarray(0, whole), path);
  return text
    .split("\n")
    .slice(0, -1)
    .map((line, i) => {
      const value = parseJson(line, `${path}:${i + 1}`);
      if (!isJsonObject(value)) throw new StateError(`${path}:${i + 1} is no line of a search; remove the file`);
      return value;
    });
}

function checkSettings(path: string, found: unknown, wanted: JsonObject): void {
  const before = isJsonObject(found) ? found : {};
  const names = [...new Set([...Object.keys(before), ...Object.keys(wanted)])];
  const other = names.find((name) => JSON.stringify(before[name]) !== JSON.stringify(wanted[name]));
  if (other !== undefined)
    throw new StateError(
      `${path} is of a search with another "${other}" (${JSON.stringify(before[other])}, now ${JSON.stringify(wanted[other])}); give the same options to go on with it, or another folder`,
    );
}
