import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { bootstrap, pairedDifference, passAtK, quantile } from "../../src/evaluate/index.ts";
import { Rng } from "../../src/tensor/index.ts";

const terms = (values: readonly number[]) => values.map((total) => ({ total, weight: 1 }));

describe("bootstrap", () => {
  it("of a mean has the usual standard error and interval", () => {
    const rng = new Rng(1);
    const values = Array.from({ length: 400 }, () => rng.normal(3, 2));
    const { value, stderr, low, high } = bootstrap(terms(values), { resamples: 4000 });
    const mean = values.reduce((a, b) => a + b) / 400;
    const usual = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / 400 / 400);
    expect(value).toBeCloseTo(mean, 10);
    expect(Math.abs(stderr / usual - 1)).toBeLessThan(0.05);
    expect(Math.abs((high - low) / (2 * 1.96 * usual) - 1)).toBeLessThan(0.1);
  });

  it("weights documents by their size, and maps the ratio", () => {
    const documents = [
      { total: 6, weight: 3 },
      { total: 1, weight: 1 },
    ];
    expect(bootstrap(documents, { of: Math.exp }).value).toBe(Math.exp(7 / 4));
    const { low, high } = bootstrap(documents, { of: Math.exp, resamples: 200 });
    expect([low, high]).toEqual([Math.exp(1), Math.exp(2)]);
  });

  it("gives the same for the same seed", () => {
    const values = terms([1, 2, 3, 5, 8]);
    expect(bootstrap(values, { seed: 4 })).toEqual(bootstrap(values, { seed: 4 }));
    expect(bootstrap(values, { seed: 5 }).stderr).not.toBe(bootstrap(values, { seed: 4 }).stderr);
  });

  it("of pairs sees a small difference that single intervals hide", () => {
    const rng = new Rng(2);
    const hard = Array.from({ length: 200 }, () => rng.normal(0, 10));
    const [a, b] = [hard.map((x) => x + 0.5 + rng.normal(0, 0.5)), hard.map((x) => x + rng.normal(0, 0.5))];
    const difference = pairedDifference(terms(a), terms(b));
    expect(difference.low).toBeGreaterThan(0);
    expect(bootstrap(terms(a)).low).toBeLessThan(bootstrap(terms(b)).high);
    expect(pairedDifference(terms(a), terms(a))).toMatchObject({ value: 0, stderr: 0, low: 0, high: 0 });
  });

  it.each([
    [() => bootstrap([]), "there is no document to estimate from"],
    [() => bootstrap(terms([1]), { resamples: 1 }), "resamples must be a whole number from 2, not 1"],
    [() => bootstrap(terms([1]), { confidence: 1 }), "confidence must lie between 0 and 1, not 1"],
    [() => pairedDifference(terms([1]), terms([1, 2])), "1 and 2 documents are no pairs"],
  ])("refuses what makes no sense", (run, message) => {
    expect(run).toThrow(message);
  });

  it("interpolates quantiles", () => {
    expect([0, 0.25, 0.5, 1].map((p) => quantile([1, 2, 4], p))).toEqual([1, 1.5, 2, 4]);
    expect(quantile([7], 0.975)).toBe(7);
  });
});

describe("pass@k", () => {
  it("is the share of draws in which a program passes", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.nat(), fc.nat(), (n, c, drawn) => {
        const [correct, k] = [c % (n + 1), 1 + (drawn % n)];
        let [draws, passing] = [0, 0];
        for (let set = 0; set < 2 ** n; set++) {
          const members = Array.from({ length: n }, (_, i) => i).filter((i) => set & (1 << i));
          if (members.length !== k) continue;
          draws++;
          if (members.some((i) => i < correct)) passing++;
        }
        expect(passAtK(n, correct, k)).toBeCloseTo(passing / draws, 12);
      }),
      { seed: 1, numRuns: 60 },
    );
  });

  it("does not overflow, and refuses more draws than samples", () => {
    expect(passAtK(10_000, 1, 100)).toBeCloseTo(0.01, 10);
    expect(() => passAtK(5, 1, 6)).toThrow("pass@6 cannot be told from 5 samples of which 1 pass");
  });
});
