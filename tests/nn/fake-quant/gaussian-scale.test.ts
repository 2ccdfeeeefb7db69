import { describe, expect, it } from "vitest";
import { bestGaussianScale, evenLevels, gaussianError, gaussianScale, levelsOf } from "../../../src/nn/index.ts";
import { Rng } from "../../../src/tensor/index.ts";

/** Mean squared error on samples of rounding to the nearest of `scale * levels`, by search. */
function sampled(samples: readonly number[], levels: readonly number[], scale: number): number {
  const points = levels.map((level) => level * scale);
  const off = (x: number): number => Math.min(...points.map((point) => (x - point) ** 2));
  return samples.reduce((total, x) => total + off(x), 0) / samples.length;
}

describe("gaussianScale", () => {
  const rng = new Rng(3);
  const samples = Array.from({ length: 20_000 }, () => rng.normal());

  it.each([1, 1.585, 2, 3, 4])("has at %f bits an error within 0.01 of the best on normal samples", (bits) => {
    const levels = evenLevels(levelsOf(bits));
    const found = sampled(samples, levels, gaussianScale(bits));
    const scales = Array.from({ length: 81 }, (_, i) => gaussianScale(bits) * (0.6 + 0.01 * i));
    const best = Math.min(...scales.map((scale) => sampled(samples, levels, scale)));
    expect(found).toBeLessThan(1.01 * best);
    expect(gaussianError(levels, gaussianScale(bits))).toBeCloseTo(found, 2);
  });

  it("is what the search finds, for all bits of the table", () => {
    expect(gaussianScale(1)).toBeCloseTo(Math.sqrt(2 / Math.PI), 7);
    for (const bits of [1, 1.585, 2, 3, 4, 5, 6]) {
      const levels = evenLevels(levelsOf(bits));
      expect(bestGaussianScale(levels)).toBeCloseTo(gaussianScale(bits), 2);
    }
  });

  it("is refused for other bits, and grids that are none", () => {
    expect(() => gaussianScale(2.5)).toThrow(
      "there is no Gaussian scale for 2.5 bits; there is one for 1, 1.585, 2, 3, 4, 5, 6, 7, 8, and bestGaussianScale finds that of any other grid from its levels",
    );
    expect(() => bestGaussianScale([1])).toThrow("a grid is two or more finite levels that rise, not [1]");
    expect(() => bestGaussianScale([1, 0])).toThrow("a grid is two or more finite levels that rise, not [1, 0]");
  });

  it("is found for grids that are not even", () => {
    const magnitudes = [0.5, 1, 1.5, 2, 3, 4, 6].map((v) => v / 6);
    const levels = [...magnitudes.map((v) => -v).reverse(), 0, ...magnitudes];
    const scale = bestGaussianScale(levels);
    for (const other of [0.9, 1.1]) {
      expect(gaussianError(levels, scale)).toBeLessThan(gaussianError(levels, other * scale));
      expect(sampled(samples, levels, scale)).toBeLessThan(sampled(samples, levels, other * scale));
    }
  });
});
