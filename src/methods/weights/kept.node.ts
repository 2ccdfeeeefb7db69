import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { isJsonObject } from "../../formats/json.ts";
import { writeFileAtomic } from "../../formats/node.ts";

/**
 * What `make` gives, or gave when this was last asked with the same `key`: a result that was long in the making, for a
 * run that goes on later. A file that is damaged, or of another key, is made anew.
 * @param path of the file that keeps it as JSON
 */
export async function keptResult<T>(path: string, key: string, make: () => Promise<T>): Promise<T> {
  const found = await readFile(path, "utf8").then(parsed, () => null);
  if (isJsonObject(found) && found["key"] === key) return found["result"] as T;
  const result = await make();
  await mkdir(dirname(path), { recursive: true });
  const text = new TextEncoder().encode(JSON.stringify({ key, result }));
  await writeFileAtomic(path, (sink) => sink.write(text));
  return result;
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
