import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as t from "../../src/tensor/index.ts";
import { type DType, grad, HostTensor, type ReduceOptions, type Tensor } from "../../src/tensor/index.ts";
import { checkGradients, derivative, type GradCheckCase } from "../support/gradcheck.ts";
import {
  checkForward,
  distinctTensor,
  type ForwardCase,
  gridOf,
  randomTensor,
  reduce,
  scan,
  sizeOfShape,
} from "../support/oracle.ts";
import { run } from "../support/run.ts";

const total = (values: number[]): number => values.reduce((a, b) => a + b, 0);
const product = (values: number[]): number => values.reduce((a, b) => a * b, 1);
const average = (values: number[]): number => total(values) / values.length;

interface Reduction {
  fn: (x: Tensor, options?: ReduceOptions) => Tensor;
  of: (values: number[]) => number;
  /** Picks an element, of which there must be one; ties are kinks. */
  picks?: boolean;
  /** Input must not be near zero. */
  positive?: boolean;
}

const reductions: Record<string, Reduction> = {
  sum: { fn: t.sum, of: total },
  mean: { fn: t.mean, of: average },
  max: { fn: t.max, of: (v) => Math.max(...v), picks: true },
  min: { fn: t.min, of: (v) => Math.min(...v), picks: true },
  prod: { fn: t.prod, of: product, positive: true },
  norm1: { fn: t.norm1, of: (v) => total(v.map(Math.abs)), positive: true },
  norm2: { fn: t.norm2, of: (v) => Math.hypot(...v), positive: true },
  sumSquares: { fn: t.sumSquares, of: (v) => total(v.map((x) => x * x)) },
  logSumExp: { fn: t.logSumExp, of: (v) => Math.log(total(v.map(Math.exp))), picks: true },
  variance: { fn: t.variance, of: (v) => average(v.map((x) => (x - average(v)) ** 2)) },
};

const inputFor = ({ picks, positive }: Reduction, shape: readonly number[], seed: number): HostTensor =>
  picks ? distinctTensor(shape, seed) : positive ? randomTensor(shape, seed, 0.4, 1.6) : randomTensor(shape, seed);

/** A shape and some of its axes, counted from either end, in any order. */
const shapeAndAxes = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 4 }).chain((shape) =>
  fc.tuple(
    fc.constant(shape),
    fc
      .subarray(
        shape.map((_, i) => i),
        { minLength: 0 },
      )
      .chain((axes) =>
        fc.tuple(
          fc.shuffledSubarray(axes, { minLength: axes.length }),
          fc.array(fc.boolean(), { minLength: axes.length, maxLength: axes.length }),
        ),
      )
      .map(([axes, back]) => axes.map((a, i) => (back[i] ? a - shape.length : a))),
    fc.boolean(),
  ),
);

describe("reductions", () => {
  test("agree with plain loops over any axes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(shapeAndAxes, { minLength: 6, maxLength: 6 }), fc.nat(1000), async (samples, seed) => {
        await checkForward(
          samples.flatMap(([shape, axes, keepDims]) =>
            Object.entries(reductions).map(([name, sample]): ForwardCase => {
              const x = inputFor(sample, shape, seed);
              return {
                name: `${name} of [${shape}] over [${axes}], keepDims ${keepDims}`,
                fn: (a) => sample.fn(a!, { axes, keepDims }),
                inputs: [x],
                expected: reduce(gridOf(x), axes, keepDims, sample.of),
              };
            }),
          ),
          1e-10,
        );
      }),
      { seed: 1, numRuns: 8 },
    );
  });

  test("reduce everything when no axes are given, one axis when it is a number, and empty axes", async () => {
    await checkForward(
      Object.entries(reductions).flatMap(([name, sample], i) => {
        const x = inputFor(sample, [2, 3], i);
        const scalar = inputFor(sample, [], i);
        const cases: ForwardCase[] = [
          {
            name: `${name} of all`,
            fn: (a) => sample.fn(a!),
            inputs: [x],
            expected: reduce(gridOf(x), [0, 1], false, sample.of),
          },
          {
            name: `${name} of -1`,
            fn: (a) => sample.fn(a!, { axes: -1 }),
            inputs: [x],
            expected: reduce(gridOf(x), [1], false, sample.of),
          },
          {
            name: `${name} of a scalar`,
            fn: (a) => sample.fn(a!),
            inputs: [scalar],
            expected: reduce(gridOf(scalar), [], false, sample.of),
          },
        ];
        // onnxruntime's mean of nothing is 0.
        if (sample.picks || name === "mean" || name === "variance") return cases;
        const empty = HostTensor.zeros("f64", [2, 0]);
        const expected = reduce(gridOf(empty), [1], false, sample.of);
        return [
          ...cases,
          {
            name: `${name} of nothing`,
            fn: (a: Tensor) => sample.fn(a, { axes: 1 }),
            inputs: [empty],
            expected,
          } as ForwardCase,
        ];
      }),
      1e-10,
    );
  });

  test("have the gradients that finite differences give", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(shapeAndAxes, { minLength: 4, maxLength: 4 }), fc.nat(1000), async (samples, seed) => {
        await checkGradients(
          samples
            .filter(([shape]) => sizeOfShape(shape) <= 24)
            .flatMap(([shape, axes, keepDims]) =>
              Object.entries(reductions).map(
                ([name, sample]): GradCheckCase => ({
                  name: `${name} of [${shape}] over [${axes}], keepDims ${keepDims}`,
                  fn: (a) => sample.fn(a!, { axes, keepDims }),
                  inputs: [inputFor(sample, shape, seed)],
                }),
              ),
            ),
        );
      }),
      { seed: 2, numRuns: 5 },
    );
  });

  test("have second derivatives", async () => {
    await checkGradients(
      Object.entries(reductions).map(([name, sample], i) => ({
        name: `derivative of ${name}`,
        fn: derivative((a) => sample.fn(a!, { axes: 1 })),
        inputs: [inputFor(sample, [2, 3], 60 + i)],
      })),
    );
  });

  test("ONNX's own, which have no function here, have gradients too", async () => {
    const x = randomTensor([2, 3], 5, 0.4, 1.6);
    await checkGradients(
      ["ReduceLogSum", "ReduceLogSumExp"].map((name) => ({
        name,
        fn: (a: Tensor) => t.op(name, [a, t.ints([1])], { keepdims: 0 }),
        inputs: [x],
      })) as unknown as GradCheckCase[],
    );
  });

  test("gradients of an empty tensor are empty", async () => {
    const empty = HostTensor.zeros("f64", [2, 0]);
    const results = await run((x) => grad(t.add(t.sum(x!), t.sum(t.mean(x!, { axes: 0 }))), [x!]), empty);
    expect(results[0]!.shape).toEqual([2, 0]);
  });

  test("ties share the gradient of max and min", async () => {
    const [a, b] = await run(
      (x) => [grad(t.sum(t.max(x!, { axes: 1 })), x!), grad(t.min(x!), x!)],
      HostTensor.from([
        [1, 3, 3],
        [1, 1, 0],
      ]),
    );
    expect(a!.toArray()).toEqual([0, 0.5, 0.5, 0.5, 0.5, 0]);
    expect(b!.toArray()).toEqual([0, 0, 0, 0, 0, 1]);
  });

  test("the Euclidean norm of zeros has no slope", async () => {
    const [g] = await run(
      (x) => grad(t.sum(t.norm2(x!, { axes: 1 })), x!),
      HostTensor.from([
        [0, 0],
        [3, 4],
      ]),
    );
    g!.toArray().forEach((v, i) => {
      expect(v).toBeCloseTo([0, 0, 0.6, 0.8][i]!, 6);
    });
  });

  test.each<DType>(["i32", "i64"])("sums and extremes of %s", async (dtype) => {
    const results = await run(
      (x) => [t.sum(x!), t.max(x!, { axes: 0 }), t.min(x!, { axes: 1 }), t.prod(x!), t.cumSum(x!, 1)],
      HostTensor.from([1, 2, 3, -4], { dtype, shape: [2, 2] }),
    );
    expect(results.map((r) => r.toArray())).toEqual([[2], [3, 2], [1, -4], [-24], [1, 3, 3, -1]]);
    expect(results[0]!.dtype).toBe(dtype);
  });

  test("the largest of small integers and of booleans", async () => {
    for (const dtype of ["u8", "i8", "bool"] as const) {
      const [top, low] = await run((x) => [t.max(x!), t.min(x!)], HostTensor.from([0, 1, 1], { dtype }));
      expect([dtype, top!.item(), low!.item()]).toEqual([dtype, 1, 0]);
    }
  });
});

describe("where the largest and the smallest are", () => {
  test("agree with plain loops, the first of equals winning", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 3 }),
        fc.nat(10),
        fc.boolean(),
        fc.nat(1000),
        async (shape, axisSeed, keepDims, seed) => {
          const axis = (axisSeed % (2 * shape.length)) - shape.length;
          const x = randomTensor(shape, seed, -1, 1);
          for (let i = 0; i < x.size; i++) x.set(i, Math.round(x.at(i)));
          await checkForward([
            {
              name: "argMax",
              fn: (a) => t.argMax(a!, axis, { keepDims }),
              inputs: [x],
              expected: reduce(gridOf(x), [axis], keepDims, (v) => v.indexOf(Math.max(...v))),
            },
            {
              name: "argMin",
              fn: (a) => t.argMin(a!, axis, { keepDims }),
              inputs: [x],
              expected: reduce(gridOf(x), [axis], keepDims, (v) => v.indexOf(Math.min(...v))),
            },
          ]);
        },
      ),
      { seed: 3, numRuns: 20 },
    );
  });

  test("no gradient flows through an index", async () => {
    const [g] = await run((x) => grad(t.sum(t.mul(x!, t.cast(t.argMax(x!), "f32"))), x!), HostTensor.from([1, 5, 2]));
    expect(g!.toArray()).toEqual([1, 1, 1]);
  });
});

interface Scan {
  fn: (x: Tensor, axis: number) => Tensor;
  of: (values: number[]) => number[];
}

const running = (values: number[]): number[] => values.map((_, i) => total(values.slice(0, i + 1)));
const exclusive = (values: number[]): number[] => values.map((_, i) => total(values.slice(0, i)));
const softmaxOf = (values: number[]): number[] => values.map((v) => Math.exp(v) / total(values.map(Math.exp)));

const scans: Record<string, Scan> = {
  cumSum: { fn: (x, axis) => t.cumSum(x, axis), of: running },
  "cumSum exclusive": { fn: (x, axis) => t.cumSum(x, axis, { exclusive: true }), of: exclusive },
  "cumSum reverse": {
    fn: (x, axis) => t.cumSum(x, axis, { reverse: true }),
    of: (v) => running(v.toReversed()).toReversed(),
  },
  "cumSum both": {
    fn: (x, axis) => t.cumSum(x, axis, { exclusive: true, reverse: true }),
    of: (v) => exclusive(v.toReversed()).toReversed(),
  },
  softmax: { fn: t.softmax, of: softmaxOf },
  logSoftmax: { fn: t.logSoftmax, of: (v) => softmaxOf(v).map(Math.log) },
};

describe("running sums and softmax", () => {
  const samples = [[1], [5], [2, 3], [3, 1, 2], [2, 2, 2, 2], [2, 0]].flatMap((shape) =>
    shape.flatMap((_, i) => [i, i - shape.length].map((axis) => ({ shape, axis }))),
  );
  const cases = samples.flatMap(({ shape, axis }, i) =>
    Object.entries(scans).map(([name, { fn, of }]) => {
      const x = randomTensor(shape, i);
      return {
        name: `${name} of [${shape}] along ${axis}`,
        fn: (a: Tensor) => fn(a, axis),
        inputs: [x],
        expected: scan(gridOf(x), axis, of),
      };
    }),
  );

  test("agree with plain loops along any axis", async () => {
    await checkForward(cases as unknown as ForwardCase[]);
  });

  test("have the gradients that finite differences give", async () => {
    await checkGradients(cases as unknown as GradCheckCase[]);
  });

  test("have second derivatives", async () => {
    await checkGradients(
      Object.entries(scans).map(([name, { fn }], i) => ({
        name: `derivative of ${name}`,
        fn: derivative((a) => fn(a!, 1)),
        inputs: [randomTensor([2, 3], 80 + i)],
      })),
    );
  });
});

describe("extreme logits", () => {
  const rows = HostTensor.from(
    [
      [-Infinity, -Infinity, -Infinity],
      [0, -Infinity, 0],
      [1000, 1000, -1000],
      [-1000, -1000, -1000],
    ],
    { dtype: "f32" },
  );

  test("logSumExp takes -Infinity and large values", async () => {
    const [y, g] = await run((x) => {
      const y = t.logSumExp(x!, { axes: 1 });
      return [y, grad(t.sum(t.where(t.isInf(y), 0, y)), x!)];
    }, rows);
    const ln = Math.fround;
    expect(y!.toArray()).toEqual([-Infinity, ln(Math.log(2)), ln(1000 + Math.log(2)), ln(-1000 + Math.log(3))]);
    const third = ln(1 / 3);
    g!.toArray().forEach((v, i) => {
      expect(v).toBeCloseTo([0, 0, 0, 0.5, 0, 0.5, 0.5, 0.5, 0, third, third, third][i]!, 6);
    });
  });

  test("a row of nothing but -Infinity has no gradient rather than NaN, +Infinity stays", async () => {
    const [g, y] = await run(
      (x) => [grad(t.sum(t.logSumExp(x!, { axes: 1 })), x!), t.logSumExp(t.neg(x!), { axes: 1 })],
      rows,
    );
    expect(g!.toArray().slice(0, 3)).toEqual([0, 0, 0]);
    expect(y!.at(0)).toBe(Infinity);
  });

  test("softmax of large values sums to one, and -Infinity masks", async () => {
    const [y, logs] = await run((x) => [t.softmax(x!), t.logSoftmax(x!)], rows);
    expect(y!.toArray().slice(3)).toEqual([0.5, 0, 0.5, 0.5, 0.5, 0, 1 / 3, 1 / 3, 1 / 3].map(Math.fround));
    expect(logs!.toArray().slice(6, 9)).toEqual([-Math.log(2), -Math.log(2), -2000 - Math.log(2)].map(Math.fround));
  });
});
