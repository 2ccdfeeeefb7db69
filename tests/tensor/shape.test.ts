import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as t from "../../src/tensor/index.ts";
import { type DType, grad, HostTensor, type PadMode, type Tensor } from "../../src/tensor/index.ts";
import { checkGradients, derivative, type GradCheckCase } from "../support/gradcheck.ts";
import { at, build, checkForward, type ForwardCase, type Grid, gridOf, randomTensor } from "../support/oracle.ts";
import { run } from "../support/run.ts";

/** One case for the forward check and, where there is something to differentiate, the gradient check. */
interface Sample {
  name: string;
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[];
  inputs: HostTensor[];
  expected: Grid | Grid[];
}

async function check(samples: fc.Arbitrary<Sample>, seed: number): Promise<void> {
  const lists = fc.array(samples, { minLength: 12, maxLength: 12 });
  await fc.assert(
    fc.asyncProperty(lists, async (cases) => {
      await checkForward(cases as ForwardCase[]);
      await checkGradients(cases as GradCheckCase[]);
    }),
    { seed, numRuns: 3 },
  );
}

const shapes = (minLength = 0, min = 1): fc.Arbitrary<number[]> =>
  fc.array(fc.integer({ min, max: 3 }), { minLength, maxLength: 3 });
const seeds = fc.nat(1000);

/** A shape with one of its axes, counted from either end. */
const withAxis = (min = 1, longest = 4): fc.Arbitrary<{ shape: number[]; axis: number; front: number }> =>
  fc
    .array(fc.integer({ min, max: longest }), { minLength: 1, maxLength: 3 })
    .chain((shape) =>
      fc.record({ shape: fc.constant(shape), axis: fc.integer({ min: -shape.length, max: shape.length - 1 }) }),
    )
    .map(({ shape, axis }) => ({ shape, axis, front: axis < 0 ? axis + shape.length : axis }));

describe("reshape", () => {
  test("keeps the elements in order, with a free dimension or without", async () => {
    const samples = fc.tuple(shapes(0, 0), fc.boolean(), seeds).map(([shape, free, seed]): Sample => {
      const x = randomTensor(shape, seed);
      const target = [...shape].reverse();
      const open = target.findIndex((_, i) => target.every((n, k) => k === i || n > 0));
      const asked = free && open >= 0 ? target.with(open, -1) : target;
      return {
        name: `reshape [${shape}] to [${asked}]`,
        fn: (a) => t.reshape(a!, asked),
        inputs: [x],
        expected: { ...gridOf(x), shape: target },
      };
    });
    await check(samples, 1);
  });

  test("flatten merges a run of axes", async () => {
    const samples = withAxis().chain(({ shape }) =>
      fc.tuple(fc.nat(shape.length - 1), fc.nat(shape.length - 1), seeds).map(([a, b, seed]): Sample => {
        const [from, to] = [Math.min(a, b), Math.max(a, b)];
        const x = randomTensor(shape, seed);
        const merged = [
          ...shape.slice(0, from),
          shape.slice(from, to + 1).reduce((n, m) => n * m, 1),
          ...shape.slice(to + 1),
        ];
        return {
          name: `flatten [${shape}] ${from} to ${to}`,
          fn: (y) => t.flatten(y!, from, to - shape.length),
          inputs: [x],
          expected: { ...gridOf(x), shape: merged },
        };
      }),
    );
    await check(samples, 2);
  });

  test("unsqueeze and squeeze undo each other", async () => {
    const samples = shapes().chain((shape) =>
      fc
        .tuple(fc.subarray([...Array(shape.length + 2).keys()], { minLength: 2, maxLength: 2 }), fc.boolean(), seeds)
        .map(([axes, back, seed]): Sample => {
          const x = randomTensor(shape, seed);
          const wide = [...shape];
          for (const a of axes) wide.splice(a, 0, 1);
          const asked = back ? axes.map((a) => a - wide.length) : axes;
          return {
            name: `unsqueeze [${shape}] at [${asked}]`,
            fn: (y) => [t.unsqueeze(y!, asked), t.squeeze(t.unsqueeze(y!, asked), asked)],
            inputs: [x],
            expected: [{ ...gridOf(x), shape: wide }, gridOf(x)],
          };
        }),
    );
    await check(samples, 3);
  });

  test("squeeze without axes drops all of length 1", async () => {
    const x = randomTensor([1, 2, 1], 1);
    await checkForward([
      { name: "squeeze", fn: (a) => t.squeeze(a!), inputs: [x], expected: { ...gridOf(x), shape: [2] } },
    ]);
  });

  test("ONNX's Flatten splits the axes in two", async () => {
    const x = randomTensor([2, 1, 3], 1);
    const cases = [
      [0, [1, 6]],
      [1, [2, 3]],
      [-1, [2, 3]],
      [3, [6, 1]],
    ] as const;
    const samples = cases.map(([axis, shape]) => ({
      name: `Flatten ${axis}`,
      fn: (a: Tensor) => t.op("Flatten", [a], { axis }),
      inputs: [x],
      expected: { ...gridOf(x), shape },
    }));
    await checkForward(samples as unknown as ForwardCase[]);
    await checkGradients(samples as unknown as GradCheckCase[]);
  });
});

describe("transpose", () => {
  test("moves the axes", async () => {
    const samples = shapes().chain((shape) =>
      fc
        .tuple(fc.shuffledSubarray([...shape.keys()], { minLength: shape.length }), fc.boolean(), seeds)
        .map(([perm, back, seed]): Sample => {
          const x = randomTensor(shape, seed);
          return {
            name: `transpose [${shape}] by [${perm}]`,
            fn: (a) => t.transpose(a!, back ? perm.map((p) => p - shape.length) : perm),
            inputs: [x],
            expected: build(
              perm.map((p) => shape[p]!),
              (index) =>
                at(
                  gridOf(x),
                  shape.map((_, i) => index[perm.indexOf(i)]!),
                ),
            ),
          };
        }),
    );
    await check(samples, 4);
  });

  test("swaps the last two without an order, and ONNX's reverses all", async () => {
    const x = randomTensor([2, 1, 3], 1);
    await checkForward([
      {
        name: "default",
        fn: (a) => t.transpose(a!),
        inputs: [x],
        expected: build([2, 3, 1], ([i, j, k]) => at(gridOf(x), [i!, k!, j!])),
      },
      {
        name: "ONNX's",
        fn: (a) => t.op("Transpose", [a!]),
        inputs: [x],
        expected: build([3, 1, 2], ([i, j, k]) => at(gridOf(x), [k!, j!, i!])),
      },
    ]);
    const vector = t.input("v", { dtype: "f32", shape: [4] });
    expect(t.transpose(vector)).toBe(vector);
  });
});

describe("concat, stack and split", () => {
  test("join and cut along any axis, pieces of length zero included", async () => {
    const samples = withAxis().chain(({ shape, axis, front }) =>
      fc
        .tuple(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 3 }), seeds)
        .map(([lengths, seed]): Sample => {
          const parts = lengths.map((n, i) => randomTensor(shape.with(front, n), seed + i));
          const joined = build(
            shape.with(
              front,
              lengths.reduce((a, b) => a + b),
            ),
            (index) => {
              let [part, place] = [0, index[front]!];
              while (place >= lengths[part]!) place -= lengths[part++]!;
              return at(gridOf(parts[part]!), index.with(front, place));
            },
          );
          return {
            name: `concat lengths [${lengths}] of [${shape}] along ${axis}`,
            fn: (...x) => {
              const whole = t.concat(x, axis);
              return [whole, ...t.split(whole, lengths, axis)];
            },
            inputs: parts,
            expected: [joined, ...parts.map(gridOf)],
          };
        }),
    );
    await check(samples, 5);
  });

  test("split into equal pieces, some of them unused", async () => {
    const x = randomTensor([2, 6], 3);
    const piece = (k: number): Grid => build([2, 2], ([i, j]) => at(gridOf(x), [i!, j! + 2 * k]));
    const cases: Sample[] = [
      { name: "three pieces", fn: (a) => t.split(a!, 3), inputs: [x], expected: [0, 1, 2].map(piece) },
      { name: "the middle one", fn: (a) => t.split(a!, 3)[1]!, inputs: [x], expected: piece(1) },
      { name: "one piece", fn: (a) => t.split(a!, 1), inputs: [x], expected: gridOf(x) },
      {
        name: "ONNX's count",
        fn: (a) => [...t.applyOp("Split", [a!], { axis: 1, num_outputs: 3 }, 3)],
        inputs: [x],
        expected: [0, 1, 2].map(piece),
      },
    ];
    await checkForward(cases as ForwardCase[]);
    await checkGradients(cases as GradCheckCase[]);
  });

  test("stack lays tensors along a new axis", async () => {
    const [a, b] = [randomTensor([2, 3], 1), randomTensor([2, 3], 2)];
    const cases = [0, 1, 2, -1].map((axis): Sample => {
      const front = axis < 0 ? axis + 3 : axis;
      return {
        name: `stack along ${axis}`,
        fn: (...x) => t.stack(x, axis),
        inputs: [a, b],
        expected: build([2, 3].toSpliced(front, 0, 2), (index) =>
          at(gridOf(index[front] === 0 ? a : b), index.toSpliced(front, 1)),
        ),
      };
    });
    await checkForward(cases as ForwardCase[]);
    await checkGradients(cases as GradCheckCase[]);
  });

  test("a single part is itself", () => {
    const x = t.input("x", { dtype: "f32", shape: [2] });
    expect(t.concat([x])).toBe(x);
    expect(t.split(x, 1)[0]).toBe(x);
  });
});

describe("slice and flip", () => {
  /** numpy's rule for `start:end:step`, by walking. */
  function picked(length: number, start: number, end: number | undefined, step: number): number[] {
    const places: number[] = [];
    const clamp = (v: number): number =>
      Math.max(step > 0 ? 0 : -1, Math.min(step > 0 ? length : length - 1, v < 0 ? v + length : v));
    const stop = end === undefined ? length : clamp(end);
    for (let i = clamp(start); step > 0 ? i < stop : i > stop; i += step) places.push(i);
    return places;
  }

  test("takes what numpy takes: any bounds, any step", async () => {
    const samples = withAxis(1, 5).chain(({ shape, axis, front }) =>
      fc
        .tuple(
          fc.integer({ min: -7, max: 7 }),
          fc.option(fc.integer({ min: -7, max: 7 }), { nil: undefined }),
          fc.constantFrom(1, 2, 3, -1, -2, -3),
          seeds,
        )
        .filter(([, end, step]) => step > 0 || end !== undefined)
        .map(([start, end, step, seed]): Sample => {
          const x = randomTensor(shape, seed);
          const places = picked(shape[front]!, start, end, step);
          return {
            name: `slice [${shape}] axis ${axis} ${start}:${end}:${step}`,
            fn: (a) => t.slice(a!, axis, start, end, step),
            inputs: [x],
            expected: build(shape.with(front, places.length), (index) =>
              at(gridOf(x), index.with(front, places[index[front]!]!)),
            ),
          };
        }),
    );
    await check(samples, 6);
  });

  test("flip reverses an axis", async () => {
    const samples = fc.tuple(withAxis(0), seeds).map(([{ shape, axis, front }, seed]): Sample => {
      const x = randomTensor(shape, seed);
      return {
        name: `flip [${shape}] axis ${axis}`,
        fn: (a) => t.flip(a!, axis),
        inputs: [x],
        expected: build(shape, (index) => at(gridOf(x), index.with(front, shape[front]! - 1 - index[front]!))),
      };
    });
    await check(samples, 7);
  });

  test("ONNX's form cuts several axes at once", async () => {
    const x = randomTensor([4, 5], 1);
    const sample: Sample = {
      name: "two axes",
      fn: (a) => t.op("Slice", [a!, t.ints([1, -1]), t.ints([4, -5]), t.ints([0, 1]), t.ints([2, -2])]),
      inputs: [x],
      expected: build([2, 2], ([i, j]) => at(gridOf(x), [1 + 2 * i!, 4 - 2 * j!])),
    };
    await checkForward([sample as ForwardCase]);
    await checkGradients([sample as GradCheckCase]);
  });

  test("the whole axis is the tensor itself", () => {
    const x = t.input("x", { dtype: "f32", shape: [3, 4] });
    expect(t.slice(x, 1, 0)).toBe(x);
    expect(t.slice(x, 1, 0, 4)).toBe(x);
  });
});

describe("pad", () => {
  /** The entry that lies at `i` of an axis of `n` entries, beyond its ends too; undefined for the filling. */
  const source: Record<PadMode, (i: number, n: number) => number | undefined> = {
    constant: (i, n) => (i >= 0 && i < n ? i : undefined),
    edge: (i, n) => Math.max(0, Math.min(n - 1, i)),
    wrap: (i, n) => ((i % n) + n) % n,
    reflect: (i, n) => {
      let k = i;
      while (k < 0 || k >= n) k = k < 0 ? -k : 2 * (n - 1) - k;
      return k;
    },
  };

  test.each<PadMode>(["constant", "edge", "wrap", "reflect"])("with mode %s", async (mode) => {
    const samples = fc
      .array(fc.integer({ min: mode === "reflect" ? 3 : 2, max: 4 }), { minLength: 1, maxLength: 3 })
      .chain((shape) => {
        const widths = fc.array(fc.integer({ min: mode === "constant" ? -1 : 0, max: 2 }), {
          minLength: shape.length,
          maxLength: shape.length,
        });
        return fc.tuple(widths, widths, seeds).map(([before, behind, seed]): Sample => {
          const x = randomTensor(shape, seed);
          return {
            name: `pad [${shape}] by [${before}] and [${behind}]`,
            fn: (a) => t.pad(a!, before, behind, { mode, value: 7 }),
            inputs: [x],
            expected: build(
              shape.map((n, i) => n + before[i]! + behind[i]!),
              (index) => {
                const from = index.map((k, i) => source[mode](k - before[i]!, shape[i]!));
                return from.includes(undefined) ? 7 : at(gridOf(x), from as number[]);
              },
            ),
          };
        });
      });
    await check(samples, 8);
  });

  test("with ONNX's list of axes", async () => {
    const x = randomTensor([2, 3], 1);
    for (const mode of ["constant", "edge"]) {
      const sample: Sample = {
        name: `axes, ${mode}`,
        fn: (a) => t.op("Pad", [a!, t.ints([1, 0]), null, t.ints([-1])], { mode }),
        inputs: [x],
        expected: build([2, 4], ([i, j]) =>
          j === 0 && mode === "constant" ? 0 : at(gridOf(x), [i!, Math.max(0, j! - 1)]),
        ),
      };
      await checkForward([sample as ForwardCase]);
      await checkGradients([sample as GradCheckCase]);
    }
  });
});

describe("repetition and triangles", () => {
  test("tile repeats along each axis", async () => {
    const samples = shapes().chain((shape) =>
      fc
        .tuple(fc.array(fc.integer({ min: 0, max: 3 }), { minLength: shape.length, maxLength: shape.length }), seeds)
        .map(([repeats, seed]): Sample => {
          const x = randomTensor(shape, seed);
          return {
            name: `tile [${shape}] by [${repeats}]`,
            fn: (a) => t.tile(a!, repeats),
            inputs: [x],
            expected: build(
              shape.map((n, i) => n * repeats[i]!),
              (index) =>
                at(
                  gridOf(x),
                  index.map((k, i) => k % shape[i]!),
                ),
            ),
          };
        }),
    );
    await check(samples, 9);
  });

  test("triangle keeps one side of a diagonal", async () => {
    const samples = fc
      .tuple(shapes(2), fc.boolean(), fc.integer({ min: -3, max: 3 }), seeds)
      .map(([shape, upper, diagonal, seed]): Sample => {
        const x = randomTensor(shape, seed);
        return {
          name: `triangle [${shape}] upper ${upper} diagonal ${diagonal}`,
          fn: (a) => t.triangle(a!, { upper, diagonal }),
          inputs: [x],
          expected: build(shape, (index) => {
            const [row, column] = index.slice(-2) as [number, number];
            const kept = upper ? column - row >= diagonal : column - row <= diagonal;
            return kept ? at(gridOf(x), index) : 0;
          }),
        };
      });
    await check(samples, 10);
  });

  test("second derivatives pass through shapes", async () => {
    const square = (x: Tensor): Tensor => t.mul(x, t.mul(x, x));
    const fns: Record<string, (x: Tensor) => Tensor> = {
      slice: (x) => t.slice(square(x), 1, 2, -4, -2),
      pad: (x) => t.pad(square(x), [1, 0], [0, 2], { mode: "edge" }),
      tile: (x) => t.tile(square(x), [2, 1]),
      split: (x) => t.mul(...(t.split(square(x), 2, 0) as [Tensor, Tensor])),
      concat: (x) => t.concat([square(x), x], 0),
      transpose: (x) => t.matmul(square(x), t.transpose(x)),
    };
    await checkGradients(
      Object.entries(fns).map(([name, fn], i) => ({
        name: `derivative of ${name}`,
        fn: derivative((x) => fn(x!)),
        inputs: [randomTensor([2, 3], i)],
      })),
    );
  });
});

describe("element types", () => {
  test.each<DType>(["i64", "i32", "u8", "i8", "bool", "f16"])("move around as %s", async (dtype) => {
    const x = HostTensor.from([0, 1, 1, 1, 0, 1], { dtype, shape: [2, 3] });
    const results = await run(
      (a) => [
        t.transpose(a!),
        t.concat([a!, a!], 1),
        t.slice(a!, 1, 1),
        t.flip(a!, 1),
        t.pad(a!, [0, 1], [0, 0]),
        t.tile(a!, [1, 2]),
        t.expand(a!, [2, 2, 3]),
        t.split(a!, [1, 2])[1]!,
      ],
      x,
    );
    expect(results.map((r) => r.toArray())).toEqual([
      [0, 1, 1, 0, 1, 1],
      [0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1],
      [1, 1, 0, 1],
      [1, 1, 0, 1, 0, 1],
      [0, 0, 1, 1, 0, 1, 0, 1],
      [0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1],
      [0, 1, 1, 1, 0, 1, 0, 1, 1, 1, 0, 1],
      [1, 1, 0, 1],
    ]);
    expect(results.every((r) => r.dtype === dtype)).toBe(true);
  });

  test("pad fills with a number of the tensor's own type", async () => {
    const [y] = await run((a) => t.pad(a!, [1], [1], { value: -3 }), HostTensor.from([1n]));
    expect(y!.toArray()).toEqual([-3, 1, -3]);
  });

  test("an unused output of a split gets no gradient", async () => {
    const [g] = await run((a) => grad(t.sum(t.split(a!, [1, 2])[0]!), a!), HostTensor.from([1, 2, 3]));
    expect(g!.toArray()).toEqual([1, 0, 0]);
  });
});
