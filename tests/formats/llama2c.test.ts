import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Tokenizer } from "@huggingface/tokenizers";
import { describe, expect, it } from "vitest";
import { memorySource } from "../../src/formats/bytes.ts";
import { openFile } from "../../src/formats/files.node.ts";
import type { LlamaConfig } from "../../src/formats/llama-config.ts";
import { openLlama2c } from "../../src/formats/llama2c.ts";
import { readLlama2cPieces, tokenizerJsonFromLlama2c } from "../../src/formats/llama2c-tokenizer.ts";
import { readTensors } from "../../src/formats/tensor-file.ts";
import type { HostTensor } from "../../src/tensor/index.ts";
import { concat, expectRefused, flipped, le, orRefused, spliced } from "./malformed.ts";
import { lastLogits, randomWeights, tinyConfig, tinyPieces } from "./tiny-llama.ts";

/** Modules of a layer in the order of llama2.c's first format, and of its version 1. */
const norms = ["input_layernorm", "post_attention_layernorm"] as const;
const attention = ["q_proj", "k_proj", "v_proj", "o_proj"].map((name) => `self_attn.${name}`);
const feedForward = ["mlp.gate_proj", "mlp.down_proj", "mlp.up_proj"];

/** A checkpoint as llama2.c's exporter writes it, of weights that pair neighbours. */
function checkpoint(config: LlamaConfig, weights: ReadonlyMap<string, HostTensor>, version: 0 | 1): Uint8Array {
  const numbers = [
    config.hidden_size,
    config.intermediate_size,
    config.num_hidden_layers,
    config.num_attention_heads,
    config.num_key_value_heads,
    version === 0 && !config.tie_word_embeddings ? -config.vocab_size : config.vocab_size,
    config.max_position_embeddings,
  ].map((n) => le(n, 4));
  const bytes = (name: string): Uint8Array => weights.get(name)!.rawBytes();
  const layers = (...modules: string[]): Uint8Array[] =>
    modules.flatMap((module) =>
      Array.from({ length: config.num_hidden_layers }, (_, i) => bytes(`model.layers.${i}.${module}.weight`)),
    );
  const head = config.tie_word_embeddings ? [] : [bytes("lm_head.weight")];
  const [embedding, norm] = [bytes("model.embed_tokens.weight"), bytes("model.norm.weight")];
  if (version === 1) {
    const header = new Uint8Array(256);
    header.set(concat([le(0x616b3432, 4), le(1, 4), ...numbers, le(config.tie_word_embeddings ? 1 : 0, 1)]));
    return concat([header, ...layers(...norms), norm, embedding, ...layers(...attention, ...feedForward), ...head]);
  }
  const tables = new Uint8Array(4 * config.max_position_embeddings * config.head_dim).fill(7);
  return concat([
    ...numbers,
    embedding,
    ...layers(norms[0], ...attention, norms[1], ...feedForward),
    norm,
    tables,
    ...head,
  ]);
}

const open = (bytes: Uint8Array, limits = {}): ReturnType<typeof openLlama2c> =>
  openLlama2c(memorySource(bytes, "x.bin"), limits);

describe("a llama2.c checkpoint", () => {
  for (const version of [0, 1] as const) {
    it.each([true, false])(
      `of format ${version} computes in Hugging Face's terms what it was trained to (tied: %s)`,
      async (tied) => {
        const config = tinyConfig({ tie_word_embeddings: tied });
        const weights = randomWeights(config, 3);
        const opened = await open(checkpoint(config, weights, version));
        expect(opened.config).toEqual(config);
        const converted = await readTensors(opened.tensors);
        expect(new Set(converted.keys())).toEqual(new Set(weights.keys()));
        for (const [name, { shape }] of weights) expect([name, converted.get(name)!.shape]).toEqual([name, shape]);
        const tokens = [1, 5, 9, 200, 260, 5, 3];
        const expected = lastLogits(config, weights, tokens, "neighbours");
        const found = lastLogits(config, converted, tokens, "halves");
        for (const [i, logit] of expected.entries()) expect(found[i]).toBeCloseTo(logit, 9);
        expect(lastLogits(config, weights, tokens, "halves")[0]).not.toBeCloseTo(expected[0]!, 2);
      },
    );
  }

  it("gives rows of what it converts", async () => {
    const config = tinyConfig();
    const { tensors } = await open(checkpoint(config, randomWeights(config, 3), 0));
    const name = "model.layers.1.self_attn.q_proj.weight";
    const whole = await tensors.read(name);
    const rows = await tensors.read(name, [8, 10]);
    expect([rows.shape, rows.data]).toEqual([[2, 64], whole.data.slice(8 * 64, 10 * 64)]);
    await expect(tensors.read("freq_cis_real")).rejects.toThrow('no tensor is called "freq_cis_real"');
    await tensors.close();
  });

  const config = tinyConfig({
    hidden_size: 8,
    intermediate_size: 4,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 4,
    vocab_size: 3,
  });
  const small = checkpoint(config, randomWeights(config, 1), 0);
  const versioned = checkpoint(config, randomWeights(config, 1), 1);
  const withNumber = (bytes: Uint8Array, i: number, value: number): Uint8Array => {
    const copy = bytes.slice();
    copy.set(le(value, 4), 4 * i);
    return copy;
  };

  it.each<[string, Uint8Array, RegExp]>([
    ["nothing at all", new Uint8Array(0), /0 bytes are too few/],
    ["a width of 0", withNumber(small, 0, 0), /does not describe a Llama/],
    ["a negative width", withNumber(small, 0, -8), /does not describe a Llama/],
    ["a width that heads do not divide", withNumber(small, 0, 10), /does not describe a Llama/],
    ["a vocabulary of 0", withNumber(small, 5, 0), /does not describe a Llama/],
    ["a vocabulary of -2^31", withNumber(small, 5, -(2 ** 31)), /takes \d+ bytes, but the file has/],
    ["2^31-1 layers", withNumber(small, 2, 2 ** 31 - 1), /number of layers is 2147483647, over the limit of 10000/],
    [
      "sizes whose product passes 2^53",
      concat([...[2 ** 30, 2 ** 30, 8192, 2, 2, 2 ** 30, 8192].map((n) => le(n, 4)), new Uint8Array(64)]),
      /takes 2.6\d+e\+23 bytes, but the file has 92/,
    ],
    ["groups that do not divide heads", withNumber(small, 4, 3), /does not describe a Llama/],
    ["bytes after the end", concat([small, le(0, 4)]), /takes \d+ bytes, but the file has/],
    ["version 2", withNumber(versioned, 1, 2), /version 2 of llama2.c's format is not supported/],
    ["a version and no more", versioned.subarray(0, 200), /cut short inside of its header/],
    ["a negative vocabulary in version 1", withNumber(versioned, 7, -3), /does not describe a Llama/],
    [
      "text",
      new TextEncoder().encode("It was a dark and stormy night; the rain fell in torrents."),
      /limit|describe|takes/,
    ],
  ])("is refused: %s", (_, bytes, reason) => expectRefused(open(bytes), reason));

  it("is refused at every length short of its own", async () => {
    for (const bytes of [small, versioned]) {
      for (let length = 0; length < bytes.length; length++) await expectRefused(open(bytes.subarray(0, length)), /./);
    }
  });

  it("is refused or gives tensors that fit its header, whatever byte is changed", async () => {
    for (const bytes of [small, versioned]) {
      for (const copy of [...flipped(bytes, 800, 1, 256), ...spliced(bytes, 200, 2, 256)]) {
        const file = await orRefused(() => open(copy));
        for (const { name, shape } of file?.tensors.tensors.values() ?? []) {
          const found = await orRefused(() => file!.tensors.read(name));
          if (found) expect(found.shape).toEqual(shape);
        }
      }
    }
  });
});

function vocabulary(pieces: readonly { text: string; score: number }[], longest = 32): Uint8Array {
  const parts = pieces.map(({ text, score }) => {
    const bytes = new TextEncoder().encode(text);
    return concat([new Uint8Array(new Float32Array([score]).buffer), le(bytes.length, 4), bytes]);
  });
  return concat([le(longest, 4), ...parts]);
}

/** The merging that llama2.c does: the neighbours whose joint piece scores best, leftmost first. */
function mergeByScore(pieces: readonly { text: string; score: number }[], text: string): number[] {
  const ids = new Map(pieces.map(({ text: t }, id) => [t, id]));
  let tokens = [...` ${text}`].flatMap((char) =>
    ids.has(char) ? [ids.get(char)!] : Array.from(new TextEncoder().encode(char), (byte) => byte + 3),
  );
  for (;;) {
    let [best, at] = [-Infinity, -1];
    for (let i = 0; i + 1 < tokens.length; i++) {
      const id = ids.get(pieces[tokens[i]!]!.text + pieces[tokens[i + 1]!]!.text);
      if (id !== undefined && pieces[id]!.score > best) [best, at] = [pieces[id]!.score, i];
    }
    if (at < 0) return tokens;
    const id = ids.get(pieces[tokens[at]!]!.text + pieces[tokens[at + 1]!]!.text)!;
    tokens = [...tokens.slice(0, at), id, ...tokens.slice(at + 2)];
  }
}

function tokenizerOf(pieces: readonly { text: string; score: number }[]): Tokenizer {
  const { tokenizerJson, tokenizerConfig } = tokenizerJsonFromLlama2c(pieces);
  return new Tokenizer({ ...tokenizerJson }, { ...tokenizerConfig });
}

describe("a llama2.c vocabulary", () => {
  it("is read piece by piece", () => {
    expect(readLlama2cPieces(vocabulary(tinyPieces), tinyPieces.length, "tok")).toEqual(tinyPieces);
  });

  it("becomes a tokenizer that merges as llama2.c does", () => {
    const tokenizer = tokenizerOf(tinyPieces);
    for (const text of ["abc", "a abc", "abcabc", "bca", "é", "ü", "a\nb", "cabcab"]) {
      const { ids } = tokenizer.encode(text);
      expect([text, ids]).toEqual([text, [1, ...mergeByScore(tinyPieces, text)]]);
      expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe(text);
    }
  });

  const stories = new URL("../../../shared/data/lm/stories260K/", import.meta.url);
  const present = existsSync(stories);

  it.skipIf(!present)(
    "of a real model tokenizes stories as llama2.c does (needs shared/data/lm/stories260K)",
    async () => {
      const pieces = readLlama2cPieces(
        new Uint8Array(await readFile(new URL("tok512.bin", stories))),
        512,
        "tok512.bin",
      );
      const tokenizer = tokenizerOf(pieces);
      for (const text of [
        "Once upon a time, there was a little girl named Lily.",
        "“Hello”, said Tim – 1, 2, 3!",
        "ÿ€ñ\t\n  x",
      ]) {
        const { ids } = tokenizer.encode(text);
        expect(ids).toEqual([1, ...mergeByScore(pieces, text)]);
        expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe(text);
      }
    },
  );

  it.skipIf(!present)(
    "and its model's two exports agree, and go on with a story (needs shared/data/lm/stories260K)",
    async () => {
      const first = await openLlama2c(await openFile(fileURLToPath(new URL("stories260K.bin", stories))));
      const second = await openLlama2c(await openFile(fileURLToPath(new URL("stories260K.v1.bin", stories))));
      expect(second.config).toEqual(first.config);
      const weights = await readTensors(first.tensors);
      for (const [name, tensor] of await readTensors(second.tensors)) {
        expect(Buffer.compare(tensor.rawBytes(), weights.get(name)!.rawBytes())).toBe(0);
      }
      await first.tensors.close();
      await second.tensors.close();
      // "Once upon a time, there was a" goes on with " little".
      const logits = lastLogits(first.config, weights, [1, 403, 407, 261, 378, 432, 383, 286, 261]);
      expect(logits.indexOf(Math.max(...logits))).toBe(376);
    },
  );

  it.each<[string, Uint8Array, number, RegExp]>([
    ["nothing at all", new Uint8Array(0), 1, /0 bytes cannot hold 1 pieces/],
    ["fewer pieces than the model has", vocabulary(tinyPieces.slice(0, 5)), 6, /cut short|cannot hold/],
    ["more pieces than the model has", vocabulary(tinyPieces.slice(0, 5)), 4, /bytes follow its 4 pieces/],
    ["more pieces than allowed", vocabulary(tinyPieces), 1_000_001, /number of pieces is 1000001, over the limit/],
    [
      "a piece of 2^32-1 bytes",
      concat([le(8, 4), le(0, 4), le(-1, 4)]),
      1,
      /it has 4294967295 bytes, but the longest piece 8/,
    ],
    [
      "a longest piece of 2^31",
      vocabulary(tinyPieces, 2 ** 31),
      270,
      /longest piece is 2147483648, over the limit of 1024/,
    ],
    [
      "a score that is no number",
      vocabulary([{ text: "a", score: NaN }]),
      1,
      /piece 0 at offset 4: its score is not a number/,
    ],
    [
      "bytes that are no text",
      concat([le(8, 4), le(0, 4), le(1, 4), le(0xff, 1)]),
      1,
      /piece 0 at offset 4: it is not UTF-8/,
    ],
    ["a piece twice", vocabulary([...tinyPieces, { text: "a", score: 1 }]), 271, /"a" is listed twice/],
  ])("is refused: %s", async (_, bytes, count, reason) => {
    await expectRefused((async () => tokenizerJsonFromLlama2c(readLlama2cPieces(bytes, count, "tok")))(), reason);
  });

  it("is refused at every length short of its own, and for all changes of a byte by errors of its own", async () => {
    const pieces = tinyPieces.slice(0, 40);
    const bytes = vocabulary(pieces);
    const read = async (copy: Uint8Array): Promise<unknown> =>
      tokenizerJsonFromLlama2c(readLlama2cPieces(copy, pieces.length, "tok"));
    for (let length = 0; length < bytes.length; length++) await expectRefused(read(bytes.subarray(0, length)), /./);
    for (const copy of [...flipped(bytes, 1000, 1), ...spliced(bytes, 300, 2)]) await orRefused(() => read(copy));
  });
});
