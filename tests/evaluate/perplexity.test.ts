import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  compareModels,
  type DecoderScorer,
  logLikelihoods,
  perplexity,
  type ScoredSequence,
  stridedWindows,
} from "../../src/evaluate/index.ts";
import type { Tokenizer } from "../../src/formats/index.ts";
import type { HostTensor } from "../../src/tensor/index.ts";
import { plainLogits } from "../models/plain-decoder.ts";
import { embeddedTokenizer, plainScorer, tinyScorer, tinyTextModel } from "./scorers.ts";

let tokenizer: Tokenizer;
let scorer: DecoderScorer;
beforeAll(async () => {
  tokenizer = await embeddedTokenizer();
  scorer = await tinyScorer(tokenizer);
});
afterAll(() => scorer.dispose());

const text = "Once upon a time a hen said to the fox: come in, come in, and see what I have made of straw!";

/** Log-softmax in double precision. */
function logProbabilities(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const total = Math.log(logits.reduce((sum, x) => sum + Math.exp(x - top), 0)) + top;
  return logits.map((x) => x - total);
}

/** The scores of a sequence by plain loops over doubles. */
function bruteForce({ ids, scored }: ScoredSequence): number[] {
  const { config, weights } = tinyTextModel(tokenizer);
  const logits = plainLogits(config, weights, ids.slice(0, -1)).slice(-scored);
  return logits.map((row, i) => logProbabilities(row)[ids[ids.length - scored + i]!]!);
}

describe("windows", () => {
  it("predict every token once, in order, from no more than a window", () => {
    fc.assert(
      fc.property(
        fc.nat(40),
        fc.integer({ min: 1, max: 12 }),
        fc.nat(),
        fc.boolean(),
        (count, window, cut, prefixed) => {
          const stride = 1 + (cut % window);
          const tokens = Array.from({ length: count }, (_, i) => i + 1);
          const windows = stridedWindows(tokens, prefixed ? 0 : undefined, { window, stride });
          expect(windows.flatMap(({ ids, scored }) => ids.slice(-scored))).toEqual(prefixed ? tokens : tokens.slice(1));
          for (const { ids, scored } of windows) {
            expect(ids.length).toBeLessThanOrEqual(window + 1);
            expect(scored).toBeLessThan(ids.length);
            expect(ids).toEqual(ids.map((_, i) => ids[0]! + i));
          }
          // Behind the first window, a token is predicted from all of the window but what the stride covers.
          for (const { ids, scored } of windows.slice(1)) expect(ids.length - scored).toBe(window + 1 - scored);
        },
      ),
      { seed: 1, numRuns: 200 },
    );
  });

  it("are disjoint when the stride is the window, the last one reaching back as in lm-evaluation-harness", () => {
    expect(stridedWindows([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0, { window: 4 })).toEqual([
      { ids: [0, 1, 2, 3, 4], scored: 4 },
      { ids: [4, 5, 6, 7, 8], scored: 4 },
      { ids: [6, 7, 8, 9, 10], scored: 2 },
    ]);
  });

  it("give every token a full window when the stride is 1", () => {
    expect(stridedWindows([1, 2, 3, 4, 5], 0, { window: 3, stride: 1 })).toEqual([
      { ids: [0, 1, 2, 3], scored: 3 },
      { ids: [1, 2, 3, 4], scored: 1 },
      { ids: [2, 3, 4, 5], scored: 1 },
    ]);
  });

  it.each([
    [{ window: 0 }, "window must be a whole number from 1, not 0"],
    [{ window: 4, stride: 1.5 }, "stride must be a whole number from 1, not 1.5"],
    [{ window: 4, stride: 5 }, "a stride of 5 would skip tokens between windows of 4"],
  ])("refuse %j", (options, message) => {
    expect(() => stridedWindows([1, 2], 0, options)).toThrow(message);
  });
});

describe("perplexity", () => {
  it.each([
    [8, 8],
    [8, 3],
    [3, 1],
  ])("of a uniform model is the size of its vocabulary (window %i, stride %i)", async (window, stride) => {
    const result = await perplexity(
      plainScorer(() => -Math.log(64)),
      "twenty-five märchen words",
      { window, stride },
    );
    expect(result.perplexity).toBeCloseTo(64, 4);
    expect(result).toMatchObject({ tokens: 25, bytes: 26, words: 3 });
    expect(result.bitsPerByte).toBeCloseTo((25 * 6) / 26, 5);
    expect(result.windows.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(25);
  });

  it.each([
    [32, 32],
    [12, 12],
    [12, 5],
    [7, 1],
  ])("of a decoder is what plain loops give (window %i, stride %i)", { timeout: 120_000 }, async (window, stride) => {
    const tokens = tokenizer.encode(text);
    const expected = stridedWindows(tokens, tokenizer.bosId, { window, stride }).flatMap(bruteForce);
    const { nats, tokens: count } = await perplexity(scorer, text, { window, stride });
    expect(count).toBe(tokens.length);
    expect(nats).toBeCloseTo(-expected.reduce((a, b) => a + b), 2);
  });

  it("of tokens is that of their text", async () => {
    expect(await perplexity(scorer, tokenizer.encode(text))).toEqual(await perplexity(scorer, text));
  });

  it("does not depend on how sequences are batched", { timeout: 120_000 }, async () => {
    await using single = await tinyScorer(tokenizer, 1);
    const sequences = stridedWindows(tokenizer.encode(text), 0, { window: 9, stride: 4 });
    const mixed = [...sequences, { ids: [5, 6, 7], scored: 1 }, { ids: [9], scored: 0 }, { ids: [3, 2], scored: 1 }];
    const [one, many] = [await single.score(mixed), await scorer.score(mixed)];
    mixed.forEach((sequence, i) => {
      expect(one[i]!.logProbs).toHaveLength(sequence.scored);
      expect(many[i]!.greedy).toBe(one[i]!.greedy);
      for (const [at, value] of one[i]!.logProbs.entries()) expect(many[i]!.logProbs[at]).toBeCloseTo(value, 4);
    });
  });

  it("refuses what the model cannot read", async () => {
    await expect(perplexity(scorer, text, { window: 33 })).rejects.toThrow(
      "a window of 33 tokens is too long: the model reads 32",
    );
    await expect(scorer.score([{ ids: Array(34).fill(1), scored: 1 }])).rejects.toThrow(
      "a sequence of 34 tokens is too long",
    );
    await expect(scorer.score([{ ids: [1, 2], scored: 2 }])).rejects.toThrow("of 2 tokens, 2 cannot be scored");
  });
});

describe("log-likelihoods", () => {
  it("are those of plain loops, whether a space ends the context or begins the continuation", async () => {
    const [behind, before] = await logLikelihoods(scorer, [
      { context: "The fox said", continuation: " come in" },
      { context: "The fox said ", continuation: "come in" },
    ]);
    const context = tokenizer.encode("The fox said");
    const ids = tokenizer.encode("The fox said come in");
    const expected = bruteForce({ ids, scored: ids.length - context.length }).reduce((a, b) => a + b);
    expect(behind!.logLikelihood).toBeCloseTo(expected, 3);
    expect(before).toEqual(behind);
    expect(behind!.greedy).toBe(false);
  });

  it("without a context are those behind the token that begins a text", async () => {
    const [found] = await logLikelihoods(scorer, [{ context: "", continuation: "The fox" }]);
    const ids = [tokenizer.bosId!, ...tokenizer.encode("The fox")];
    expect(found!.logLikelihood).toBeCloseTo(
      bruteForce({ ids, scored: ids.length - 1 }).reduce((a, b) => a + b),
      3,
    );
  });

  it("tell a greedy continuation, and a context that lost its beginning", async () => {
    const { text: next } = await scorer.generate("The fox", { maxTokens: 1, stop: [], temperature: 0, seed: 0 });
    const [greedy, long] = await logLikelihoods(scorer, [
      { context: "The fox", continuation: next },
      { context: text.repeat(3), continuation: " and" },
    ]);
    expect(greedy).toMatchObject({ greedy: true, truncated: false });
    const ids = tokenizer.encode(`${text.repeat(3)} and`).slice(-33);
    expect(long!.truncated).toBe(true);
    expect(long!.logLikelihood).toBeCloseTo(bruteForce({ ids, scored: 1 })[0]!, 3);
  });

  it("refuse a continuation that the model cannot read", async () => {
    await expect(logLikelihoods(scorer, [{ context: "a", continuation: text.repeat(3) }])).rejects.toThrow(
      /^the continuation "Once upon a time .*\.\.\. has \d+ tokens; the model reads 32 at most$/,
    );
  });
});

describe("comparing models", () => {
  it("finds no difference between a model and itself", async () => {
    const model = tinyTextModel(tokenizer);
    const result = await compareModels(model, model, tokenizer.encode(text), { window: 16, threads: 1 });
    expect(result.tokens).toBe(tokenizer.encode(text).length - 1);
    expect(result.maxKl).toBeLessThan(1e-5);
    expect(result.topAgreement).toMatchObject({ value: 1, stderr: 0, low: 1, high: 1 });
    expect(result.perplexity.other).toBe(result.perplexity.reference);
  });

  it("gives the divergence of plain loops", { timeout: 120_000 }, async () => {
    const reference = tinyTextModel(tokenizer);
    const other = tinyTextModel(tokenizer);
    const gain = other.weights["model.norm.weight"] as HostTensor;
    const changed = gain.clone();
    for (let i = 0; i < 4; i++) changed.set(i, 2 * gain.at(i));
    const changedModel = { ...other, weights: { ...other.weights, "model.norm.weight": changed } };
    const tokens = tokenizer.encode(text).slice(0, 20);
    const result = await compareModels(reference, changedModel, tokens, {
      window: 8,
      stride: 8,
      batchTokens: 16,
      threads: 1,
    });
    const kl: number[] = [];
    let agreements = 0;
    for (const { ids, scored } of stridedWindows(tokens, undefined, { window: 8 })) {
      const rows = [reference, changedModel].map(({ config, weights }) =>
        plainLogits(config, weights, ids.slice(0, -1)).slice(-scored).map(logProbabilities),
      );
      rows[0]!.forEach((p, i) => {
        const q = rows[1]![i]!;
        kl.push(p.reduce((sum, value, token) => sum + Math.exp(value) * (value - q[token]!), 0));
        agreements += Number(p.indexOf(Math.max(...p)) === q.indexOf(Math.max(...q)));
      });
    }
    expect(result.tokens).toBe(kl.length);
    expect(result.meanKl.value).toBeCloseTo(kl.reduce((a, b) => a + b) / kl.length, 4);
    expect(result.maxKl).toBeCloseTo(Math.max(...kl), 3);
    expect(result.medianKl).toBeCloseTo([...kl].sort((a, b) => a - b)[(kl.length - 1) / 2]!, 4);
    expect(result.topAgreement.value).toBeCloseTo(agreements / kl.length, 6);
  });

  it("refuses models and texts that do not compare", async () => {
    const model = tinyTextModel(tokenizer);
    const wider = { ...model, config: { ...model.config, vocab: 5000 } };
    await expect(compareModels(model, wider, [1, 2])).rejects.toThrow("models with 4096 and 5000 tokens");
    await expect(compareModels(model, model, [1])).rejects.toThrow("at least two tokens");
  });
});
