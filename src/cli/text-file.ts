import { readFile } from "node:fs/promises";
import { decodeUtf8 } from "../formats/json.ts";
import { UsageError } from "./errors.ts";

/** The text of a file that a user names. @throws UsageError for one that cannot be read; FormatError for one that is not UTF-8 */
export async function textOf(path: string): Promise<string> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw new UsageError(`${path} cannot be read (${error.code ?? error.message})`);
  });
  return decodeUtf8(bytes, path);
}

/** The last part of a path. */
export const nameOf = (path: string): string => path.split(/[/\\]/).at(-1)!;
