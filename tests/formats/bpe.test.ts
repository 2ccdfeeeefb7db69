import { existsSync, readdirSync, readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { byteChars, fromByteChars, toByteChars } from "../../src/formats/bpe-bytes.ts";
import { BpeEncoder, type BpeModel } from "../../src/formats/bpe-encode.ts";
import { Heap } from "../../src/formats/bpe-heap.ts";
import { BpeTrainer, type BpeTrainOptions, trainBpe } from "../../src/formats/bpe-train.ts";
import type { JsonObject } from "../../src/formats/json.ts";
import { Tokenizer } from "../../src/formats/tokenizer.ts";
import { gpt2Regex, makeSplitter } from "../../src/formats/tokenizer-split.ts";

interface Trained extends JsonObject {
  readonly model: { readonly vocab: Record<string, number>; readonly merges: readonly string[] };
}
const train = (texts: Iterable<string>, options: BpeTrainOptions): Trained =>
  trainBpe(texts, options) as unknown as Trained;

const anyText = fc.string({ unit: "binary", maxLength: 60 });

describe("byte characters", () => {
  it("are GPT-2's", () => {
    expect(toByteChars("a b\n")).toBe("aĠbĊ");
    expect(toByteChars("é")).toBe("Ã©");
    expect(byteChars[0]).toBe("Ā");
    expect(byteChars[0xad]).toBe("Ń");
    expect(new Set(byteChars).size).toBe(256);
  });

  it("give every byte back, and nothing for other characters", () => {
    expect(fromByteChars(byteChars.join(""))).toEqual(Uint8Array.from({ length: 256 }, (_, byte) => byte));
    expect(fromByteChars("a b")).toBeUndefined();
  });
});

it("a heap sorts", () => {
  fc.assert(
    fc.property(fc.array(fc.integer()), (numbers) => {
      const heap = new Heap<number>((a, b) => a < b);
      for (const n of numbers) heap.push(n);
      expect(numbers.map(() => heap.pop())).toEqual([...numbers].sort((a, b) => a - b));
      expect(heap.pop()).toBeUndefined();
    }),
    { seed: 1 },
  );
});

/** The definition of BPE: look at all neighbours, merge the pair of lowest rank from the left, look again. */
function slowBpe(word: string, merges: readonly (readonly [string, string])[]): string[] {
  let symbols = [...word];
  for (;;) {
    const best = merges.find(([left, right]) => symbols.some((s, i) => s === left && symbols[i + 1] === right));
    if (!best) return symbols;
    const merged: string[] = [];
    for (let i = 0; i < symbols.length; i++) {
      if (symbols[i] === best[0] && symbols[i + 1] === best[1]) merged.push(symbols[i]! + symbols[++i]!);
      else merged.push(symbols[i]!);
    }
    symbols = merged;
  }
}

const plain: Omit<BpeModel, "vocab" | "merges"> = {
  fuseUnknown: false,
  byteFallback: false,
  wholeWords: new Map(),
  continuationPrefix: "",
  wordEnd: "",
};

describe("BpeEncoder", () => {
  const encode = (word: string, model: BpeModel, bytes = false): number[] => {
    const ids: number[] = [];
    new BpeEncoder(model, bytes).encode(word, ids);
    return ids;
  };

  it("equals the definition of BPE on random merges and words", () => {
    const piece = fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: 1, maxLength: 3 });
    fc.assert(
      fc.property(
        fc.array(fc.tuple(piece, piece), { maxLength: 12 }),
        fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 24 }),
        (all, word) => {
          const merges = all.filter((pair, i) => all.findIndex((other) => other.join(" ") === pair.join(" ")) === i);
          const tokens = [...new Set(["a", "b", "c", ...merges.flatMap(([l, r]) => [l, r, l + r])])];
          const model = { ...plain, merges, vocab: new Map(tokens.map((token, id) => [token, id])) };
          expect(encode(word, model).map((id) => tokens[id])).toEqual(slowBpe(word, merges));
        },
      ),
      { seed: 2, numRuns: 300 },
    );
  });

  it("spells what it does not know in bytes, or as the unknown token, fused or not, or not at all", () => {
    const vocab = new Map([
      ["<unk>", 0],
      ["a", 1],
      ["<0xC3>", 2],
      ["<0xA9>", 3],
    ]);
    const model = { ...plain, vocab, merges: [] };
    expect(encode("aéa", { ...model, byteFallback: true })).toEqual([1, 2, 3, 1]);
    expect(encode("a中文a", { ...model, byteFallback: true, unknown: "<unk>" })).toEqual([1, 0, 0, 1]);
    expect(encode("a中文a中", { ...model, unknown: "<unk>", fuseUnknown: true })).toEqual([1, 0, 1, 0]);
    expect(encode("a中a", model)).toEqual([1, 1]);
  });

  it("marks the ends and insides of words", () => {
    const ends = new Map([
      ["a", 0],
      ["b</w>", 1],
      ["ab</w>", 2],
    ]);
    expect(encode("ab", { ...plain, vocab: ends, merges: [["a", "b</w>"]], wordEnd: "</w>" })).toEqual([2]);
    const insides = new Map([
      ["a", 0],
      ["##b", 1],
      ["ab", 2],
    ]);
    expect(encode("ab", { ...plain, vocab: insides, merges: [["a", "##b"]], continuationPrefix: "##" })).toEqual([2]);
  });

  it("takes whole words where it is told to", () => {
    const vocab = new Map([
      ["a", 0],
      ["b", 1],
      ["ab", 2],
    ]);
    expect(encode("ab", { ...plain, vocab, merges: [] })).toEqual([0, 1]);
    expect(encode("ab", { ...plain, vocab, merges: [], wholeWords: new Map([["ab", 2]]) })).toEqual([2]);
  });

  it("refuses merges of tokens that do not exist", () => {
    const vocab = new Map([
      ["a", 0],
      ["b", 1],
    ]);
    expect(() => new BpeEncoder({ ...plain, vocab, merges: [["a", "b"]] }, false)).toThrow(
      /merge 0 needs the token "ab", which the vocabulary lacks/,
    );
    expect(() => new BpeEncoder({ ...plain, vocab, merges: [["c", "b"]] }, false)).toThrow(
      /merge 0 needs the token "c"/,
    );
  });
});

/** BPE training by its definition: count every pair of every word again for each merge. */
function slowTrain(texts: readonly string[], vocabSize: number, minFrequency: number): string[] {
  const alphabet = [...byteChars].sort();
  const tokens = [...alphabet];
  const { split } = makeSplitter({ type: "Split", pattern: { Regex: gpt2Regex }, behavior: "Isolated" });
  let words = texts
    .flatMap((text) => (text === "" ? [] : split(text, true)))
    .map((word) => Array.from(toByteChars(word), (char) => alphabet.indexOf(char)));
  const merges: string[] = [];
  while (tokens.length < vocabSize) {
    const counts = new Map<string, number>();
    for (const word of words) {
      for (let i = 0; i + 1 < word.length; i++) {
        const key = `${word[i]},${word[i + 1]}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    const order = [...counts].map(([key, count]) => ({ pair: key.split(",").map(Number), count }));
    order.sort((a, b) => b.count - a.count || a.pair[0]! - b.pair[0]! || a.pair[1]! - b.pair[1]!);
    const best = order[0];
    if (!best || best.count < minFrequency) break;
    const [left, right] = best.pair as [number, number];
    merges.push(`${tokens[left]} ${tokens[right]}`);
    tokens.push(tokens[left]! + tokens[right]!);
    words = words.map((word) => {
      const merged: number[] = [];
      for (let i = 0; i < word.length; i++) {
        if (word[i] === left && word[i + 1] === right) {
          merged.push(tokens.length - 1);
          i++;
        } else merged.push(word[i]!);
      }
      return merged;
    });
  }
  return merges;
}

describe("trainBpe", () => {
  it("merges the most frequent pair first (by hand)", () => {
    // e+s and s+t 9 times, then es+t; l+o and o+w 7 times; then e+w 6 times like n+e and w+est, but e comes first.
    const words = [
      ..."low ".repeat(5).trim().split(" "),
      "lower",
      "lower",
      ...Array(6).fill("newest"),
      ...Array(3).fill("widest"),
    ];
    const { model } = train(words, { vocabSize: 256 + 6, words: "gpt2" });
    expect(model.merges).toEqual(["e s", "es t", "l o", "lo w", "e w", "n ew"]);
    expect(model.vocab["lo"]).toBe(258);
  });

  it("equals its definition on small texts", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", "aa", "ab", "ba", " ", "é", "!"), maxLength: 40 });
    fc.assert(
      fc.property(fc.array(text, { maxLength: 6 }), fc.integer({ min: 1, max: 3 }), (texts, minFrequency) => {
        const { model } = train(texts, { vocabSize: 280, words: "gpt2", minFrequency });
        expect(model.merges).toEqual(slowTrain(texts, 280, minFrequency));
      }),
      { seed: 3, numRuns: 200 },
    );
  });

  it("does not depend on the order of texts, and continues from text to text", () => {
    const texts = ["the cat sat", "the dog sat on the mat", "a cat and a dog"];
    const options = { vocabSize: 300, specialTokens: ["<|end|>"] };
    const trainer = new BpeTrainer(options);
    for (const text of texts) trainer.add(text);
    expect(trainer.train()).toEqual(trainBpe([...texts].reverse(), options));
  });

  it("keeps special tokens apart from text", () => {
    const { model, added_tokens } = train(["ab<|end|>".repeat(50)], {
      vocabSize: 300,
      specialTokens: ["<|end|>", "<|pad|>"],
    });
    expect([model.vocab["<|end|>"], model.vocab["<|pad|>"]]).toEqual([0, 1]);
    expect(model.merges).toEqual(["a b"]);
    expect(added_tokens).toMatchObject([
      { id: 0, special: true },
      { id: 1, special: true },
    ]);
    // A text that is spelled like a special token in byte characters does not take its place.
    const clash = train([" x".repeat(99)], { vocabSize: 300, specialTokens: ["Ġx"] });
    expect(clash.model.merges).not.toContain("Ġ x");
    expect(clash.model.vocab["Ġx"]).toBe(0);
  });

  it("survives words that are no words", () => {
    const { model } = train(["a".repeat(100_000)], { vocabSize: 270 });
    expect(model.merges.slice(0, 3)).toEqual(["a a", "aa aa", "aaaa aaaa"]);
  });

  it("says how far it is", () => {
    const seen: [number, number][] = [];
    trainBpe(["abcd ".repeat(9)], { vocabSize: 2000, onProgress: (...progress) => seen.push(progress) });
    expect(seen.at(-1)![0]).toBe(seen.at(-1)![1]);
  });

  it("refuses senseless options", () => {
    expect(() => trainBpe([], { vocabSize: 256, specialTokens: ["<s>"] })).toThrow(
      /vocabSize is a whole number from 257 /,
    );
    expect(() => trainBpe([], { vocabSize: 300.5 })).toThrow(/not 300\.5/);
    expect(() => trainBpe([], { vocabSize: 300, minFrequency: 0 })).toThrow(
      /minFrequency is a whole number from 1, not 0/,
    );
    expect(() => trainBpe([], { vocabSize: 300, words: "cl100k" as "gpt2" })).toThrow(
      /words is one of gpt2, llama3, not "cl100k"/,
    );
    for (const token of ["", "a", "<s>"]) {
      expect(() => trainBpe([], { vocabSize: 300, specialTokens: ["<s>", token] })).toThrow(
        /is empty, a byte's, or named twice/,
      );
    }
  });

  it.each(["gpt2", "llama3"] as const)("makes tokenizers that give every text back (%s)", (words) => {
    const tokenizerJson = trainBpe(["It's 1,234 o'clock, don't  worry!\r\n\n Ünïcödé 中文 😀".repeat(3)], {
      vocabSize: 320,
      words,
      specialTokens: ["<|end|>"],
    });
    const tokenizer = Tokenizer.fromFiles({ tokenizerJson });
    expect(tokenizer.vocabSize).toBeLessThanOrEqual(320);
    fc.assert(
      fc.property(anyText, (text) => {
        expect(tokenizer.decode(tokenizer.encode(text))).toBe(text.replace(/\p{Surrogate}/gu, "\uFFFD"));
      }),
      { seed: 4, numRuns: 300 },
    );
  });

  const books = new URL("../../../shared/data/text/childrens-books/", import.meta.url);
  it.skipIf(!existsSync(books))(
    "compresses real books it has not seen (needs shared/data/text/childrens-books)",
    () => {
      const texts = readdirSync(books)
        .filter((name) => name.endsWith(".txt"))
        .sort()
        .map((name) => readFileSync(new URL(name, books), "utf8"));
      const tokenizer = Tokenizer.fromFiles({ tokenizerJson: trainBpe(texts.slice(0, 12), { vocabSize: 4096 }) });
      const unseen = texts[20]!;
      const ratio = Buffer.byteLength(unseen) / tokenizer.encode(unseen).length;
      console.info(`4,096 tokens learned from 12 books: ${ratio.toFixed(2)} bytes per token of another book`);
      expect(ratio).toBeGreaterThan(3);
    },
  );
});
