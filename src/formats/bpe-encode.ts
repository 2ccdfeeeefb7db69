import { byteChars } from "./bpe-bytes.ts";
import { Heap } from "./bpe-heap.ts";
import { FormatError } from "./errors.ts";

/** A BPE model as tokenizer.json describes it. */
export interface BpeModel {
  readonly vocab: ReadonlyMap<string, number>;
  /** Pairs of tokens, the first to be merged first. */
  readonly merges: readonly (readonly [string, string])[];
  /** Token of characters that the vocabulary lacks; without one they are dropped. */
  readonly unknown?: string | undefined;
  /** Whether unknown characters in a row become one unknown token. */
  readonly fuseUnknown: boolean;
  /** Whether unknown characters are spelled with the byte tokens `<0x00>` to `<0xFF>`. */
  readonly byteFallback: boolean;
  /** Words that are one token, taken whole without merging. */
  readonly wholeWords: ReadonlyMap<string, number>;
  /** What every character of a word but the first starts with in the vocabulary. */
  readonly continuationPrefix: string;
  /** What the last character of a word ends with in the vocabulary. */
  readonly wordEnd: string;
}

/** Words kept with their ids; text repeats its words, so that most are looked up. */
const cachedWords = 50_000;
/** UTF-16 units of the longest word that is kept. */
const cachedWordLength = 64;

const utf8 = new TextEncoder();

/** Applies a BPE model to words. The time for a word of n symbols is O(n log n), however repetitive it is. */
export class BpeEncoder {
  readonly #model: BpeModel;
  /** Whether words are spelled in the byte-level alphabet, one symbol a byte. */
  readonly #bytes: boolean;
  /** `left * #stride + right` to the rank of their merge. */
  readonly #ranks = new Map<number, number>();
  readonly #stride: number;
  /** Token that the merge of each rank makes. */
  readonly #merged: Int32Array;
  readonly #cache = new Map<string, readonly number[]>();

  /** @throws FormatError when a merge names or makes a token that the vocabulary lacks */
  constructor(model: BpeModel, bytes: boolean) {
    this.#model = model;
    this.#bytes = bytes;
    const { vocab, merges, continuationPrefix } = model;
    let largest = 0;
    for (const id of vocab.values()) if (id > largest) largest = id;
    this.#stride = largest + 1;
    this.#merged = new Int32Array(merges.length);
    const idOf = (token: string, rank: number): number => {
      const id = vocab.get(token);
      if (id !== undefined) return id;
      throw new FormatError(
        `tokenizer.json: merge ${rank} needs the token ${JSON.stringify(token)}, which the vocabulary lacks`,
      );
    };
    for (const [rank, [left, right]] of merges.entries()) {
      this.#ranks.set(idOf(left, rank) * this.#stride + idOf(right, rank), rank);
      this.#merged[rank] = idOf(left + right.slice(continuationPrefix.length), rank);
    }
  }

  /** Appends the ids of `word` to `ids`. */
  encode(word: string, ids: number[]): void {
    let found = this.#cache.get(word);
    if (found === undefined) {
      found = this.#encodeWord(word);
      if (word.length <= cachedWordLength) {
        if (this.#cache.size === cachedWords) this.#cache.clear();
        this.#cache.set(word, found);
      }
    }
    for (const id of found) ids.push(id);
  }

  #encodeWord(word: string): readonly number[] {
    const chars = this.#bytes ? Array.from(utf8.encode(word), (byte) => byteChars[byte]!) : Array.from(word);
    const whole = this.#model.wholeWords.size > 0 ? this.#model.wholeWords.get(chars.join("")) : undefined;
    return whole !== undefined ? [whole] : this.#merge(this.#symbols(chars));
  }

  /** The ids of single characters, before any merge. */
  #symbols(chars: readonly string[]): number[] {
    const { vocab, unknown, fuseUnknown, byteFallback, continuationPrefix, wordEnd } = this.#model;
    const unknownId = unknown === undefined ? undefined : vocab.get(unknown);
    const symbols: number[] = [];
    let afterUnknown = false;
    for (const [i, char] of chars.entries()) {
      const symbol = (i > 0 ? continuationPrefix : "") + char + (i === chars.length - 1 ? wordEnd : "");
      const id = vocab.get(symbol);
      const spelled = id !== undefined ? [id] : byteFallback ? this.#byteTokens(symbol) : undefined;
      if (spelled) for (const part of spelled) symbols.push(part);
      else if (unknownId !== undefined && !(fuseUnknown && afterUnknown)) symbols.push(unknownId);
      afterUnknown = spelled === undefined;
    }
    return symbols;
  }

  #byteTokens(symbol: string): number[] | undefined {
    const ids: number[] = [];
    for (const byte of utf8.encode(symbol)) {
      const id = this.#model.vocab.get(byteToken(byte));
      if (id === undefined) return undefined;
      ids.push(id);
    }
    return ids;
  }

  /** Merges the pair of lowest rank, leftmost first, until no pair merges. */
  #merge(symbols: number[]): readonly number[] {
    const n = symbols.length;
    if (n < 2) return symbols;
    const next = new Int32Array(n);
    const previous = new Int32Array(n);
    // Ranks come first in an entry, then places: ranks stay below 2^23 and places below 2^28, so that it is exact.
    const queue = new Heap<number>((a, b) => a < b);
    const rankAt = (at: number): number | undefined =>
      next[at] === n ? undefined : this.#ranks.get(symbols[at]! * this.#stride + symbols[next[at]!]!);
    const offer = (at: number): void => {
      const rank = rankAt(at);
      if (rank !== undefined) queue.push(rank * n + at);
    };
    for (let at = 0; at < n; at++) {
      next[at] = at + 1;
      previous[at] = at - 1;
    }
    for (let at = 0; at < n - 1; at++) offer(at);
    for (let entry = queue.pop(); entry !== undefined; entry = queue.pop()) {
      const at = entry % n;
      const rank = (entry - at) / n;
      if (symbols[at] === -1 || rankAt(at) !== rank) continue;
      const right = next[at]!;
      symbols[at] = this.#merged[rank]!;
      symbols[right] = -1;
      next[at] = next[right]!;
      if (next[at]! < n) previous[next[at]!] = at;
      if (previous[at]! >= 0) offer(previous[at]!);
      offer(at);
    }
    return symbols.filter((id) => id !== -1);
  }
}

/** The token that spells one byte in vocabularies of SentencePiece's kind: `<0x0A>`. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`;
}
