import { FormatError } from "./errors.ts";

/** A JSON object as parsed: look keys up with care, since a file may name `__proto__`. */
export type JsonObject = { readonly [key: string]: unknown };

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const surrogate = /\p{Surrogate}/u;

/** UTF-8 bytes as text; `offset` is where they begin, for errors that point into a file. @throws FormatError */
export function decodeUtf8(bytes: Uint8Array, where: string, offset?: number): string {
  try {
    return utf8.decode(bytes);
  } catch (cause) {
    const what = offset === undefined ? "it is not UTF-8 text" : `the text at offset ${offset} is not UTF-8`;
    throw new FormatError(`${where}: ${what}`, { cause });
  }
}

/**
 * Parses JSON that may be hostile. Unlike `JSON.parse` it refuses an object that names a key twice (readers differ
 * in which one wins), strings with half a surrogate pair, and nesting deeper than `depth`.
 * @throws FormatError
 */
export function parseJson(text: string, where: string, depth = 64): unknown {
  checkJson(text, where, depth);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new FormatError(`${where}: it is not JSON: ${(cause as Error).message}`, { cause });
  }
}

/** What `JSON.parse` lets through. Text that is not JSON at all may pass, for `JSON.parse` to refuse. */
function checkJson(text: string, where: string, depth: number): void {
  /** For each container around the place: the keys seen so far, or null in an array. */
  const open: (Set<string> | null)[] = [];
  let keys: Set<string> | null = null;
  let awaitsKey = false;
  for (let i = 0; i < text.length; i++) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
      case 0x5b: // [
        if (open.length === depth)
          throw new FormatError(`${where}: JSON nested deeper than ${depth} at character ${i}`);
        keys = text[i] === "{" ? new Set() : null;
        awaitsKey = keys !== null;
        open.push(keys);
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        keys = open.at(-1) ?? null;
        awaitsKey = false;
        break;
      case 0x2c: // ,
        awaitsKey = keys !== null;
        break;
      case 0x22: {
        const start = i;
        let escaped = false;
        for (i++; i < text.length && text.charCodeAt(i) !== 0x22; i++) {
          if (text.charCodeAt(i) === 0x5c) {
            escaped = true;
            i++;
          }
        }
        const value = escaped ? unescape(text.slice(start, i + 1)) : awaitsKey ? text.slice(start + 1, i) : "";
        if (escaped && surrogate.test(value)) {
          throw new FormatError(`${where}: half a surrogate pair in the string at character ${start}`);
        }
        if (awaitsKey) {
          if (keys!.has(value)) throw new FormatError(`${where}: ${JSON.stringify(value)} is named twice`);
          keys!.add(value);
          awaitsKey = false;
        }
      }
    }
  }
}

/** The value of a quoted JSON string; one that is malformed stays as written, since `JSON.parse` will refuse it. */
function unescape(quoted: string): string {
  try {
    return JSON.parse(quoted) as string;
  } catch {
    return quoted;
  }
}
