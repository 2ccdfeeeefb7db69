import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  addition,
  dare,
  type MergeRule,
  slerp,
  TensorPieces,
  type TensorVersion,
  ties,
} from "../../../src/methods/index.ts";
import { Workspace } from "../../../src/methods/weights/merge/kernels.ts";
import { workspaceBytes } from "../../../src/methods/weights/merge/pieces.ts";
import { Rng } from "../../../src/tensor/index.ts";

const entry = fc.integer({ min: -40, max: 40 }).map((n) => n / 8);
const values = (size: number) => fc.array(entry, { minLength: size, maxLength: size }).map((v) => Float32Array.from(v));
const weight = fc.integer({ min: 1, max: 12 }).map((n) => n / 4);

/** What training made of `before`. */
interface TensorChange {
  readonly before: Float32Array;
  readonly after: Float32Array;
  readonly weight: number;
}

/** A start and changes of one size, all from the same base. */
const tensors = fc.tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 4 })).chain(([size, models]) =>
  fc
    .record({
      start: values(size),
      before: values(size),
      trained: fc.array(fc.record({ after: values(size), weight }), { minLength: models, maxLength: models }),
    })
    .map(({ start, before, trained }) => ({ start, changes: trained.map((change) => ({ before, ...change })) })),
);

function expectClose(ours: readonly number[], expected: ArrayLike<number>, digits = 10): void {
  expect(ours).toHaveLength(expected.length);
  for (const [i, value] of ours.entries()) expect(value).toBeCloseTo(expected[i]!, digits);
}

const workspace = new Workspace(workspaceBytes(4));

async function merged(
  rule: MergeRule,
  start: Float32Array,
  changes: readonly TensorChange[],
  name = "w",
): Promise<number[]> {
  const weights = changes.map((change) => change.weight);
  rule.check(weights);
  const version = (values: Float32Array): TensorVersion => ({
    dtype: "f32",
    size: values.length,
    read: async (at, into) => into.set(values.subarray(at, at + into.length)),
  });
  const base = version(changes[0]!.before);
  const tensor = new TensorPieces(
    { start: version(start), base, models: changes.map(({ after }) => version(after)) },
    workspace,
  );
  const values = tensor.workspace.doubles(tensor.pieceLength);
  const merge = await rule.prepare(tensor, weights, name);
  const result: number[] = [];
  for await (const block of tensor.blocks())
    for (const piece of block) {
      merge(piece, values.fill(0));
      result.push(...values.subarray(0, piece.count));
    }
  return result;
}

const deltas = ({ before, after }: TensorChange): number[] => Array.from(after, (v, i) => v - before[i]!);

const runs = { numRuns: 100, seed: 7 };

describe("addition", () => {
  it("is start plus weighted differences", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, async ({ start, changes }) => {
        const expected = Array.from(start, (s, i) =>
          changes.reduce((sum, change) => sum + change.weight * deltas(change)[i]!, s),
        );
        expectClose(await merged(addition, start, changes), expected);
      }),
      runs,
    );
  });

  it("gives ParamΔ's P where the new base is the old one, and undoes itself", async () => {
    const [base, post] = [Float32Array.of(1, 1e-7, -3, 0.1), Float32Array.of(1.5, 2, 1e-3, 0.3)];
    const there = await merged(addition, base, [{ before: base, after: post, weight: 1 }]);
    expect(Float32Array.from(there)).toEqual(post);
    const back = await merged(addition, Float32Array.from(there), [{ before: base, after: post, weight: -1 }]);
    expectClose(back, base, 6);
  });

  it("keeps the sign of a zero that nothing changes", async () => {
    const start = Float32Array.of(-0, 0, -0);
    const same = Float32Array.of(1, 2, 3);
    expect(await merged(addition, start, [{ before: same, after: same, weight: 2 }])).toEqual([-0, 0, -0]);
    expect(await merged(dare(), start, [{ before: same, after: same, weight: 2 }])).toEqual([-0, 0, -0]);
  });
});

describe("TIES", () => {
  /** The paper's three steps, by sorting and counting. */
  function plain(start: Float32Array, changes: readonly TensorChange[], density: number, scale: number): number[] {
    const trimmed = changes.map((change) => {
      const all = deltas(change);
      const sorted = all.map(Math.abs).sort((a, b) => b - a);
      const least = sorted[Math.max(1, Math.round(density * all.length)) - 1]!;
      return all.map((delta) => (Math.abs(delta) >= least ? delta : 0));
    });
    return Array.from(start, (s, i) => {
      const weighted = trimmed.map((deltas, k) => [changes[k]!.weight, deltas[i]!] as const);
      const sign = Math.sign(weighted.reduce((sum, [w, delta]) => sum + w * delta, 0));
      const agreeing = weighted.filter(([, delta]) => delta !== 0 && Math.sign(delta) === sign);
      const total = agreeing.reduce((sum, [w]) => sum + w, 0);
      return total === 0 ? s : s + (scale * agreeing.reduce((sum, [w, delta]) => sum + w * delta, 0)) / total;
    });
  }

  it("is trim, elect and disjoint mean", async () => {
    const density = fc.constantFrom(0.01, 0.2, 0.5, 0.75, 1);
    await fc.assert(
      fc.asyncProperty(tensors, density, fc.constantFrom(-1, 0.5, 1), async ({ start, changes }, share, scale) => {
        const expected = plain(start, changes, share, scale);
        expectClose(await merged(ties({ density: share, scale }), start, changes), expected);
      }),
      runs,
    );
  });

  it("finds the edge of trimming among magnitudes of every size", async () => {
    // More than one piece.
    const size = 10_000;
    const after = Float32Array.from({ length: size }, (_, i) => (i % 2 ? -1 : 1) * 1.007 ** (i - 7000));
    const change = { before: new Float32Array(size), after, weight: 1 };
    const kept = await merged(ties({ density: 0.137 }), new Float32Array(size), [change]);
    expect(kept.map((value) => value !== 0)).toEqual(Array.from(after, (_, i) => i >= size - 1370));
  });

  it("is task arithmetic for one model and density 1", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, async ({ start, changes: [change] }) => {
        const one = [{ ...change!, weight: 1 }];
        expect(await merged(ties({ density: 1 }), start, one)).toEqual(await merged(addition, start, one));
      }),
      runs,
    );
  });

  it("refuses what it cannot mean", async () => {
    expect(() => ties({ density: 0 })).toThrow("a density is a share of the entries, above 0 and at most 1, not 0");
    expect(() => ties({ scale: Infinity })).toThrow("the scale of a TIES merge must be finite, not Infinity");
    expect(() => ties().check([1, -1])).toThrow("TIES averages with weights above 0, not -1");
  });
});

describe("DARE", () => {
  const size = 20_000;
  const start = new Float32Array(size).fill(1);
  const before = new Float32Array(size);
  const changes = [3, -2].map((delta, k) => ({
    before,
    after: new Float32Array(size).fill(delta),
    weight: k + 1,
  }));

  it("keeps entries or drops them, and on average adds what addition adds", async () => {
    const ours = await merged(dare({ density: 0.25, seed: 3 }), start, changes);
    // 3 and 2 * -2, each four times as large or not at all.
    expect(new Set(ours)).toEqual(new Set([1, 13, -15, -3]));
    const mean = ours.reduce((a, b) => a + b) / size;
    // Standard error of the mean: sqrt(0.25 * 0.75 * (12^2 + 16^2) / size) = 0.061.
    expect(Math.abs(mean - 0)).toBeLessThan(0.25);
  });

  it("gives each entry the sum of some of its changes", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, fc.integer({ min: 0, max: 99 }), async ({ start: from, changes: all }, seed) => {
        const ours = await merged(dare({ density: 0.5, seed }), from, all);
        for (const [i, value] of ours.entries()) {
          // Every way of keeping and dropping.
          let sums = [from[i]!];
          for (const change of all)
            sums = [...sums, ...sums.map((sum) => sum + (change.weight * deltas(change)[i]!) / 0.5)];
          expect(Math.min(...sums.map((sum) => Math.abs(sum - value)))).toBeLessThan(1e-10);
        }
      }),
      runs,
    );
  });

  it("drops the same for the same seed, others for another seed, tensor or model", async () => {
    const drawn = (seed: number, name: string) => merged(dare({ seed }), start, changes, name);
    expect(await drawn(1, "a")).toEqual(await drawn(1, "a"));
    expect(await drawn(1, "a")).not.toEqual(await drawn(2, "a"));
    expect(await drawn(1, "a")).not.toEqual(await drawn(1, "b"));
    expect(new Set(await drawn(1, "a")).size).toBe(4);
  });

  it("drops nothing at density 1", async () => {
    await fc.assert(
      fc.asyncProperty(tensors, async ({ start: from, changes: all }) => {
        expect(await merged(dare({ density: 1 }), from, all)).toEqual(await merged(addition, from, all));
      }),
      runs,
    );
  });
});

describe("SLERP", () => {
  const between = (start: Float32Array, after: Float32Array, weight: number): Promise<number[]> =>
    merged(slerp, start, [{ before: start, after, weight }]);

  it("has its ends at the two tensors", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 8 }).chain((n) => fc.tuple(values(n), values(n))),
        async ([a, b]) => {
          expect(await between(a, b, 0)).toEqual([...a]);
          expect(await between(a, b, 1)).toEqual([...b]);
        },
      ),
      runs,
    );
  });

  it("turns by equal angles and keeps the length of unit vectors", async () => {
    const [a, b] = [Float32Array.of(1, 0, 0), Float32Array.of(0, 1, 0)];
    for (const t of [0.25, 0.5, 0.9]) {
      const [x, y, z] = (await between(a, b, t)) as [number, number, number];
      expect(Math.atan2(y, x)).toBeCloseTo((t * Math.PI) / 2, 12);
      expect(Math.hypot(x, y, z)).toBeCloseTo(1, 12);
    }
  });

  it("halves the arc again and again", async () => {
    const rng = new Rng(4);
    const length = (v: readonly number[]): number => Math.hypot(...v);
    const drawn = (): number[] => {
      const v = Array.from({ length: 5 }, () => rng.normal());
      return v.map((x) => (3 * x) / length(v));
    };
    /** Between vectors of one length, the one of that length in the middle. */
    const middle = (a: readonly number[], b: readonly number[]): number[] => {
      const sum = a.map((x, i) => x + b[i]!);
      return sum.map((x) => (x * length(a)) / length(sum));
    };
    for (let run = 0; run < 20; run++) {
      const [a, b] = [Float32Array.from(drawn()), Float32Array.from(drawn())];
      const half = middle([...a], [...b]);
      const quarter = middle([...a], half);
      for (const [t, expected] of [
        [1 / 2, half],
        [1 / 4, quarter],
        [1 / 8, middle([...a], quarter)],
        [3 / 8, middle(quarter, half)],
        [3 / 4, middle(half, [...b])],
      ] as const)
        expectClose(await between(a, b, t), expected, 5);
    }
  });

  it("interpolates parallel tensors, opposite ones and zeros linearly", async () => {
    expect(await between(Float32Array.of(1, 2), Float32Array.of(2, 4), 0.25)).toEqual([1.25, 2.5]);
    expect(await between(Float32Array.of(1, 2), Float32Array.of(-1, -2), 0.5)).toEqual([0, 0]);
    expect(await between(Float32Array.of(0, 0), Float32Array.of(3, 4), 0.5)).toEqual([1.5, 2]);
  });

  it("refuses more than one model, and places off the arc", async () => {
    expect(() => slerp.check([0.5, 0.5])).toThrow("SLERP goes from one model to another, not to 2");
    expect(() => slerp.check([1.5])).toThrow("SLERP goes a share of the way, from 0 to 1, not 1.5");
  });
});
