import { readFile, truncate } from "node:fs/promises";
import { explained } from "./files.node.ts";
import { decodeUtf8 } from "./json.ts";

/**
 * The lines of a file that JSON documents are appended to, one a line; null where there is none, or no whole line. A last
 * line that was cut off in the middle is removed from the file, so that more can be appended.
 * @throws FileError; FormatError for bytes that are not UTF-8
 */
export async function wholeLines(path: string): Promise<string[] | null> {
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
  return decodeUtf8(bytes.subarray(0, whole), path).split("\n").slice(0, -1);
}
