import { describe, expect, it } from "vitest";
import { randomOrthogonal } from "../../../src/linalg/index.ts";
import {
  BitMask,
  bf16Round,
  bf16Ulp,
  changedMask,
  jaccard,
  largestEntries,
  lowMagnitudeMask,
  maskConsistency,
  overlap,
  principalMask,
  randomMask,
  safeMask,
  storedMask,
} from "../../../src/methods/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";

const mask = (...rows: number[][]): BitMask => new BitMask(rows.length, rows[0]!.length, Uint8Array.from(rows.flat()));

describe("bfloat16", () => {
  it("has steps of 2^-7 between powers of two", () => {
    expect([...bf16Ulp(Float32Array.of(1, 1.99, 2, -0.75, 300, 0))]).toEqual([
      2 ** -7,
      2 ** -7,
      2 ** -6,
      2 ** -8,
      2 ** 1,
      2 ** -133,
    ]);
  });

  it("rounds to nearest, ties to even, rather than cutting off", () => {
    const step = 2 ** -7;
    const values = HostTensor.from([1 + 0.75 * step, 1 + 0.5 * step, 1 + 1.5 * step, -1 - 0.75 * step]);
    expect(bf16Round(values).toArray()).toEqual([1 + step, 1, 1 + 2 * step, -1 - step]);
  });

  it("does not see changes below half a step, and sees those above: the third gate", () => {
    const rng = new Rng(1);
    const before = bf16Round(rng.normalTensor([40, 50], { std: 0.05 }));
    const ulp = bf16Ulp(before.data as Float32Array);
    const moved = (by: number): HostTensor => {
      const after = before.clone();
      for (let i = 0; i < after.size; i++) after.set(i, before.at(i) + Math.sign(before.at(i)) * by * ulp[i]!);
      return after;
    };
    expect(changedMask(before, moved(0.49)).count).toBe(0);
    expect(storedMask(before, moved(0.49)).share).toBe(1);
    expect(changedMask(before, moved(0.51)).share).toBe(1);
  });

  it("counts exactly the entries whose bits differ", () => {
    const rng = new Rng(2);
    const [a, b] = [rng.normalTensor([30, 30]), rng.normalTensor([30, 30])].map((t) => t.cast("bf16"));
    for (let i = 0; i < 450; i++) b!.set(i, a!.at(i));
    const bits = Array.from(a!.data as Uint16Array, (x, i) => Number(x !== b!.data[i]));
    expect([...changedMask(a!, b!).bits]).toEqual(bits);
    expect([...changedMask(a!.cast("f32"), b!.cast("f32")).bits]).toEqual(bits);
  });

  it("refuses an eta that is no relative difference", () => {
    const t = HostTensor.zeros("f32", [1, 1]);
    expect(() => changedMask(t, t, 1)).toThrow("eta must be a number from 0 to below 1, not 1");
  });
});

describe("masks", () => {
  it("have the largest entries, of equal ones the first", () => {
    expect([...largestEntries(2, 3, Float64Array.of(1, 5, 2, 5, 5, 0), 2).bits]).toEqual([0, 1, 0, 1, 0, 0]);
    expect(largestEntries(2, 3, Float64Array.of(1, 5, 2, 5, 5, 0), 0).count).toBe(0);
    expect(largestEntries(1, 4, new Float64Array(4), 3).count).toBe(3);
  });

  it("of small entries are those of least magnitude", () => {
    const w = HostTensor.from([
      [0.5, -0.1, 3],
      [-2, 0.2, 0.05],
    ]);
    expect([...lowMagnitudeMask(w, 0.5).bits]).toEqual([0, 1, 0, 0, 1, 1]);
  });

  it("of principal entries are the largest of the best approximation, found by brute force", async () => {
    const rng = new Rng(3);
    const [m, n] = [12, 9];
    const [u, v] = [await randomOrthogonal(rng, m), await randomOrthogonal(rng, n)];
    const s = [9, 7, 3, 2.5, 2, 1, 0.5, 0.2, 0.1];
    const part = (rank: number): number[] =>
      Array.from({ length: m * n }, (_, at) => {
        const [i, j] = [Math.floor(at / n), at % n];
        let sum = 0;
        for (let r = 0; r < rank; r++) sum += u.at(i * m + r) * s[r]! * v.at(j * n + r);
        return sum;
      });
    const w = HostTensor.from(Float64Array.from(part(9)), { shape: [m, n] });
    const largest = (rank: number, count: number): Set<number> =>
      new Set(
        part(rank)
          .map((x, i) => [Math.abs(x), i] as const)
          .sort((a, b) => b[0] - a[0])
          .slice(0, count)
          .map(([, i]) => i),
      );
    for (const rank of [1, 2, 5]) {
      const found = await principalMask(w, rank, 0.25);
      expect(new Set([...found.bits.keys()].filter((i) => found.bits[i]))).toEqual(largest(rank, 27));
    }
    // 81 of 154 in squares: one value holds half of the energy.
    expect((await principalMask(w, "energy50", 0.25)).bits).toEqual((await principalMask(w, 1, 0.25)).bits);
    const safe = await safeMask(w, 2, 0.5);
    const [principal, small] = [await principalMask(w, 2, 0.5), lowMagnitudeMask(w, 0.5)];
    for (const [i, bit] of safe.bits.entries())
      expect(bit).toBe(Number(small.bits[i] === 1 || principal.bits[i] === 0));
  });

  it("refuse a share or a rank that is none", async () => {
    const w = new Rng(1).normalTensor([4, 3]);
    expect(() => lowMagnitudeMask(w, 1)).toThrow("alpha must be above 0 and below 1, not 1");
    await expect(principalMask(w, 4, 0.3)).rejects.toThrow(
      "a rank of this matrix is a whole number from 1 to 3, not 4",
    );
    w.set(4, Number.NaN);
    expect(() => lowMagnitudeMask(w, 0.3)).toThrow(
      "lowMagnitudeMask takes finite numbers, but entry [1, 1] of the [4, 3] matrix is NaN",
    );
  });

  it("of random entries have as many as asked for", () => {
    expect(randomMask(5, 8, 13, new Rng(1)).count).toBe(13);
    expect(() => randomMask(2, 2, 5, new Rng(1))).toThrow("a mask of [2, 2] cannot have 5 entries");
  });
});

describe("agreement", () => {
  const [a, b, none] = [mask([1, 1, 0, 0]), mask([1, 0, 1, 0]), mask([0, 0, 0, 0])];

  it("is counted over the changed entries, not over the region", () => {
    expect(overlap(mask([1, 0, 0, 0]), a)).toBe(0.5);
    expect(overlap(mask([1, 1, 1, 0]), mask([1, 0, 0, 0]))).toBe(1);
    expect(overlap(a, none)).toBeNull();
  });

  it("of two masks is their intersection over their union", () => {
    expect(jaccard(a, b)).toBe(1 / 3);
    expect(jaccard(none, none)).toBeNull();
    expect(jaccard(a, none)).toBe(0);
  });

  it("comes with what chance would give, and the share of runs that changed each entry", () => {
    const {
      jaccard: found,
      expected,
      consensus,
      byRow,
      byColumn,
    } = maskConsistency([mask([1, 1], [0, 0]), mask([1, 0], [1, 0])]);
    expect(found[0]![1]).toBe(1 / 3);
    expect(expected[0]![1]).toBe(0.25 / 0.75);
    expect(found[1]![1]).toBe(1);
    expect(consensus.toArray()).toEqual([1, 0.5, 0.5, 0]);
    expect([byRow, byColumn]).toEqual([
      [0.75, 0.25],
      [0.75, 0.25],
    ]);
  });

  it("of independent masks is on average what is expected", () => {
    const rng = new Rng(9);
    const masks = [0, 1].map((i) => randomMask(200, 200, 12_000, rng.fork(i)));
    const { jaccard: found, expected } = maskConsistency(masks);
    expect(Math.abs(found[0]![1]! - expected[0]![1]!)).toBeLessThan(0.01);
  });

  it("is not asked of masks on different matrices", () => {
    expect(() => maskConsistency([])).toThrow("there is no mask to compare");
    expect(() => maskConsistency([a, mask([1], [1])])).toThrow(
      "masks of [1, 4] and [2, 1] do not lie on the same matrix",
    );
    expect(() => new BitMask(2, 2, new Uint8Array(3))).toThrow("a mask of [2, 2] takes 4 bits, not 3");
  });
});
