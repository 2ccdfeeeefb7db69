import { ArgumentError } from "../tensor/errors.ts";
import { byteChars, toByteChars } from "./bpe-bytes.ts";
import { Heap } from "./bpe-heap.ts";
import type { JsonObject } from "./json.ts";
import { AddedTokenFinder } from "./tokenizer-added.ts";
import type { AddedToken } from "./tokenizer-json.ts";
import { llama3Regex, makeSplitter, type Splitter } from "./tokenizer-split.ts";

const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true };

/** Ways to cut text into words before pairs are counted, as tokenizer.json writes them. */
const preTokenizers = {
  gpt2: { ...byteLevel, use_regex: true },
  llama3: {
    type: "Sequence",
    pretokenizers: [
      { type: "Split", pattern: { Regex: llama3Regex }, behavior: "Isolated", invert: false },
      { ...byteLevel, use_regex: false },
    ],
  },
} as const;

export interface BpeTrainOptions {
  /** Tokens of the finished vocabulary: special tokens, 256 bytes and merges. Fewer when the text runs out of pairs. */
  readonly vocabSize: number;
  /** Tokens that control the model; they get the first ids, in this order, and are never made of text. */
  readonly specialTokens?: readonly string[];
  /** Whose rule cuts text into words: GPT-2's, which llama.cpp calls `gpt-2`, or Llama 3's (`llama-bpe`). */
  readonly words?: keyof typeof preTokenizers;
  /** How often a pair must occur to be merged; 2 unless said otherwise. */
  readonly minFrequency?: number;
  /** Called now and then with the number of merges made and wanted. */
  readonly onProgress?: (merges: number, wanted: number) => void;
}

/** A pair of neighbouring tokens. */
interface Pair {
  readonly left: number;
  readonly right: number;
  /** Occurrences, each word counted as often as it occurs. */
  count: number;
  /** Words that held it at some time, by index. */
  readonly words: number[];
}

/** Bytes of the longest word that pairs are counted in; longer ones, which are hardly words, are cut up. */
const longestWord = 1000;

/** Room for `left * pairStride + right` in a number without loss. */
const pairStride = 2 ** 24;

/**
 * Learns a byte-level BPE vocabulary (Sennrich et al. 2016, over bytes as in GPT-2): starting from 256 bytes, the pair
 * of neighbours that occurs most often becomes a token, again and again; of several the one with the smaller ids. The
 * same text in the same words gives the same vocabulary, in whatever order it comes.
 */
export class BpeTrainer {
  readonly #options: Required<Omit<BpeTrainOptions, "onProgress">> & Pick<BpeTrainOptions, "onProgress">;
  readonly #splitter: Splitter;
  readonly #specials: AddedTokenFinder;
  readonly #added: readonly AddedToken[];
  readonly #wordCounts = new Map<string, number>();

  /** @throws ArgumentError when the vocabulary cannot hold the special tokens and the bytes, or an option is no count */
  constructor(options: BpeTrainOptions) {
    const { vocabSize, specialTokens = [], words = "llama3", minFrequency = 2 } = options;
    const least = specialTokens.length + byteChars.length;
    if (!Number.isInteger(vocabSize) || vocabSize < least || vocabSize > pairStride) {
      throw new ArgumentError(
        `vocabSize is a whole number from ${least} (special tokens and bytes) to ${pairStride}, not ${vocabSize}`,
      );
    }
    if (!Number.isInteger(minFrequency) || minFrequency < 1) {
      throw new ArgumentError(`minFrequency is a whole number from 1, not ${minFrequency}`);
    }
    if (!Object.hasOwn(preTokenizers, words)) {
      throw new ArgumentError(`words is one of ${Object.keys(preTokenizers).join(", ")}, not ${JSON.stringify(words)}`);
    }
    const taken = new Set(["", ...byteChars]);
    for (const token of specialTokens) {
      if (taken.has(token))
        throw new ArgumentError(`the special token ${JSON.stringify(token)} is empty, a byte's, or named twice`);
      taken.add(token);
    }
    this.#options = { ...options, vocabSize, specialTokens, words, minFrequency };
    this.#splitter = makeSplitter(preTokenizers[words]);
    this.#added = specialTokens.map((content, id) => ({
      id,
      content,
      special: true,
      normalized: false,
      lstrip: false,
      rstrip: false,
      singleWord: false,
    }));
    this.#specials = new AddedTokenFinder(this.#added, ({ content }) => content);
  }

  /** Counts the words of a text; special tokens in it separate texts. */
  add(text: string): void {
    for (const section of this.#specials.split(text, true)) {
      if (section.token) continue;
      for (const word of this.#splitter.split(section.text, section.atStart)) {
        this.#wordCounts.set(word, (this.#wordCounts.get(word) ?? 0) + 1);
      }
    }
  }

  /** The content of a tokenizer.json with the vocabulary learned from all text so far. */
  train(): JsonObject {
    const { vocabSize, specialTokens, minFrequency, onProgress } = this.#options;
    // Hugging Face's trainer numbers bytes by their characters; so that the two agree, pairs tie alike here.
    const alphabet = [...byteChars].sort();
    const tokens = [...specialTokens, ...alphabet];
    const byteIds = new Map(alphabet.map((char, i) => [char, specialTokens.length + i]));
    const words: number[][] = [];
    const counts: number[] = [];
    for (const [word, count] of this.#wordCounts) {
      const ids = Array.from(toByteChars(word), (char) => byteIds.get(char)!);
      for (let start = 0; start < ids.length; start += longestWord) {
        words.push(ids.slice(start, start + longestWord));
        counts.push(count);
      }
    }
    const pairs = new PairCounts(words, counts);
    const merges: string[] = [];
    const wanted = vocabSize - tokens.length;
    while (merges.length < wanted) {
      const best = pairs.takeBest();
      if (!best || best.count < minFrequency) break;
      const [left, right] = [tokens[best.left]!, tokens[best.right]!];
      // Text may spell a special token in the characters of bytes; that token is taken.
      if (specialTokens.includes(left + right)) continue;
      merges.push(`${left} ${right}`);
      tokens.push(left + right);
      pairs.merge(best, tokens.length - 1);
      if (merges.length % 100 === 0) onProgress?.(merges.length, wanted);
    }
    onProgress?.(merges.length, merges.length);
    return this.#tokenizerJson(tokens, merges);
  }

  #tokenizerJson(tokens: readonly string[], merges: readonly string[]): JsonObject {
    return {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: this.#added.map(({ id, content }) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: preTokenizers[this.#options.words],
      post_processor: null,
      decoder: { ...byteLevel, use_regex: true },
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges,
      },
    };
  }
}

/** Learns a byte-level BPE vocabulary from texts. @returns the content of a tokenizer.json @throws ArgumentError */
export function trainBpe(texts: Iterable<string>, options: BpeTrainOptions): JsonObject {
  const trainer = new BpeTrainer(options);
  for (const text of texts) trainer.add(text);
  return trainer.train();
}

/** How often each pair of neighbours occurs in words that are being merged. */
class PairCounts {
  readonly #words: number[][];
  readonly #counts: readonly number[];
  readonly #pairs = new Map<number, Pair>();
  /**
   * Pairs with the count that they had when they were queued. Counts only fall after that, so that a pair whose count
   * has fallen is queued again when it comes up.
   */
  readonly #queue = new Heap<{ readonly pair: Pair; readonly count: number }>(
    (a, b) => a.count > b.count || (a.count === b.count && keyOf(a.pair) < keyOf(b.pair)),
  );

  constructor(words: number[][], counts: readonly number[]) {
    this.#words = words;
    this.#counts = counts;
    for (const [index, word] of words.entries()) {
      this.#count(index, 1);
      for (let i = 0; i + 1 < word.length; i++) this.#locate(index, word[i]!, word[i + 1]!);
    }
    for (const pair of this.#pairs.values()) this.#queue.push({ pair, count: pair.count });
  }

  /** Adds the pairs of a word to the counts (`sign` 1), or takes them away (-1). */
  #count(index: number, sign: 1 | -1): void {
    const word = this.#words[index]!;
    const times = sign * this.#counts[index]!;
    for (let i = 0; i + 1 < word.length; i++) {
      const key = word[i]! * pairStride + word[i + 1]!;
      let pair = this.#pairs.get(key);
      if (!pair) {
        pair = { left: word[i]!, right: word[i + 1]!, count: 0, words: [] };
        this.#pairs.set(key, pair);
      }
      pair.count += times;
    }
  }

  /** Notes that the word holds the pair. */
  #locate(index: number, left: number, right: number): Pair {
    const pair = this.#pairs.get(left * pairStride + right)!;
    if (pair.words.at(-1) !== index) pair.words.push(index);
    return pair;
  }

  /** Takes the most frequent pair out of the queue. */
  takeBest(): Pair | undefined {
    for (let top = this.#queue.pop(); top; top = this.#queue.pop()) {
      if (top.count === top.pair.count) return top.pair;
      if (top.pair.count > 0) this.#queue.push({ pair: top.pair, count: top.pair.count });
    }
    return undefined;
  }

  /** Replaces the pair by `token` wherever it occurs, from the left. */
  merge({ left, right, words }: Pair, token: number): void {
    const made = new Set<Pair>();
    for (const index of words) {
      const word = this.#words[index]!;
      const merged: number[] = [];
      for (let i = 0; i < word.length; i++) {
        if (word[i] === left && word[i + 1] === right) {
          merged.push(token);
          i++;
        } else merged.push(word[i]!);
      }
      // The word may have lost the pair to an earlier merge.
      if (merged.length === word.length) continue;
      this.#count(index, -1);
      this.#words[index] = merged;
      this.#count(index, 1);
      for (let i = 0; i + 1 < merged.length; i++) {
        const [before, after] = [merged[i]!, merged[i + 1]!];
        if (before === token || after === token) made.add(this.#locate(index, before, after));
      }
    }
    for (const pair of made) this.#queue.push({ pair, count: pair.count });
    this.#pairs.delete(left * pairStride + right);
  }
}

const keyOf = ({ left, right }: Pair): number => left * pairStride + right;
