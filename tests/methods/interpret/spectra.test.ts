import { describe, expect, it } from "vitest";
import { randomOrthogonal } from "../../../src/linalg/index.ts";
import { withProducts } from "../../../src/linalg/products.ts";
import {
  analyzeUpdates,
  type MatrixPair,
  perturbationBounds,
  summaries,
  summaryOf,
} from "../../../src/methods/index.ts";
import { checkBounds } from "../../../src/methods/interpret/updates/bounds.ts";
import {
  exact,
  principalAngles,
  spectralDrift,
  spectrumOf,
  stableRank,
} from "../../../src/methods/interpret/updates/spectrum.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";

const doubles = (rows: number[][]): HostTensor => HostTensor.from(rows, { dtype: "f64" });

function added(a: HostTensor, b: HostTensor, scale: number): HostTensor {
  return HostTensor.from(
    Float64Array.from(a.toArray(), (x, i) => x + scale * b.at(i)),
    { shape: a.shape },
  );
}

/** `diag(values)` turned by random orthogonal matrices. */
async function withValues(values: readonly number[], rows: number, rng: Rng): Promise<HostTensor> {
  const n = values.length;
  const [u, v] = [await randomOrthogonal(rng.fork("u"), rows), await randomOrthogonal(rng.fork("v"), n)];
  return HostTensor.from(
    Float64Array.from({ length: rows * n }, (_, at) =>
      values.reduce((sum, s, r) => sum + s * u.at(Math.floor(at / n) * rows + r) * v.at((at % n) * n + r), 0),
    ),
    { shape: [rows, n] },
  );
}

describe("perturbation bounds", () => {
  it("hold for random matrices and changes of all sizes", async () => {
    const rng = new Rng(1);
    for (const [rows, cols] of [
      [9, 9],
      [14, 6],
      [5, 12],
    ] as const)
      for (const size of [1e-9, 1e-4, 0.1, 3]) {
        const before = rng.normalTensor([rows, cols], { dtype: "f64" });
        const after = added(before, rng.normalTensor([rows, cols], { dtype: "f64" }), size);
        for (const k of [1, 3, 5]) {
          const { weyl, mirsky, wedin, kyFan } = await perturbationBounds(before, after, k);
          for (const check of [weyl, mirsky, wedin, kyFan]) {
            expect(check.holds).toBe(true);
            if (check.bound !== null) expect(check.value).toBeLessThanOrEqual(check.bound + 1e-8);
          }
        }
      }
  });

  it("are met exactly by a change along the singular vectors", async () => {
    const before = doubles([
      [5, 0, 0],
      [0, 3, 0],
      [0, 0, 1],
    ]);
    const after = doubles([
      [5.5, 0, 0],
      [0, 3.25, 0],
      [0, 0, 1],
    ]);
    const { weyl, mirsky, wedin, kyFan } = await perturbationBounds(before, after, 2);
    expect([weyl.value, weyl.bound]).toEqual([expect.closeTo(0.5, 12), expect.closeTo(0.5, 12)]);
    expect([mirsky.value, mirsky.bound]).toEqual([
      expect.closeTo(Math.hypot(0.5, 0.25), 12),
      expect.closeTo(Math.hypot(0.5, 0.25), 12),
    ]);
    expect([kyFan.value, kyFan.bound]).toEqual([expect.closeTo(0.75, 12), expect.closeTo(0.75, 12)]);
    expect(wedin.value).toBeLessThan(1e-9);
    expect(wedin.bound).toBeCloseTo(0.5 / (3 - 1), 12);
  });

  it("say nothing of subspaces without a gap", async () => {
    const before = doubles([
      [2, 0],
      [0, 2],
    ]);
    const after = doubles([
      [2, 0],
      [0, 3],
    ]);
    const { wedin } = await perturbationBounds(before, after, 1);
    expect(wedin).toMatchObject({ bound: null, holds: true });
  });

  it("are seen to be broken by a change that is not the one that was made", async () => {
    await withProducts(async (p) => {
      const rng = new Rng(4);
      const [a, b] = [rng.normalTensor([6, 6]), rng.normalTensor([6, 6])];
      const [before, after] = [await spectrumOf(p, exact("a", a)), await spectrumOf(p, exact("b", b))];
      const tiny = await spectrumOf(p, exact("c", rng.normalTensor([6, 6], { std: 1e-6 })));
      const { weyl, mirsky, kyFan } = checkBounds(before, after, tiny, 3, 0);
      expect([weyl.holds, mirsky.holds, kyFan.holds]).toEqual([false, false, false]);
    });
  });

  it("are not asked of matrices of different shapes", async () => {
    await expect(
      perturbationBounds(HostTensor.zeros("f32", [2, 3]), HostTensor.zeros("f32", [3, 2]), 1),
    ).rejects.toThrow("a matrix [2, 3] cannot have become [3, 2]; compare matrices of one shape");
  });
});

describe("spectra", () => {
  it("tell the angles by which planes were turned, from tiny to right ones", async () => {
    await withProducts(async (p) => {
      const angles = [1e-8, 1e-3, 0.7, Math.PI / 2];
      const [a, b] = [new Float64Array(8 * 4), new Float64Array(8 * 4)];
      angles.forEach((angle, i) => {
        a[i * 4 + i] = 1;
        b[i * 4 + i] = Math.cos(angle);
        b[(i + 4) * 4 + i] = Math.sin(angle);
      });
      // Another basis of the same subspace changes nothing.
      const turn = await randomOrthogonal(new Rng(2), 4);
      const turned = await p.product(
        { rows: 8, cols: 4, data: b },
        { rows: 4, cols: 4, data: turn.cast("f64").data as Float64Array },
      );
      const found = await principalAngles(p, { rows: 8, cols: 4, data: a }, turned);
      for (const [i, angle] of angles.entries()) expect(Math.abs(found[i]! - angle)).toBeLessThan(1e-7);
    });
  });

  it("drift by the distance of their values", async () => {
    await withProducts(async (p) => {
      const rng = new Rng(6);
      const a = await spectrumOf(p, exact("a", await withValues([4, 3], 5, rng.fork("a"))));
      const b = await spectrumOf(p, exact("b", await withValues([4.3, 2.6], 5, rng.fork("b"))));
      expect(spectralDrift(a, b)).toBeCloseTo(0.5 / 5, 6);
    });
  });

  it("have a stable rank between 1 and the rank", () => {
    expect(stableRank(Float64Array.of(2, 0, 0))).toBe(1);
    expect(stableRank(Float64Array.of(2, 2, 2))).toBe(3);
    expect(stableRank(Float64Array.of(0, 0))).toBeNull();
  });
});

describe("an analysis", () => {
  const rng = new Rng(5);
  const name = (layer: number, part: string) => `model.layers.${layer}.${part}.weight`;
  const pair = (title: string, change: number): MatrixPair => {
    const before = rng.fork(title).normalTensor([10, 8]);
    return {
      name: title,
      before,
      after: added(before, rng.fork(`${title}!`).normalTensor([10, 8]), change).cast("f32"),
    };
  };

  it("of the same checkpoint twice finds nothing changed, and no place for it", async () => {
    const { matrices } = await analyzeUpdates([pair(name(0, "mlp.up_proj"), 0)]);
    expect(matrices[0]).toMatchObject({
      type: "up_proj",
      layer: 0,
      changed: 0,
      storedChanged: 0,
      nss: 0,
      size: 0,
      stableRank: null,
      angles: { mean: 0, max: 0 },
      overlaps: { principal: { share: null, chance: 0.3 }, small: { share: null, chance: 0.3 } },
    });
    const all = summaryOf("all", matrices);
    expect(all).toMatchObject({ sparsity: 1, storedSparsity: 1, driftPerSize: null, boundsHold: true });
    expect(all.overlaps.small.share).toBeNull();
  });

  it("measures each matrix, and puts types together", async () => {
    const seen: string[] = [];
    const pairs = [
      pair(name(0, "mlp.up_proj"), 0.01),
      pair(name(0, "self_attn.q_proj"), 1e-4),
      pair(name(1, "mlp.up_proj"), 0.02),
    ];
    const report = await analyzeUpdates(pairs, { alpha: 0.25, rank: 2, k: 3 }, (m) => seen.push(m.name));
    expect(seen).toEqual(pairs.map((p) => p.name));
    const [first] = report.matrices;
    const [a, b] = [pairs[0]!.before.toArray(), pairs[0]!.after.toArray()];
    const distance = Math.sqrt(a.reduce((sum, x, i) => sum + (b[i]! - x) ** 2, 0));
    expect(first!.size).toBeCloseTo(distance / Math.hypot(...a), 8);
    expect(first!.angles.curve).toHaveLength(3);
    expect(first!.rank).toBe(2);
    expect(first!.byRow).toHaveLength(10);
    expect(first!.byRow.reduce((x, y) => x + y, 0) / 10).toBeCloseTo(first!.changed / 80, 10);
    const types = summaries(report.matrices);
    expect(types.map(({ name: type, matrices }) => [type, matrices])).toEqual([
      ["up_proj", 2],
      ["q_proj", 1],
    ]);
    expect(types[0]!.sparsity).toBe(1 - (first!.changed + report.matrices[2]!.changed) / 160);
  });

  it.each([
    [{ alpha: 0 }, "alpha must be above 0 and below 1, not 0"],
    [{ alpha: Number.NaN }, "alpha must be above 0 and below 1, not NaN"],
    [{ rank: 9 }, '"m": a rank of this matrix is a whole number from 1 to 8, not 9'],
    [{ k: 0 }, '"m": a rank of this matrix is a whole number from 1 to 8, not 0'],
    [{ eta: 2 }, "eta must be a number from 0 to below 1, not 2"],
  ])("refuses options out of range (%#)", async (options, message) => {
    await expect(analyzeUpdates([pair("m", 0.1)], options)).rejects.toThrow(message);
  });

  it("names the tensor that is damaged, of another shape, or not of numbers", async () => {
    const { before, after } = pair("m", 0.1);
    const broken = after.clone();
    broken.set(19, Number.NaN);
    await expect(analyzeUpdates([{ name: "m", before, after: broken }])).rejects.toThrow(
      '"m" has NaN at [2, 3] in the checkpoint after; it is damaged',
    );
    await expect(analyzeUpdates([{ name: "m", before: broken, after: broken }])).rejects.toThrow(
      '"m" has NaN at [2, 3] in the checkpoint before; it is damaged',
    );
    await expect(analyzeUpdates([{ name: "m", before, after: HostTensor.zeros("f32", [8, 10]) }])).rejects.toThrow(
      '"m" is [10, 8] before and [8, 10] after',
    );
    const packed = HostTensor.zeros("i8", [10, 8]);
    await expect(analyzeUpdates([{ name: "m", before: packed, after: packed }])).rejects.toThrow(
      '"m" is i8; what training changed can be told of floating-point numbers only',
    );
    const vector = HostTensor.zeros("f32", [3]);
    await expect(analyzeUpdates([{ name: "m", before: vector, after: vector }])).rejects.toThrow(
      "only matrices have a spectrum",
    );
  });
});
