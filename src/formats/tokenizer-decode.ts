import { fromByteChars } from "./bpe-bytes.ts";
import { isJsonObject, type JsonObject } from "./json.ts";
import type { TokenizerDefinition } from "./tokenizer-json.ts";

/** Text of tokens as they come. What `push` and `end` give, put together, is what `decode` gives for all of them. */
export interface TokenStream {
  /** Takes the next token. @returns the text that is complete with it; bytes of an unfinished character wait. */
  push(id: number): string;
  /** Ends the text. @returns what still waited, a character cut short as U+FFFD */
  end(): string;
}

/** Turns tokens into text. Ids that stand for no token give no text. */
export interface TokenDecoder {
  decode(ids: Iterable<number>): string;
  stream(): TokenStream;
}

/** @param decode the library's decoder, for kinds that are not made of bytes */
export function makeDecoder(definition: TokenizerDefinition, decode: (tokens: string[]) => string): TokenDecoder {
  const spelling = byteSpelling(definition);
  return spelling ? new ByteDecoder(definition.tokens, spelling) : new WordDecoder(definition.tokens, decode);
}

/** How a token spells bytes, for decoders whose text is the tokens' bytes one after the other. */
interface Spelling {
  bytesOf(token: string, id: number): Uint8Array;
  /** Whether a space that begins the text is not part of it. */
  readonly dropsFirstSpace: boolean;
}

const utf8 = new TextEncoder();

function byteSpelling({ json, model, added }: TokenizerDefinition): Spelling | undefined {
  const { decoder } = json;
  if (!isJsonObject(decoder)) return undefined;
  if (decoder["type"] === "ByteLevel") {
    const verbatim = new Set(added.map(({ id }) => id));
    const wordEnd = model.json["end_of_word_suffix"];
    return {
      dropsFirstSpace: false,
      bytesOf(token, id) {
        if (verbatim.has(id)) return utf8.encode(token);
        if (typeof wordEnd === "string" && wordEnd !== "" && token.endsWith(wordEnd)) {
          const word = token.slice(0, -wordEnd.length);
          return Uint8Array.of(...(fromByteChars(word) ?? utf8.encode(word)), 0x20);
        }
        return fromByteChars(token) ?? utf8.encode(token);
      },
    };
  }
  return decoder["type"] === "Sequence" && Array.isArray(decoder["decoders"])
    ? sentencePieceSpelling(decoder["decoders"] as JsonObject[])
    : undefined;
}

/** SentencePiece's decoders with byte tokens: signs replaced by spaces, byte tokens, and a first space dropped. */
function sentencePieceSpelling(steps: readonly JsonObject[]): Spelling | undefined {
  const kinds = steps.map(({ type }) => type).join(" ");
  if (!/^(Replace )*ByteFallback Fuse( Strip)?$/.test(kinds)) return undefined;
  const replacements: { from: string; to: string }[] = [];
  for (const { type, pattern, content } of steps) {
    if (type !== "Replace") continue;
    const from = isJsonObject(pattern) ? pattern["String"] : undefined;
    if (typeof from !== "string" || from === "" || typeof content !== "string") return undefined;
    replacements.push({ from, to: content });
  }
  const strip = steps.find(({ type }) => type === "Strip");
  if (strip && !(strip["content"] === " " && strip["start"] === 1 && strip["stop"] === 0)) return undefined;
  return {
    dropsFirstSpace: strip !== undefined,
    bytesOf(token) {
      const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
      if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
      return utf8.encode(replacements.reduce((text, { from, to }) => text.replaceAll(from, to), token));
    },
  };
}

class ByteDecoder implements TokenDecoder {
  readonly #tokens: readonly (string | undefined)[];
  readonly #spelling: Spelling;
  /** Bytes by id, filled as they are asked for. */
  readonly #bytes: Uint8Array[] = [];

  constructor(tokens: readonly (string | undefined)[], spelling: Spelling) {
    this.#tokens = tokens;
    this.#spelling = spelling;
  }

  #bytesOf(id: number): Uint8Array {
    const token = this.#tokens[id];
    return (this.#bytes[id] ??= token === undefined ? new Uint8Array() : this.#spelling.bytesOf(token, id));
  }

  decode(ids: Iterable<number>): string {
    const pieces = Array.from(ids, (id) => this.#bytesOf(id));
    const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece, at);
      at += piece.length;
    }
    const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
    return this.#spelling.dropsFirstSpace && text.startsWith(" ") ? text.slice(1) : text;
  }

  stream(): TokenStream {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    let drops = this.#spelling.dropsFirstSpace;
    const emit = (text: string): string => {
      if (!drops || text === "") return text;
      drops = false;
      return text.startsWith(" ") ? text.slice(1) : text;
    };
    return {
      push: (id) => emit(decoder.decode(this.#bytesOf(id), { stream: true })),
      end: () => emit(decoder.decode()),
    };
  }
}

/** Decoders that put whole words together, where a token's text depends on the one before it at most. */
class WordDecoder implements TokenDecoder {
  readonly #tokens: readonly (string | undefined)[];
  readonly #decode: (tokens: string[]) => string;

  constructor(tokens: readonly (string | undefined)[], decode: (tokens: string[]) => string) {
    this.#tokens = tokens;
    this.#decode = decode;
  }

  decode(ids: Iterable<number>): string {
    const tokens = Array.from(ids, (id) => this.#tokens[id]).filter((token) => token !== undefined);
    return tokens.length === 0 ? "" : this.#decode(tokens);
  }

  stream(): TokenStream {
    let last: string | undefined;
    return {
      push: (id) => {
        const token = this.#tokens[id];
        if (token === undefined) return "";
        const text =
          last === undefined ? this.#decode([token]) : this.#decode([last, token]).slice(this.#decode([last]).length);
        last = token;
        return text;
      },
      end: () => "",
    };
  }
}
