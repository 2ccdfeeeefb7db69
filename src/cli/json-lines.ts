import { UsageError } from "./errors.ts";
import { textOf } from "./text-file.ts";

/**
 * Reads a file of JSON lines that a user names; empty lines count for nothing.
 * @param like an example of a line, for the error
 * @param read what a line's record stands for; `fail` says what is wrong with it
 * @throws UsageError naming file and line; FormatError for a file that is not UTF-8
 */
export async function readJsonLines<T>(
  path: string,
  like: Readonly<Record<string, unknown>>,
  read: (record: Readonly<Record<string, unknown>>, fail: (why: string) => never) => T,
): Promise<T[]> {
  const lines = (await textOf(path)).split("\n");
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    const fail = (why: string): never => {
      throw new UsageError(`${path}, line ${i + 1}: ${why}`);
    };
    let record: unknown;
    try {
      record = JSON.parse(line);
    } catch {
      return fail(`it is not JSON; each line is one example, such as ${JSON.stringify(like)}`);
    }
    return [read((record ?? {}) as Record<string, unknown>, fail)];
  });
}
