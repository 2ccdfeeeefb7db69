import { describe, expect, it } from "vitest";
import { type LevelBits, levelsOf, lsbq } from "../../../../src/methods/index.ts";
import { HostTensor } from "../../../../src/tensor/index.ts";
import { normal } from "../../../nn/weights/support.ts";
import { run } from "../../../support/run.ts";

/** Least squared error of the entries to any levels, every partition of magnitudes into kept and other ones tried. */
function bruteForce(values: readonly number[], bits: 0 | 1 | 2): number {
  const sizes = values.map(Math.abs);
  const mean = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0) / Math.max(1, list.length);
  const around = (list: readonly number[], center: number): number => list.reduce((a, x) => a + (x - center) ** 2, 0);
  if (bits === 1) return around(sizes, mean(sizes));
  let best = Infinity;
  for (let mask = 0; mask < 2 ** sizes.length; mask++) {
    const inside = sizes.filter((_, i) => mask & (1 << i));
    const outside = sizes.filter((_, i) => !(mask & (1 << i)));
    const error = around(inside, mean(inside)) + around(outside, bits === 0 ? 0 : mean(outside));
    if (error < best) best = error;
  }
  return best;
}

const errorOf = (values: readonly number[], quantized: readonly number[]): number =>
  values.reduce((a, x, i) => a + (x - quantized[i]!) ** 2, 0);

async function quantize(matrix: HostTensor, bits: LevelBits, optimal: boolean, axis: 0 | null) {
  const [levels, quantized] = await run((u) => {
    const result = lsbq(u, bits, { optimal, axis });
    return [result.levels, result.quantized];
  }, matrix);
  return { levels: levels!, quantized: quantized! };
}

describe("least-squares binary quantization", () => {
  it.each([0, 1, 2] as const)("is optimal in squared error at %d bits", async (bits) => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const matrix = normal(seed, 2, 9);
      const { levels, quantized } = await quantize(matrix, bits, true, 0);
      expect(levels.shape).toEqual([2, [3, 2, 4][bits]]);
      for (const r of [0, 1]) {
        const [row, result] = [matrix, quantized].map((t) => t.toArray().slice(9 * r, 9 * r + 9)) as [
          number[],
          number[],
        ];
        const best = bruteForce(row, bits);
        expect(errorOf(row, result)).toBeCloseTo(best, 5);
      }
      const whole = await quantize(matrix, bits, true, null);
      expect(whole.levels.shape).toEqual([levels.shape[1]]);
    }
  });

  it("takes greedily the mean of what is left, bit after bit", async () => {
    const { levels, quantized } = await quantize(HostTensor.from([[1, -2, 6, -7]]), 2, false, null);
    // v1 = 4, the rest -3, 2, 2, -3, so v2 = 2.5.
    expect(levels.toArray()).toEqual([-6.5, -1.5, 1.5, 6.5]);
    expect(quantized.toArray()).toEqual([1.5, -1.5, 6.5, -6.5]);
    const three = await quantize(HostTensor.from([[1, -2, 6, -7]]), 3, false, null);
    expect(three.levels.toArray()).toEqual([-7, -6, -2, -1, 1, 2, 6, 7]);
    expect(three.quantized.toArray()).toEqual([1, -2, 6, -7]);
  });

  it("keeps levels in order where the second value is the larger one", async () => {
    const { levels } = await quantize(HostTensor.from([[0, 0, 0, 1]]), 2, false, null);
    expect(levels.toArray()).toEqual([-0.625, -0.125, 0.125, 0.625]);
  });

  it("heuristic ternary levels are 1.1 times the mean magnitude", async () => {
    const { levels } = await quantize(HostTensor.from([[1, -2, 3, -4]]), 0, false, null);
    expect(levels.toArray()).toEqual([-2.75, 0, 2.75]);
  });

  it("spaces uniform levels evenly, up to the smaller of bits times the mean and the largest magnitude", async () => {
    const [near, far] = await run(
      (a, b) => [levelsOf(a, 2, "uniform"), levelsOf(b, 2, "uniform")],
      HostTensor.from([[1, -1, 2, 0]]),
      HostTensor.from([[1, -1, 10, 0]]),
    );
    expect(near!.toArray()).toEqual([-2, -2 / 3, 2 / 3, 2].map(Math.fround));
    expect(far!.toArray()).toEqual([-6, -2, 2, 6]);
  });

  it.each([
    [0, "lsbq"],
    [0, "lsbq-optimal"],
    [1, "lsbq"],
    [2, "lsbq-optimal"],
    [2, "lsbq"],
    [3, "uniform"],
  ] as const)("makes zeros of a row of zeros (%d bits, %s)", async (bits, rule) => {
    const [levels] = await run((u) => levelsOf(u, bits, rule), HostTensor.zeros("f32", [2, 5]));
    expect(levels!.toArray().map((x) => x + 0)).toEqual(Array(levels!.size).fill(0));
  });

  it("equal magnitudes give equal levels, which is allowed", async () => {
    const { levels, quantized } = await quantize(HostTensor.from([[2, -2, 2]]), 2, true, null);
    expect(levels.toArray()).toEqual([-2, -2, 2, 2]);
    expect(quantized.toArray()).toEqual([2, -2, 2]);
  });

  it("refuses bits and rules that do not exist", () => {
    const u = HostTensor.zeros("f32", [1, 4]);
    const of = (bits: number, rule?: string) => () => run((t) => levelsOf(t, bits as 1, rule as never), u);
    return Promise.all([
      expect(of(5)).rejects.toThrow("bits must be 0 (ternary) or 1-4, not 5"),
      expect(of(1.58)).rejects.toThrow("bits must be 0 (ternary) or 1-4, not 1.58"),
      expect(of(3, "lsbq-optimal")).rejects.toThrow("optimal LSBQ exists for ternary, 1 and 2 bits only, not for 3"),
      expect(of(2, "best")).rejects.toThrow('levels are "lsbq", "lsbq-optimal" or "uniform", not "best"'),
    ]);
  });
});
