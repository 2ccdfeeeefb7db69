import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  DTypeError,
  GraphError,
  gather,
  gatherNd,
  grad,
  HostTensor,
  input,
  knownInts,
  oneHot,
  op,
  type ScatterReduction,
  ShapeError,
  scatter,
  scatterAdd,
  scatterNd,
  sum,
  takeAlongAxis,
} from "../../src/tensor/index.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { expectClose, hostOf, wave } from "../support/numbers.ts";
import { run, runOn } from "../support/run.ts";

const size = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Index vector of element `i` of a tensor with this shape. */
function unravel(i: number, shape: readonly number[]): number[] {
  const at: number[] = [];
  for (let axis = shape.length - 1, rest = i; axis >= 0; axis--) {
    at.unshift(rest % shape[axis]!);
    rest = Math.floor(rest / shape[axis]!);
  }
  return at;
}

const ravel = (at: readonly number[], shape: readonly number[]): number =>
  at.reduce((sofar, k, axis) => sofar * shape[axis]! + k, 0);

const wrap = (i: number, length: number): number => (i < 0 ? i + length : i);

const shapes = (least: number, most: number): fc.Arbitrary<number[]> =>
  fc.array(fc.integer({ min: 1, max: 4 }), { minLength: least, maxLength: most });

/** A tensor of indices into an axis of this length, negative ones among them. */
const indicesInto = (length: number, shape: readonly number[]): fc.Arbitrary<HostTensor> =>
  fc
    .tuple(
      fc.array(fc.integer({ min: -length, max: length - 1 }), { minLength: size(shape), maxLength: size(shape) }),
      fc.constantFrom("i64" as const, "i32" as const),
    )
    .map(([values, dtype]) => hostOf(shape, (i) => values[i]!, dtype));

const combine: Record<ScatterReduction, (a: number, b: number) => number> = {
  none: (_a, b) => b,
  add: (a, b) => a + b,
  mul: (a, b) => a * b,
  max: Math.max,
  min: Math.min,
};

const settings = { numRuns: 25, seed: 11 };

describe("gather", () => {
  const cases = fc
    .tuple(shapes(1, 3), shapes(0, 2))
    .chain(([shape, picks]) =>
      fc
        .nat(shape.length - 1)
        .chain((axis) =>
          fc.record({ shape: fc.constant(shape), axis: fc.constant(axis), indices: indicesInto(shape[axis]!, picks) }),
        ),
    );

  test("agrees with a plain loop, and its gradient with finite differences", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ shape, axis, indices }) => {
        const x = hostOf(shape, wave);
        const [y] = await run((x, i) => gather(x, i, axis), x, indices);
        const expected = [...shape.slice(0, axis), ...indices.shape, ...shape.slice(axis + 1)];
        expect(y!.shape).toEqual(expected);
        const got = y!.toArray();
        got.forEach((value, i) => {
          const at = unravel(i, expected);
          const which = ravel(at.slice(axis, axis + indices.shape.length), indices.shape);
          const from = [
            ...at.slice(0, axis),
            wrap(indices.at(which), shape[axis]!),
            ...at.slice(axis + indices.shape.length),
          ];
          expect(value).toBe(x.at(ravel(from, shape)));
        });
        await checkGradient((x) => gather(x, indices, axis), [x]);
      }),
      settings,
    );
  });

  test("adds up the gradients of a row that is taken many times, with several threads", async () => {
    const ids = hostOf([512], () => 3, "i64");
    const dy = hostOf([512, 64], (i) => (i % 7) - 3, "f32");
    for (let repeat = 0; repeat < 5; repeat++) {
      const [g] = await runOn(
        { threads: 4 },
        (table, ids, dy) => grad(sum(op("Mul", [gather(table, ids), dy])), table),
        hostOf([8, 64], wave, "f32"),
        ids,
        dy,
      );
      const column = Array.from({ length: 64 }, (_, d) => {
        let total = 0;
        for (let n = 0; n < 512; n++) total += dy.at(n * 64 + d);
        return total;
      });
      expect(g!.toArray().slice(3 * 64, 4 * 64)).toEqual(column);
    }
  });

  test("works with named dimensions, gradient included", async () => {
    const table = input("table", { dtype: "f32", shape: ["vocab", 4] });
    const ids = input("ids", { dtype: "i64", shape: ["batch", "seq"] });
    const y = gather(table, ids);
    expect(y.shape).toEqual(["batch", "seq", 4]);
    expect(grad(sum(y), table).shape).toEqual(["vocab", 4]);
  });

  test("is followed where it picks from a shape", () => {
    const x = input("x", { dtype: "f32", shape: ["batch", 7] });
    expect(knownInts(gather(op("Shape", [x]), 1))).toEqual([7]);
  });

  test("refuses what does not fit", () => {
    const x = input("x", { dtype: "f32", shape: [3, 2] });
    expect(() => gather(x, 3)).toThrow(/Gather\(f32 \[3, 2\], i64 \[\]\): index 3 is outside of an axis of length 3/);
    expect(() =>
      gather(
        x,
        hostOf([1], () => 0, "f32"),
      ),
    ).toThrow(DTypeError);
    expect(() => gather(x, 0, 2)).toThrow(/axis 2 is outside of a tensor with 2 dimensions/);
  });
});

describe("takeAlongAxis and scatter", () => {
  const cases = shapes(1, 3).chain((shape) =>
    fc
      .nat(shape.length - 1)
      .chain((axis) =>
        fc
          .tuple(...shape.map((d, i) => fc.integer({ min: 1, max: i === axis ? 5 : d })))
          .chain((part) =>
            fc.record({ shape: fc.constant(shape), axis: fc.constant(axis), indices: indicesInto(shape[axis]!, part) }),
          ),
      ),
  );

  test("takeAlongAxis agrees with a plain loop, and its gradient with finite differences", async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ shape, axis, indices }) => {
        const x = hostOf(shape, wave);
        const [y] = await run((x, i) => takeAlongAxis(x, i, axis), x, indices);
        expect(y!.shape).toEqual(indices.shape);
        const expected = indices.toArray().map((pick, i) => {
          const at = unravel(i, indices.shape);
          at[axis] = wrap(pick, shape[axis]!);
          return x.at(ravel(at, shape));
        });
        expect(y!.toArray()).toEqual(expected);
        await checkGradient((x) => takeAlongAxis(x, indices, axis), [x]);
      }),
      settings,
    );
  });

  /** The same indices, but none twice in one line along the axis. */
  const distinct = (indices: HostTensor, axis: number, length: number): boolean => {
    const seen = new Set<string>();
    return indices.toArray().every((pick, i) => {
      const at = unravel(i, indices.shape);
      at[axis] = wrap(pick, length);
      const key = at.join();
      return !seen.has(key) && seen.add(key) !== undefined;
    });
  };

  test("scatter agrees with a plain loop for every reduction, and its gradient with finite differences", async () => {
    const reductions = fc.constantFrom<ScatterReduction>("none", "add", "mul", "max", "min");
    await fc.assert(
      fc.asyncProperty(cases, reductions, async ({ shape, axis, indices }, reduction) => {
        fc.pre(reduction !== "none" || distinct(indices, axis, shape[axis]!));
        const x = hostOf(shape, wave);
        const updates = hostOf(indices.shape, (i) => wave(i + 100));
        const expected = x.toArray();
        indices.toArray().forEach((pick, i) => {
          const at = unravel(i, indices.shape);
          at[axis] = wrap(pick, shape[axis]!);
          const to = ravel(at, shape);
          expected[to] = combine[reduction](expected[to]!, updates.at(i));
        });
        const [y] = await run((x, i, u) => scatter(x, i, u, { axis, reduction }), x, indices, updates);
        expectClose(y!.toArray(), expected, 1e-12);
        if (reduction === "none" || reduction === "add")
          await checkGradient((x, u) => scatter(x, indices, u, { axis, reduction }), [x, updates]);
      }),
      settings,
    );
  });

  test("scatterAdd is the reduction of that name", async () => {
    const [y] = await run(
      (x, i, u) => scatterAdd(x, i, u),
      HostTensor.from([1, 2]),
      HostTensor.from([1n, 1n]),
      HostTensor.from([5, 7]),
    );
    expect(y!.toArray()).toEqual([1, 14]);
  });

  test("refuse what does not fit", () => {
    const x = input("x", { dtype: "f32", shape: [3, 2] });
    const i = (shape: number[]) => input("i", { dtype: "i64", shape });
    expect(() => takeAlongAxis(x, i([3]))).toThrow(/indices \[3\] need as many axes as \[3, 2\]/);
    expect(() => takeAlongAxis(x, i([4, 2]), 1)).toThrow(/reach beyond \[3, 2\] along axis 0/);
    expect(() => scatter(x, i([3, 2]), input("u", { dtype: "f32", shape: [3, 1] }))).toThrow(/differ in shape/);
    expect(() => scatter(x, i([3, 2]), input("u", { dtype: "f64", shape: [3, 2] }))).toThrow(
      /updates must be f32, not f64/,
    );
    const product = scatter(x, i([3, 2]), x, { reduction: "mul" });
    expect(() => grad(sum(product), x)).toThrow(GraphError);
    expect(() => op("ScatterElements", [x, i([3, 2]), x], { reduction: "avg" })).toThrow(
      /no reduction "avg"; choose one of none, add/,
    );
  });
});

describe("gatherNd and scatterNd", () => {
  /** A tensor, and index vectors into its axes behind the first `batch` ones. */
  const cases = (batched: boolean) =>
    shapes(1, 4).chain((shape) =>
      fc
        .tuple(
          fc.nat(batched ? Math.min(1, shape.length - 1) : 0),
          shapes(1, 2),
          fc.constantFrom("i64" as const, "i32" as const),
        )
        .chain(([batch, list, dtype]) =>
          fc.integer({ min: 1, max: shape.length - batch }).chain((depth) => {
            const lead = [...shape.slice(0, batch), ...list];
            const vector = fc.tuple(
              ...shape.slice(batch, batch + depth).map((d) => fc.integer({ min: -d, max: d - 1 })),
            );
            return fc.array(vector, { minLength: size(lead), maxLength: size(lead) }).map((vectors) => ({
              shape,
              batch,
              depth,
              lead,
              vectors,
              indices: hostOf([...lead, depth], (i) => vectors.flat()[i]!, dtype),
            }));
          }),
        ),
    );

  test("gatherNd agrees with a plain loop, and its gradient with finite differences", async () => {
    await fc.assert(
      fc.asyncProperty(cases(true), async ({ shape, batch, depth, lead, vectors, indices }) => {
        const x = hostOf(shape, wave);
        const slice = shape.slice(batch + depth);
        const [y] = await run((x, i) => gatherNd(x, i, batch), x, indices);
        expect(y!.shape).toEqual([...lead, ...slice]);
        const expected = vectors.flatMap((vector, n) => {
          const first = [...unravel(n, lead).slice(0, batch), ...vector.map((k, i) => wrap(k, shape[batch + i]!))];
          return Array.from({ length: size(slice) }, (_, i) => x.at(ravel([...first, ...unravel(i, slice)], shape)));
        });
        expect(y!.toArray()).toEqual(expected);
        await checkGradient((x) => gatherNd(x, indices, batch), [x]);
      }),
      settings,
    );
  });

  test("scatterNd agrees with a plain loop for every reduction, and its gradient with finite differences", async () => {
    const reductions = fc.constantFrom<ScatterReduction>("none", "add", "mul", "max", "min");
    await fc.assert(
      fc.asyncProperty(cases(false), reductions, async ({ shape, depth, lead, vectors, indices }, reduction) => {
        const places = vectors.map((v) => v.map((k, i) => wrap(k, shape[i]!)));
        fc.pre(reduction !== "none" || new Set(places.map((p) => p.join())).size === places.length);
        const slice = shape.slice(depth);
        const x = hostOf(shape, wave);
        const updates = hostOf([...lead, ...slice], (i) => wave(i + 100));
        const expected = x.toArray();
        places.forEach((place, n) => {
          for (let i = 0; i < size(slice); i++) {
            const to = ravel([...place, ...unravel(i, slice)], shape);
            expected[to] = combine[reduction](expected[to]!, updates.at(n * size(slice) + i));
          }
        });
        const [y] = await run((x, i, u) => scatterNd(x, i, u, { reduction }), x, indices, updates);
        expectClose(y!.toArray(), expected, 1e-12);
        if (reduction === "none" || reduction === "add")
          await checkGradient((x, u) => scatterNd(x, indices, u, { reduction }), [x, updates]);
        // The rule of the operation itself, which imported models hold.
        if (reduction === "add")
          await checkGradient(
            (x, u) => op("ScatterND", [x, op("Constant", [], { value: indices.cast("i64") }), u], { reduction }),
            [x, updates],
          );
      }),
      settings,
    );
  });

  test("scatterNd adds up repeated rows with several threads", async () => {
    const rows = hostOf([512, 1], () => 3, "i64");
    const ones = hostOf([512, 64], () => 1, "f32");
    for (let repeat = 0; repeat < 5; repeat++) {
      const [y] = await runOn(
        { threads: 4 },
        (x, i, u) => scatterNd(x, i, u, { reduction: "add" }),
        HostTensor.zeros("f32", [8, 64]),
        rows,
        ones,
      );
      expect(new Set(y!.toArray().slice(192, 256))).toEqual(new Set([512]));
    }
  });

  test("refuse what does not fit", () => {
    const x = input("x", { dtype: "f32", shape: [3, 2] });
    const i = (shape: number[]) => input("i", { dtype: "i64", shape });
    expect(() => gatherNd(x, i([4, 3]))).toThrow(/index vectors of length 3 do not fit \[3, 2\]/);
    const narrow = input("i", { dtype: "i32", shape: [4, 1] });
    expect(() => op("GatherND", [x, narrow])).toThrow(/indices must be i64, not i32/);
    expect(() => gatherNd(x, i([4, 1]), 1)).toThrow(/differ in their first 1 dimensions/);
    expect(() => scatterNd(x, i([4, 1]), input("u", { dtype: "f32", shape: [4, 3] }), { reduction: "add" })).toThrow(
      /ScatterND\(.*these indices name slices \[4, 2\], its updates are \[4, 3\]/,
    );
    expect(() => scatterNd(x, i([4, 1]), input("u", { dtype: "f32", shape: [4, 3] }))).toThrow(ShapeError);
  });
});

describe("oneHot", () => {
  test.each([
    ["f32", "i64"],
    ["f64", "i32"],
    ["i32", "i64"],
    ["bool", "i32"],
    ["f16", "i64"],
  ] as const)("gives %s from %s ids along any axis", async (dtype, ids) => {
    const [last, first] = await run(
      (i) => [oneHot(i, 3, { dtype }), oneHot(i, 3, { axis: 0, dtype })],
      hostOf([4], (i) => [1, -1, 0, 5][i]!, ids),
    );
    expect(last!.dtype).toBe(dtype);
    expect(last!.shape).toEqual([4, 3]);
    expect(last!.toArray()).toEqual([0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]);
    expect(first!.shape).toEqual([3, 4]);
    expect(first!.toArray()).toEqual([0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0]);
  });

  test("refuses a depth of zero", () => {
    expect(() => oneHot(HostTensor.from([0n]), 0)).toThrow(/depth must be at least 1, not 0/);
  });
});
