import { describe, expect, it } from "vitest";
import { type ParetoBits, paretoqRounding } from "../../../../src/methods/index.ts";
import { FakeQuantized, learnedStep, rowScaleRounding, type WeightRounding } from "../../../../src/nn/index.ts";
import { compile } from "../../../../src/runtime/index.ts";
import { grad, HostTensor, mul, sum } from "../../../../src/tensor/index.ts";
import { evaluate, normal } from "../../../nn/weights/support.ts";
import { expectClose } from "../../../support/numbers.ts";

/** The rounded matrix, and the gradients of `sum(G * Q)` by matrix and scale. */
async function probe(rounding: WeightRounding, matrix: number[][], scale: number[], G: number[][]) {
  await using program = await compile(
    (w, s, g) => {
      const q = rounding.apply(w, { scale: s });
      return [q, ...grad(sum(mul(q, g)), [w, s])] as const;
    },
    [HostTensor.from(matrix), HostTensor.from(scale), HostTensor.from(G)],
    { threads: 1 },
  );
  const [q, byMatrix, byScale] = await program(HostTensor.from(matrix), HostTensor.from(scale), HostTensor.from(G));
  return { q: q!.toArray(), byMatrix: byMatrix!.toArray(), byScale: byScale!.toArray() };
}

describe("ParetoQ's quantizers", () => {
  // Scale 2; z = 0.1, -0.6, 0.995, -3.
  const matrix = [[0.2, -1.2, 1.99, -6]];
  const G = [[1, 10, 100, 1000]];

  it("1 bit: the sign, with the scale's gradient along it", async () => {
    const { q, byMatrix, byScale } = await probe(paretoqRounding(1), [[0, -1.2, 1.99, -6]], [2], G);
    expect(q).toEqual([2, -2, 2, -2]);
    expect(byMatrix).toEqual([1, 10, 100, 0]);
    expectClose(byScale, [(1 - 10 + 100 - 1000) / Math.sqrt(4)], 1e-6);
  });

  it("2 bits: quarters of the range, none of them zero", async () => {
    const { q, byMatrix, byScale } = await probe(paretoqRounding(2), matrix, [2], G);
    expectClose(q, [0.5, -1.5, 1.5, -1.5], 1e-6);
    expect(byMatrix).toEqual([1, 10, 0, 0]);
    const d = [0.25 - 0.1, -0.75 + 0.6, 0.75, -0.75];
    expectClose(byScale, [(d[0]! + 10 * d[1]! + 100 * d[2]! + 1000 * d[3]!) / Math.sqrt(4)], 1e-5);
  });

  it("ternary: thirds of the range, with both gradients beyond it", async () => {
    const { q, byMatrix, byScale } = await probe(paretoqRounding(1.58), matrix, [2], G);
    expectClose(q, [0, -4 / 3, 4 / 3, -4 / 3], 1e-6);
    expect(byMatrix).toEqual([1, 10, 0, 0]);
    const inside = -0.1 + 10 * (-2 / 3 + 0.6);
    expectClose(byScale, [(inside + 100 - 1000) / 2], 1e-5);
    const exact = await probe(paretoqRounding(1.58, "exact"), matrix, [2], G);
    expectClose(exact.byScale, [(inside + (100 - 1000) * (2 / 3)) / 2], 1e-5);
    expect(exact.q).toEqual(q);
  });

  it.each([
    [3, -4, 3],
    [4, -8, 7],
  ] as const)("%d bits: learned steps, from %d to %d", async (bits, low, high) => {
    const values = [[0.3, -1.3, 7.4, -9]];
    const { q, byMatrix, byScale } = await probe(paretoqRounding(bits), values, [0.5], G);
    const clipped = (k: number): number => Math.max(low, Math.min(high, k));
    expectClose(q, [0.5, 0.5 * clipped(-3), 0.5 * high, 0.5 * low], 1e-6);
    expect(byMatrix).toEqual([1, 10, 0, 0]);
    const d = [1 - 0.6, -3 + 2.6, high, low];
    expectClose(byScale, [(d[0]! + 10 * d[1]! + 100 * d[2]! + 1000 * d[3]!) / Math.sqrt(4 * high)], 1e-5);
  });

  it.each([
    [1, (2 + 1 + 4 + 1) / 4],
    [1.58, 4],
    [2, 4],
    [3, 4 / 3],
    [4, 4 / 7],
  ] as const)("%d bits start from the row's magnitudes", (bits, scale) => {
    const weight = FakeQuantized.of(
      HostTensor.from([
        [2, -1, -4, 1],
        [0, 0, 0, 0],
      ]),
      { weight: paretoqRounding(bits) },
    );
    expectClose((weight.learned.scale as HostTensor).toArray(), [scale, 1e-5], 1e-6);
  });

  it.each([
    [1, "binary", 2],
    [1.58, "ternary", 3],
    [2, "mid2", 4],
    [3, "int3", 8],
    [4, "int4", 16],
  ] as const)("%d bits pack into %s blocks that compute the same", async (bits, format, levels) => {
    const weight = FakeQuantized.of(normal(3, 6, 40), { weight: paretoqRounding(bits) });
    const packed = await weight.packed({ device: "cpu" });
    expect([packed.kind, packed.attributes.format]).toEqual(["blocks", format]);
    const x = normal(4, 3, 40);
    const [trained, stored] = [await evaluate(weight, x), await evaluate(packed, x)];
    expectClose(stored.dense.toArray(), trained.dense.toArray(), 1e-6);
    expectClose(stored.product.toArray(), trained.product.toArray(), 1e-4);
    for (let r = 0; r < 6; r++)
      expect(new Set(stored.dense.toArray().slice(40 * r, 40 * r + 40)).size).toBeLessThanOrEqual(levels);
  });

  it("a row of zeros stays next to zero, and a scale below the floor counts as the floor", async () => {
    for (const bits of [1, 1.58, 2, 3, 4] as ParetoBits[]) {
      const { q } = await probe(
        paretoqRounding(bits),
        [
          [0, 0],
          [3, -3],
        ],
        [1e-5, -4],
        [
          [1, 1],
          [1, 1],
        ],
      );
      for (const value of q) expect(Math.abs(value)).toBeLessThan(1e-4);
    }
  });

  it("the factor of the scale's gradient counts the whole matrix", async () => {
    const rounding = rowScaleRounding(learnedStep(2));
    const { byScale } = await probe(
      rounding,
      [
        [9, 9],
        [0.2, 0.2],
        [0, 0],
      ],
      [1, 1, 1],
      [
        [1, 1],
        [1, 1],
        [1, 1],
      ],
    );
    expectClose(byScale, [2 / Math.sqrt(6), -0.4 / Math.sqrt(6), 0], 1e-6);
  });

  it("refuses other bits", () => {
    expect(() => paretoqRounding(5 as 4)).toThrow("ParetoQ supports 1, 1.58, 2, 3, 4 bits, not 5");
  });
});
