import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type Candidates,
  candidatesOf,
  GenerateError,
  logProbability,
  minP,
  penalized,
  Sampler,
  type SamplingOptions,
  topK,
  topP,
  typical,
} from "../../src/generate/index.ts";
import { Rng } from "../../src/tensor/index.ts";

/** Logits with many ties, large and small gaps, and tokens that are ruled out. */
const anyLogits = fc
  .array(fc.oneof(fc.integer({ min: -8, max: 8 }), fc.double({ min: -30, max: 30, noNaN: true })), {
    minLength: 1,
    maxLength: 60,
  })
  .map((values) => Float32Array.from(values));
const share = fc.double({ min: 0.01, max: 0.99, noNaN: true });

interface Choice {
  readonly token: number;
  readonly score: number;
  readonly p: number;
}

/** Candidates with their probabilities, written out plainly. */
function choices({ tokens, scores }: Candidates): Choice[] {
  const weights = [...scores].map((s) => Math.exp(s - Math.max(...scores)));
  const total = weights.reduce((a, b) => a + b);
  return [...tokens].map((token, i) => ({ token, score: scores[i]!, p: weights[i]! / total }));
}

const bestFirst = (all: readonly Choice[]): Choice[] => all.toSorted((a, b) => b.score - a.score || a.token - b.token);

/** The shortest beginning of `sorted` that has the mass `p`. */
function untilMass(sorted: readonly Choice[], p: number): Choice[] {
  let mass = 0;
  const end = sorted.findIndex((c) => (mass += c.p) >= p);
  return sorted.slice(0, end < 0 ? undefined : end + 1);
}

const tokensOf = (of: Candidates | readonly Choice[]): number[] =>
  ("tokens" in of ? [...of.tokens] : of.map((c) => c.token)).toSorted((a, b) => a - b);

/** Whether a mass comes so near to `p` on the way that rounding decides. */
const onEdge = (sorted: readonly Choice[], p: number): boolean => {
  let mass = 0;
  return sorted.some((c) => Math.abs((mass += c.p) - p) < 1e-9);
};

describe("the filters keep what a full sort keeps", () => {
  const same = (name: string, check: (candidates: Candidates, all: Choice[], p: number) => void) =>
    it(name, () => {
      fc.assert(
        fc.property(anyLogits, share, (logits, p) => {
          const candidates = candidatesOf(logits);
          check(candidates, choices(candidates), p);
        }),
        { seed: 1, numRuns: 300 },
      );
    });

  same("top-k", (candidates, all, p) => {
    const k = Math.ceil(p * all.length);
    expect(tokensOf(topK(candidates, k))).toEqual(tokensOf(bestFirst(all).slice(0, k)));
    expect(topK(candidates, all.length + 1)).toBe(candidates);
  });

  same("top-p", (candidates, all, p) => {
    const sorted = bestFirst(all);
    fc.pre(!onEdge(sorted, p));
    expect(tokensOf(topP(candidates, p))).toEqual(tokensOf(untilMass(sorted, p)));
    expect(topP(candidates, 1)).toBe(candidates);
  });

  same("min-p", (candidates, all, p) => {
    const top = Math.max(...all.map((c) => c.p));
    fc.pre(!all.some((c) => Math.abs(c.p / (p * top) - 1) < 1e-6));
    expect(tokensOf(minP(candidates, p))).toEqual(tokensOf(all.filter((c) => c.p >= p * top)));
  });

  same("typical", (candidates, all, p) => {
    const entropy = all.reduce((sum, c) => sum - c.p * Math.log(c.p), 0);
    const away = (c: Choice): number => Math.abs(-Math.log(c.p) - entropy);
    const sorted = all.toSorted((a, b) => away(a) - away(b) || a.token - b.token);
    // Two tokens on both sides of the entropy may be equally far but for rounding.
    fc.pre(!sorted.some((c, i) => i > 0 && c.score !== sorted[i - 1]!.score && away(c) - away(sorted[i - 1]!) < 1e-9));
    fc.pre(!onEdge(sorted, p));
    expect(tokensOf(typical(candidates, p))).toEqual(tokensOf(untilMass(sorted, p)));
  });

  it("top-p on a vocabulary of 5,000", () => {
    const logits = new Rng(5).normalTensor([5000], { std: 2 }).data as Float32Array;
    const sorted = bestFirst(choices(candidatesOf(logits)));
    for (const p of [0.1, 0.5, 0.9, 0.999])
      expect(tokensOf(topP(candidatesOf(logits), p))).toEqual(tokensOf(untilMass(sorted, p)));
  });
});

/** How often a new sampler gives each token. */
function drawCounts(logits: readonly number[], options: SamplingOptions, draws: number): number[] {
  const counts = logits.map(() => 0);
  const sampler = new Sampler(logits.length, options);
  const scores = Float32Array.from(logits);
  for (let i = 0; i < draws; i++) counts[sampler.next(scores)]!++;
  return counts;
}

describe("the sampler", () => {
  const logits = [1, 0.5, -1, 2, 0, Number.NEGATIVE_INFINITY, 1.5, -0.5];

  it.each<[string, SamplingOptions, number[]]>([
    ["temperature 1", {}, [1, 0.5, -1, 2, 0, Number.NEGATIVE_INFINITY, 1.5, -0.5]],
    ["temperature 2", { temperature: 2 }, logits.map((x) => x / 2)],
    ["temperature 0.5", { temperature: 0.5, seed: 9 }, logits.map((x) => x * 2)],
    ["three best", { topK: 3 }, logits.map((x) => (x >= 1 ? x : Number.NEGATIVE_INFINITY))],
    ["allowed tokens", { allowed: [7, 0, 2, 5, 0] }, logits.map((x, i) => ([0, 2, 7].includes(i) ? x : -Infinity))],
    ["half as likely as the best", { minP: 0.5 }, logits.map((x) => (x >= 2 + Math.log(0.5) ? x : -Infinity))],
    [
      "a temperature, then top-k, then top-p",
      { temperature: 2, topK: 3, topP: 0.7 },
      [-9e9, -9e9, -9e9, 1, -9e9, -9e9, 0.75, -9e9],
    ],
  ])("draws in proportion: %s", (_, options, scores) => {
    const weights = scores.map((x) => Math.exp(x));
    const total = weights.reduce((a, b) => a + b);
    const draws = 20_000;
    const counts = drawCounts(logits, options, draws);
    let statistic = 0;
    let cells = 0;
    for (const [i, w] of weights.entries()) {
      const expected = (draws * w) / total;
      if (expected === 0) expect(counts[i]).toBe(0);
      else {
        statistic += (counts[i]! - expected) ** 2 / expected;
        cells++;
      }
    }
    // Once in a thousand times by chance, for 1 to 7 free cells.
    expect(statistic).toBeLessThan([0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46][cells - 1]!);
  });

  it("repeats with its seed and differs with another", () => {
    const scores = new Rng(2).normalTensor([100]).data as Float32Array;
    const text = (seed?: number): number[] => {
      const sampler = new Sampler(100, { topP: 0.95, ...(seed !== undefined && { seed }) });
      return Array.from({ length: 50 }, () => sampler.next(scores));
    };
    expect(text(4)).toEqual(text(4));
    expect(text()).toEqual(text(0));
    expect(text(4)).not.toEqual(text(5));
  });

  it("takes the first of the best tokens at temperature 0", () => {
    const sampler = new Sampler(5, { temperature: 0, topK: 1 });
    expect(sampler.next(Float32Array.of(1, 3, 2, 3, 0))).toBe(1);
    expect(new Sampler(5, { temperature: 0, allowed: [4, 2] }).next(Float32Array.of(1, 3, 2, 3, 0))).toBe(2);
  });

  it("penalizes as the formulas say, and leaves the logits alone", () => {
    const given = Float32Array.of(2, -2, 1, -1, 0.5);
    const seen = { tokens: new Set([0, 1, 3]), counts: new Map([[3, 2]]) };
    expect([...penalized(given, seen, { repetition: 2, frequency: 0.25 })]).toEqual([1, -4, 1, -2.5, 0.5]);
    const both = { repetition: 2, frequency: 0.25, presence: 0.5 };
    expect([...penalized(given, seen, both)]).toEqual([1, -4, 1, -3, 0.5]);
    expect([...given]).toEqual([2, -2, 1, -1, 0.5]);
  });

  it("counts the prompt for repetition and the answer for the other penalties", () => {
    const given = Float32Array.of(4, 3, 2.5, 1);
    const greedy = (options: SamplingOptions, prompt: number[]): number[] => {
      const sampler = new Sampler(4, { temperature: 0, ...options }, prompt);
      return Array.from({ length: 4 }, () => sampler.next(given));
    };
    expect(greedy({ repetitionPenalty: 2 }, [0])).toEqual([1, 2, 0, 0]);
    expect(greedy({ frequencyPenalty: 0.75 }, [0])).toEqual([0, 0, 1, 0]);
    expect(greedy({ presencePenalty: 1.25 }, [1])).toEqual([0, 1, 0, 0]);
    expect(greedy({ repetitionPenalty: 5, frequencyPenalty: 0.1 }, [])).toEqual([0, 1, 2, 3]);
  });

  it("gives exact log-probabilities", () => {
    const given = Float32Array.from([1, 2, 3, Number.NEGATIVE_INFINITY]);
    const total = Math.exp(1) + Math.exp(2) + Math.exp(3);
    expect(logProbability(given, 1)).toBeCloseTo(Math.log(Math.exp(2) / total), 12);
    expect(logProbability(given, 3)).toBe(Number.NEGATIVE_INFINITY);
    expect(logProbability(Float32Array.of(1000, 1000), 0)).toBeCloseTo(-Math.LN2, 12);
  });

  it("refuses logits from which nothing can be drawn", () => {
    const sampler = new Sampler(2, { allowed: [1] });
    expect(() => sampler.next(Float32Array.of(0, Number.NaN))).toThrow(
      new GenerateError("the model gave token 1 the score NaN; its weights are damaged or overflow"),
    );
    expect(() => sampler.next(Float32Array.of(0, Number.NEGATIVE_INFINITY))).toThrow(
      "no token can come next: the model rules out all that are allowed",
    );
    expect(() => sampler.next(Float32Array.of(1, 2, 3))).toThrow("the sampler was made for 2 logits, but got 3");
  });

  it.each<[SamplingOptions, string]>([
    [{ temperature: -1 }, "temperature must be a number from 0, not -1"],
    [{ temperature: Number.NaN }, "temperature must be a number from 0, not NaN"],
    [{ topK: 0 }, "topK must be a whole number from 1, not 0"],
    [{ topK: 2.5 }, "topK must be a whole number from 1, not 2.5"],
    [{ topP: 0 }, "topP must be above 0 and at most 1, not 0"],
    [{ topP: 1.1 }, "topP must be above 0 and at most 1, not 1.1"],
    [{ minP: -0.1 }, "minP must be from 0 to 1, not -0.1"],
    [{ typical: 2 }, "typical must be above 0 and at most 1, not 2"],
    [{ repetitionPenalty: 0 }, "repetitionPenalty must be a number above 0, not 0"],
    [{ frequencyPenalty: Infinity }, "frequencyPenalty must be a number, not Infinity"],
    [{ allowed: [] }, "allowed must name at least one token"],
    [{ allowed: [1, 7] }, "allowed must hold ids from 0 to 3, but it holds 7"],
    [{ seed: 0.5 }, "a seed is a whole number below 2^53, not 0.5"],
  ])("refuses %j", (options, message) => {
    expect(() => new Sampler(4, options)).toThrow(message);
  });
});
