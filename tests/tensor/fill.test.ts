import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import * as t from "../../src/tensor/index.ts";
import { HostTensor, type Shape, spec, type Tensor } from "../../src/tensor/index.ts";
import { checkGradients, type GradCheckCase } from "../support/gradcheck.ts";
import {
  at,
  build,
  checkForward,
  expectGrids,
  type ForwardCase,
  type Grid,
  gridOf,
  matmulOf,
  randomTensor,
  reduce,
  scan,
  zip,
} from "../support/oracle.ts";
import { run } from "../support/run.ts";

describe("filling and stretching", () => {
  test("expand follows broadcasting, forward and backward", async () => {
    const samples = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }).chain((target) =>
      fc
        .tuple(
          fc.nat(target.length),
          fc.array(fc.boolean(), { minLength: target.length, maxLength: target.length }),
          fc.nat(1000),
        )
        .map(([missing, ones, seed]) => {
          const shape = target.map((n, i) => (ones[i] ? 1 : n)).slice(missing);
          const x = randomTensor(shape, seed);
          return {
            name: `expand [${shape}] to [${target}]`,
            fn: (a: Tensor) => t.expand(a, target),
            inputs: [x],
            expected: build(target, (index) => at(gridOf(x), index)),
          };
        }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(samples, { minLength: 15, maxLength: 15 }), async (cases) => {
        await checkForward(cases as unknown as ForwardCase[]);
        await checkGradients(cases as unknown as GradCheckCase[]);
      }),
      { seed: 1, numRuns: 4 },
    );
  });

  test("sumToLike is the transpose of broadcasting", async () => {
    const g = randomTensor([2, 3, 4], 1);
    const cases = [[2, 3, 4], [3, 4], [1, 4], [3, 1], [2, 1, 1], []].map((shape) => {
      const extra = 3 - shape.length;
      const axes = [0, 1, 2].filter((i) => i < extra || shape[i - extra] === 1);
      const summed = reduce(gridOf(g), axes, false, (v) => v.reduce((a, b) => a + b));
      return {
        name: `[${shape}]`,
        fn: (x: Tensor, like: Tensor) => t.sumToLike(x, like),
        inputs: [g, HostTensor.zeros("f64", shape)],
        expected: { ...summed, shape },
      };
    });
    await checkForward(cases as unknown as ForwardCase[]);
  });

  test("constants of a shape", async () => {
    const [zeros, ones, sevens, numbers, scalar, ofShape] = await run(
      (x) => [
        t.zerosLike(x!),
        t.onesLike(x!),
        t.fill(7, [2], "i64"),
        t.iota(4),
        t.fill(5, []),
        t.op("ConstantOfShape", [t.ints([2, 1])], { value: HostTensor.from([3n]) }),
      ],
      randomTensor([2, 2], 1),
    );
    expect([zeros, ones, sevens, numbers, scalar, ofShape].map((r) => [r!.dtype, r!.shape, r!.toArray()])).toEqual([
      ["f64", [2, 2], [0, 0, 0, 0]],
      ["f64", [2, 2], [1, 1, 1, 1]],
      ["i64", [2], [7, 7]],
      ["i64", [4], [0, 1, 2, 3]],
      ["f32", [], [5]],
      ["i64", [2, 1], [3, 3]],
    ]);
  });

  test("a range counts by steps", async () => {
    const range = (start: number, limit: number, step: number): Tensor =>
      t.op(
        "Range",
        [start, limit, step].map((v) => t.scalar(v, "i64")),
      );
    const results = await run(() => [range(1, 8, 3), range(5, 0, -2), range(3, 3, 1)], HostTensor.from(0));
    expect(results.map((r) => r.toArray())).toEqual([[1, 4, 7], [5, 3, 1], []]);
  });
});

// ---------------------------------------------------------------------------------------- named dimensions

interface Dynamic {
  specs: Shape[];
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[];
  expected: (...inputs: Grid[]) => Grid | readonly Grid[];
  /** The declared shape of the result, names included. */
  result: Shape | readonly Shape[];
}

const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const softmax = (values: number[]): number[] =>
  values.map((v) => Math.exp(v) / values.reduce((s, w) => s + Math.exp(w), 0));
const rows = (g: Grid, from: number, to: number): Grid =>
  build([g.shape[0]!, to - from], ([i, j]) => at(g, [i!, from + j!]));

const dynamic: Record<string, Dynamic> = {
  "reshape merges names": {
    specs: [["batch", "seq", 6]],
    fn: (x) => t.reshape(x!, ["batch*seq", 2, 3]),
    expected: (x) => ({ ...x, shape: [x.shape[0]! * x.shape[1]!, 2, 3] }),
    result: ["batch*seq", 2, 3],
  },
  "reshape works out a name": {
    specs: [["batch", "seq", 6]],
    fn: (x) => [t.reshape(x!, [-1, 3]), t.reshape(x!, ["batch", -1])],
    expected: (x) => [
      { ...x, shape: [x.shape[0]! * x.shape[1]! * 2, 3] },
      { ...x, shape: [x.shape[0]!, x.shape[1]! * 6] },
    ],
    result: [
      ["2*batch*seq", 3],
      ["batch", "6*seq"],
    ],
  },
  "reshape splits heads and back": {
    specs: [["batch", "seq", 6]],
    fn: (x) => {
      const heads = t.transpose(t.reshape(x!, ["batch", "seq", 2, 3]), [0, 2, 1, 3]);
      return [heads, t.reshape(t.transpose(heads, [0, 2, 1, 3]), ["batch", "seq", 6])];
    },
    expected: (x) => {
      const [b, s] = x.shape as [number, number];
      return [build([b, 2, s, 3], ([i, h, j, k]) => at(x, [i!, j!, 3 * h! + k!])), x];
    },
    result: [
      ["batch", 2, "seq", 3],
      ["batch", "seq", 6],
    ],
  },
  "flatten multiplies names": {
    specs: [["batch", "seq", 6]],
    fn: (x) => t.flatten(x!, 0, 1),
    expected: (x) => ({ ...x, shape: [x.shape[0]! * x.shape[1]!, 6] }),
    result: ["batch*seq", 6],
  },
  "concat adds names, split takes them apart": {
    specs: [
      ["batch", "past"],
      ["batch", "seq"],
    ],
    fn: (x, y) => {
      const whole = t.concat([x!, y!], 1);
      return [whole, ...t.split(whole, ["past", "seq"], 1, [x!, y!])];
    },
    expected: (x, y) => [
      build([x.shape[0]!, x.shape[1]! + y.shape[1]!], ([i, j]) =>
        j! < x.shape[1]! ? at(x, [i!, j!]) : at(y, [i!, j! - x.shape[1]!]),
      ),
      x,
      y,
    ],
    result: [
      ["batch", "seq+past"],
      ["batch", "past"],
      ["batch", "seq"],
    ],
  },
  "split halves a multiple": {
    specs: [["batch", "2*seq"]],
    fn: (x) => t.split(x!, 2),
    expected: (x) => [rows(x, 0, x.shape[1]! / 2), rows(x, x.shape[1]! / 2, x.shape[1]!)],
    result: [
      ["batch", "seq"],
      ["batch", "seq"],
    ],
  },
  "slice cuts from either end": {
    specs: [["batch", "seq"]],
    fn: (x) => [
      t.slice(x!, 1, 1),
      t.slice(x!, 1, -1),
      t.slice(x!, 1, 0, -1),
      t.slice(x!, 1, 0, undefined, 2),
      t.flip(x!, 1),
    ],
    expected: (x) => {
      const n = x.shape[1]!;
      return [
        rows(x, 1, n),
        rows(x, n - 1, n),
        rows(x, 0, n - 1),
        build([x.shape[0]!, Math.ceil(n / 2)], ([i, j]) => at(x, [i!, 2 * j!])),
        build(x.shape, ([i, j]) => at(x, [i!, n - 1 - j!])),
      ];
    },
    result: [
      ["batch", "seq+-1"],
      ["batch", 1],
      ["batch", "seq+-1"],
      ["batch", "floor(seq+1/2)"],
      ["batch", "seq"],
    ],
  },
  "expand stretches to names": {
    specs: [["seq"], ["batch", 3]],
    fn: (x, like) => t.expand(x!, ["batch", 2, "seq"], [like!]),
    expected: (x, like) => build([like.shape[0]!, 2, x.shape[0]!], (index) => at(x, index)),
    result: ["batch", 2, "seq"],
  },
  "broadcast arithmetic": {
    specs: [["batch", 1, "seq"], ["batch", "seq", 1], ["seq"]],
    fn: (a, b, c) => t.add(t.mul(a!, b!), c!),
    expected: (a, b, c) => zip((p, q, r) => p! * q! + r!, a, b, c),
    result: ["batch", "seq", "seq"],
  },
  "matmul of stacks": {
    specs: [
      ["batch", "seq", 3],
      ["batch", 3, "past"],
    ],
    fn: (a, b) => t.matmul(a!, b!),
    expected: matmulOf,
    result: ["batch", "seq", "past"],
  },
  "matmul by a transposed stack": {
    specs: [
      ["batch", "seq", 3],
      ["batch", "past", 3],
    ],
    fn: (a, b) => t.matmul(a!, t.transpose(b!)),
    expected: (a, b) =>
      matmulOf(
        a,
        build([b.shape[0]!, 3, b.shape[1]!], ([i, j, k]) => at(b, [i!, k!, j!])),
      ),
    result: ["batch", "seq", "past"],
  },
  "matmul by one transposed matrix": {
    specs: [
      ["batch", "seq", 3],
      ["past", 3],
    ],
    fn: (a, b) => t.linear(a!, b!),
    expected: (a, b) =>
      matmulOf(
        a,
        build([3, b.shape[0]!], ([j, k]) => at(b, [k!, j!])),
      ),
    result: ["batch", "seq", "past"],
  },
  "einsum over names": {
    specs: [
      ["batch", "seq", 2, 3],
      ["batch", "past", 2, 3],
    ],
    fn: (q, k) => t.einsum("bqhd,bkhd->bhqk", q!, k!),
    expected: (q, k) =>
      build([q.shape[0]!, 2, q.shape[1]!, k.shape[1]!], ([b, h, i, j]) =>
        [0, 1, 2].reduce((s, d) => s + at(q, [b!, i!, h!, d]) * at(k, [b!, j!, h!, d]), 0),
      ),
    result: ["batch", 2, "seq", "past"],
  },
  reductions: {
    specs: [["batch", "seq", 3]],
    fn: (x) => [
      t.sum(x!),
      t.mean(x!, { axes: 1 }),
      t.mean(x!, { axes: [0, 1], keepDims: true }),
      t.logSumExp(x!, { axes: 1 }),
      t.argMax(x!, 1),
      t.cumSum(x!, 1),
    ],
    expected: (x) => [
      reduce(x, [0, 1, 2], false, (v) => mean(v) * v.length),
      reduce(x, [1], false, mean),
      reduce(x, [0, 1], true, mean),
      reduce(x, [1], false, (v) => Math.log(v.reduce((s, w) => s + Math.exp(w), 0))),
      reduce(x, [1], false, (v) => v.indexOf(Math.max(...v))),
      scan(x, 1, (v) => v.map((_, i) => v.slice(0, i + 1).reduce((a, b) => a + b))),
    ],
    result: [[], ["batch", 3], [1, 1, 3], ["batch", 3], ["batch", 3], ["batch", "seq", 3]],
  },
  softmax: {
    specs: [["batch", "seq"]],
    fn: (x) => [t.softmax(x!), t.logSoftmax(x!, 0)],
    expected: (x) => [scan(x, 1, softmax), scan(x, 0, (v) => softmax(v).map(Math.log))],
    result: [
      ["batch", "seq"],
      ["batch", "seq"],
    ],
  },
  "pad, tile and triangle": {
    specs: [["batch", "seq"]],
    fn: (x) => [t.pad(x!, [0, 1], [0, 2]), t.tile(x!, [1, 2]), t.triangle(x!)],
    expected: (x) => {
      const [b, s] = x.shape as [number, number];
      return [
        build([b, s + 3], ([i, j]) => (j! < 1 || j! > s ? 0 : at(x, [i!, j! - 1]))),
        build([b, 2 * s], ([i, j]) => at(x, [i!, j! % s])),
        build([b, s], ([i, j]) => (j! <= i! ? at(x, [i!, j!]) : 0)),
      ];
    },
    result: [
      ["batch", "seq+3"],
      ["batch", "2*seq"],
      ["batch", "seq"],
    ],
  },
  "shapes as numbers": {
    specs: [["batch", "seq"]],
    fn: (x) => [t.cast(t.iota("seq", [x!]), "f64"), t.fill(2, ["batch", "batch*seq"], "f64", [x!]), t.onesLike(x!)],
    expected: (x) => {
      const [b, s] = x.shape as [number, number];
      return [build([s], ([i]) => i!), build([b, b * s], () => 2), build([b, s], () => 1)];
    },
    result: [["seq"], ["batch", "batch*seq"], ["batch", "seq"]],
  },
  "gradients of a loss": {
    specs: [
      ["batch", "seq", 3],
      [2, 3],
      [1, "seq", 1],
    ],
    fn: (x, w, b) => t.grad(t.mean(t.square(t.add(t.linear(x!, w!), b!))), [x!, w!, b!]),
    expected: (x, w, b) => {
      const [n, s] = x.shape as [number, number];
      const y = (i: number, j: number, o: number): number =>
        [0, 1, 2].reduce((total, k) => total + at(x, [i, j, k]) * at(w, [o, k]), at(b, [0, j, 0]));
      const each = (value: (i: number, j: number, o: number) => number): number =>
        [...Array(n).keys()]
          .flatMap((i) => [...Array(s).keys()].flatMap((j) => [0, 1].map((o) => value(i, j, o))))
          .reduce((p, q) => p + q, 0) /
        (n * s * 2);
      return [
        build(
          x.shape,
          ([i, j, k]) => (2 * (y(i!, j!, 0) * at(w, [0, k!]) + y(i!, j!, 1) * at(w, [1, k!]))) / (n * s * 2),
        ),
        build([2, 3], ([o, k]) => each((i, j, p) => (p === o ? 2 * y(i, j, p) * at(x, [i, j, k!]) : 0))),
        build([1, s, 1], ([, j]) => each((i, q, o) => (q === j ? 2 * y(i, q, o) : 0))),
      ];
    },
    result: [
      ["batch", "seq", 3],
      [2, 3],
      [1, "seq", 1],
    ],
  },
};

describe("named dimensions: compiled once, run at several sizes", () => {
  const sizes = [
    { batch: 1, seq: 1, past: 3 },
    { batch: 2, seq: 5, past: 1 },
    { batch: 3, seq: 2, past: 4 },
  ];

  test.each(Object.entries(dynamic))("%s", async (name, { specs, fn, expected, result }) => {
    let declared: Shape[] = [];
    const program = await compile(
      (...inputs) => {
        const outputs = [fn(...(inputs as unknown as Tensor[]))].flat() as Tensor[];
        declared = outputs.map((o) => o.shape);
        return outputs;
      },
      specs.map((shape) => spec("f64", shape)),
      { threads: 1 },
    );
    const wanted = (Array.isArray(result[0]) || Array.isArray(result.at(-1)) ? result : [result]) as readonly Shape[];
    expect(declared).toEqual(wanted);
    for (const size of sizes) {
      const bindings = new Map(Object.entries(size));
      const inputs = specs.map((shape, i) =>
        randomTensor(
          shape.map((d) => t.evaluateDim(d, bindings)!),
          i + size.seq,
        ),
      );
      const got = (await program(...inputs)) as unknown as HostTensor[];
      expectGrids(`${name} at ${JSON.stringify(size)}`, got, [expected(...inputs.map(gridOf))].flat() as Grid[], 1e-10);
    }
    await program.dispose();
  });
});
