import fc from "fast-check";
import { describe, expect, test } from "vitest";
import * as t from "../../src/tensor/index.ts";
import { type DType, grad, HostTensor, isFloat, type Tensor } from "../../src/tensor/index.ts";
import { checkGradient, checkGradients, derivative, type GradCheckCase } from "../support/gradcheck.ts";
import { checkForward, distinctTensor, type ForwardCase, gridOf, randomTensor, zip } from "../support/oracle.ts";
import { run } from "../support/run.ts";

type Unary = (x: Tensor) => Tensor;
type Binary = (a: Tensor, b: Tensor) => Tensor;

/** The complementary series and continued fraction would be overkill: the Taylor series of erf converges everywhere. */
function erfOf(x: number): number {
  let [term, total] = [x, x];
  for (let n = 1; n < 120; n++) {
    term *= -(x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

function roundHalfEven(x: number): number {
  const down = Math.floor(x);
  const rest = x - down;
  return rest < 0.5 || (rest === 0.5 && down % 2 === 0) ? down : down + 1;
}

interface UnarySample {
  fn: Unary;
  of: (x: number) => number;
  low?: number;
  high?: number;
  /** Kinks lie at whole numbers: keep away from them. */
  kinked?: boolean;
  /** onnxruntime has no `f64` kernel. */
  single?: boolean;
}

const unary: Record<string, UnarySample> = {
  neg: { fn: t.neg, of: (x) => -x },
  abs: { fn: t.abs, of: Math.abs, kinked: true },
  exp: { fn: t.exp, of: Math.exp },
  log: { fn: t.log, of: Math.log, low: 0.2 },
  sqrt: { fn: t.sqrt, of: Math.sqrt, low: 0.2 },
  rsqrt: { fn: t.rsqrt, of: (x) => 1 / Math.sqrt(x), low: 0.2 },
  reciprocal: { fn: t.reciprocal, of: (x) => 1 / x, low: 0.3 },
  erf: { fn: t.erf, of: erfOf, single: true },
  tanh: { fn: t.tanh, of: Math.tanh },
  sigmoid: { fn: t.sigmoid, of: (x) => 1 / (1 + Math.exp(-x)) },
  sin: { fn: t.sin, of: Math.sin },
  cos: { fn: t.cos, of: Math.cos },
  tan: { fn: t.tan, of: Math.tan, low: -1, high: 1, single: true },
  asin: { fn: t.asin, of: Math.asin, low: -0.8, high: 0.8, single: true },
  acos: { fn: t.acos, of: Math.acos, low: -0.8, high: 0.8, single: true },
  atan: { fn: t.atan, of: Math.atan, single: true },
  sinh: { fn: t.sinh, of: Math.sinh, single: true },
  cosh: { fn: t.cosh, of: Math.cosh, single: true },
  relu: { fn: t.relu, of: (x) => Math.max(0, x), kinked: true },
  softplus: { fn: t.softplus, of: (x) => Math.log1p(Math.exp(x)), single: true },
  floor: { fn: t.floor, of: Math.floor, kinked: true },
  ceil: { fn: t.ceil, of: Math.ceil, kinked: true },
  round: { fn: t.round, of: roundHalfEven, kinked: true },
  sign: { fn: t.sign, of: Math.sign, kinked: true },
  identity: { fn: t.identity, of: (x) => x },
  square: { fn: t.square, of: (x) => x * x },
  log1p: { fn: t.log1p, of: Math.log1p, low: -0.8 },
  clip: { fn: (x) => t.clip(x, -1, 1), of: (x) => Math.min(1, Math.max(-1, x)), kinked: true },
  "clip below": { fn: (x) => t.clip(x, 0, null), of: (x) => Math.max(0, x), kinked: true },
  "clip above": { fn: (x) => t.clip(x, null, 0), of: (x) => Math.min(0, x), kinked: true },
  "clip not at all": { fn: (x) => t.clip(x, null, null), of: (x) => x },
};

/** Numbers a fifth away from whole and half numbers, where rounding functions jump. */
function awayFromKinks(x: HostTensor): HostTensor {
  return HostTensor.from(
    Float64Array.from(x.data as Float64Array, (v) => Math.floor(v) + (v - Math.floor(v) < 0.5 ? 0.25 : 0.75)),
    { shape: x.shape },
  );
}

function inputFor(
  { low = -2, high = 2, kinked = false }: UnarySample,
  shape: readonly number[],
  seed: number,
): HostTensor {
  const x = randomTensor(shape, seed, low, high);
  return kinked ? awayFromKinks(x) : x;
}

const shapes = [[], [1], [5], [2, 3], [2, 1, 2], [0], [2, 0]];

describe("functions of one tensor", () => {
  const cases = Object.entries(unary).flatMap(([name, sample], i) =>
    shapes.map((shape, k) => ({ name: `${name} of [${shape}]`, sample, x: inputFor(sample, shape, 10 * i + k) })),
  );
  const forward = cases.map(({ name, sample: { fn, of, single }, x }) => {
    const value = single ? x.cast("f32") : x;
    return { single, name, fn: (a: Tensor) => fn(a), inputs: [value], expected: zip(of, gridOf(value)) };
  });

  test("agree with plain arithmetic", async () => {
    await checkForward(forward.filter((c) => !c.single) as ForwardCase[]);
    await checkForward(forward.filter((c) => c.single) as ForwardCase[], 1e-6);
  });

  test("have the gradients that finite differences give", async () => {
    await checkGradients(
      cases.map(
        ({ name, sample, x }): GradCheckCase => ({
          name,
          fn: (a) => sample.fn(a!),
          inputs: [x],
          dtype: sample.single ? "f32" : "f64",
        }),
      ),
    );
  });

  test("have second derivatives", async () => {
    const smooth = Object.entries(unary).filter(([, { kinked }]) => !kinked);
    await checkGradients(
      smooth.map(
        ([name, sample], i): GradCheckCase => ({
          name: `derivative of ${name}`,
          fn: derivative((a) => sample.fn(a!)),
          inputs: [inputFor(sample, [4], 700 + i)],
          dtype: sample.single ? "f32" : "f64",
        }),
      ),
    );
  });
});

interface BinarySample {
  fn: Binary;
  of: (a: number, b: number) => number;
  low?: number;
  high?: number;
  /** No two numbers that meet may be equal. */
  distinct?: boolean;
}

const binary: Record<string, BinarySample> = {
  add: { fn: t.add, of: (a, b) => a + b },
  sub: { fn: t.sub, of: (a, b) => a - b },
  mul: { fn: t.mul, of: (a, b) => a * b },
  div: { fn: t.div, of: (a, b) => a / b, low: 0.3 },
  pow: { fn: t.pow, of: (a, b) => a ** b, low: 0.3 },
  maximum: { fn: t.maximum, of: Math.max, distinct: true },
  minimum: { fn: t.minimum, of: Math.min, distinct: true },
  mod: { fn: t.mod, of: (a, b) => a % b, low: 0.6, high: 1 },
};
const comparisons: Record<string, BinarySample> = {
  equal: { fn: t.equal, of: (a, b) => Number(a === b) },
  notEqual: { fn: t.notEqual, of: (a, b) => Number(a !== b) },
  greater: { fn: t.greater, of: (a, b) => Number(a > b) },
  greaterEqual: { fn: t.greaterEqual, of: (a, b) => Number(a >= b) },
  less: { fn: t.less, of: (a, b) => Number(a < b) },
  lessEqual: { fn: t.lessEqual, of: (a, b) => Number(a <= b) },
};

/** Two shapes that broadcast: a common one, of which either side may lack leading axes and have 1 anywhere. */
const shapePair = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 }).chain((full) => {
  const side = fc
    .tuple(fc.nat(full.length), fc.array(fc.boolean(), { minLength: full.length, maxLength: full.length }))
    .map(([missing, stretched]) => full.map((n, i) => (stretched[i] ? 1 : n)).slice(missing));
  return fc.tuple(side, side);
});

describe("functions of two tensors", () => {
  /** Every function at once on a pair of shapes. */
  const operands = (
    { low = -2, high = 2, distinct }: BinarySample,
    a: number[],
    b: number[],
    seed: number,
  ): HostTensor[] =>
    distinct
      ? [
          distinctTensor(a, seed, 0.1),
          HostTensor.from(
            (distinctTensor(b, seed + 1, 0.1).data as Float64Array).map((v) => v + 0.037),
            { shape: b },
          ),
        ]
      : [randomTensor(a, seed, low, high), randomTensor(b, seed + 1, low, high)];

  test("agree with plain loops over broadcast shapes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(shapePair, { minLength: 6, maxLength: 6 }), fc.nat(1000), async (pairs, seed) => {
        await checkForward(
          pairs.flatMap(([a, b]) =>
            Object.entries({ ...binary, ...comparisons }).map(([name, sample]): ForwardCase => {
              const inputs = operands(sample, a, b, seed);
              // Some equal operands, so that comparisons have something to find.
              if (name in comparisons)
                for (const x of inputs) for (let i = 0; i < x.size; i++) x.set(i, Math.round(x.at(i)));
              return {
                name: `${name} of [${a}] and [${b}]`,
                fn: (x, y) => sample.fn(x!, y!),
                inputs,
                expected: zip(sample.of, ...inputs.map(gridOf)),
              };
            }),
          ),
        );
      }),
      { seed: 1, numRuns: 8 },
    );
  });

  test("have the gradients that finite differences give", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(shapePair, { minLength: 4, maxLength: 4 }), fc.nat(1000), async (pairs, seed) => {
        await checkGradients(
          pairs.flatMap(
            ([a, b]) =>
              Object.entries(binary).map(([name, sample]) => ({
                name: `${name} of [${a}] and [${b}]`,
                fn: (x: Tensor, y: Tensor) => sample.fn(x, y),
                inputs: operands(sample, a, b, seed),
              })) as GradCheckCase[],
          ),
        );
      }),
      { seed: 2, numRuns: 6 },
    );
  });

  test("have second derivatives", async () => {
    await checkGradients(
      Object.entries(binary).map(([name, sample], i) => ({
        name: `derivative of ${name}`,
        fn: derivative((x, y) => sample.fn(x!, y!)),
        inputs: operands(sample, [2, 1], [3], 40 + i),
      })),
    );
  });

  test("numbers take the other operand's type", () => {
    const x = t.input("x", { dtype: "f64", shape: [2] });
    const n = t.input("n", { dtype: "i64", shape: [2] });
    expect(t.sub(1, x)).toMatchObject({ dtype: "f64", shape: [2] });
    expect(t.mul(n, 2).dtype).toBe("i64");
    expect(t.greater(n, HostTensor.from([1n])).dtype).toBe("bool");
    expect(t.add(1, 2).dtype).toBe("f32");
  });
});

describe("choice", () => {
  test("where broadcasts all three, forward and backward", async () => {
    const triple = fc.array(fc.integer({ min: 1, max: 3 }), { maxLength: 3 }).chain((full) => {
      const side = fc
        .array(fc.boolean(), { minLength: full.length, maxLength: full.length })
        .map((ones) => full.map((n, i) => (ones[i] ? 1 : n)));
      return fc.tuple(side, side, side);
    });
    await fc.assert(
      fc.asyncProperty(fc.array(triple, { minLength: 5, maxLength: 5 }), fc.nat(1000), async (triples, seed) => {
        const cases = triples.map(([c, a, b]) => {
          const inputs = [
            randomTensor(c, seed).cast("i8").cast("bool"),
            randomTensor(a, seed + 1),
            randomTensor(b, seed + 2),
          ];
          return {
            name: `where of [${c}], [${a}], [${b}]`,
            fn: (x: Tensor, y: Tensor, z: Tensor) => t.where(x, y, z),
            inputs,
            expected: zip((x, y, z) => (x ? y! : z!), ...inputs.map(gridOf)),
          };
        });
        await checkForward(cases as unknown as ForwardCase[]);
        await checkGradients(cases as unknown as GradCheckCase[]);
      }),
      { seed: 3, numRuns: 5 },
    );
  });

  test("maximum and minimum share the gradient between tied operands, of any number", async () => {
    const x = HostTensor.from([1, 2, 3], { dtype: "f64" });
    const gradients = await run(
      (a, b, c) => {
        const loss = (y: Tensor): Tensor => t.sum(t.mul(y, HostTensor.from([1, 10, 100], { dtype: "f64" })));
        return [
          ...grad(loss(t.maximum(a!, b!)), [a!, b!]),
          ...grad(loss(t.op("Min", [a!, b!, c!])), [a!, b!, c!]),
          ...grad(loss(t.op("Max", [a!])), [a!]),
        ];
      },
      x,
      HostTensor.from([1, 3, 2], { dtype: "f64" }),
      HostTensor.from([1, 5, 3], { dtype: "f64" }),
    );
    expect(gradients.map((g) => g.toArray().map((v) => Math.round(v * 1e6) / 1e6))).toEqual([
      [0.5, 0, 100],
      [0.5, 10, 0],
      [0.333333, 10, 0],
      [0.333333, 0, 100],
      [0.333333, 0, 0],
      [1, 10, 100],
    ]);
  });

  test("clip passes the gradient at its bounds, and gives bounds that are tensors what was cut", async () => {
    const x = HostTensor.from([-2, -1, 0, 1, 2, 3], { dtype: "f64" });
    const [dx] = await run((a) => grad(t.sum(t.clip(a!, -1, 1)), [a!]), x);
    expect(dx!.toArray()).toEqual([0, 1, 1, 1, 0, 0]);
    await checkGradient(
      (a, low, high) => t.op("Clip", [a!, low!, high!]),
      [
        HostTensor.from([-2, -0.5, 0.5, 2, 3], { dtype: "f64" }),
        HostTensor.from(-1, { dtype: "f64" }),
        HostTensor.from(1, { dtype: "f64" }),
      ],
    );
  });

  test("where of booleans", async () => {
    const [y] = await run(
      (c, a, b) => t.where(c!, a!, b!),
      HostTensor.from([true, true, false, false]),
      HostTensor.from([true, false, true, false]),
      HostTensor.from([false]),
    );
    expect([y!.dtype, y!.toArray()]).toEqual(["bool", [1, 0, 0, 0]]);
  });
});

describe("angles", () => {
  const signs = [-3, -1, 0, 1, 3];
  const points = signs.flatMap((y) => signs.map((x) => [y, x] as const));

  test("atan2 is right in all quadrants and on the axes", async () => {
    const [ys, xs] = [0, 1].map((i) => HostTensor.from(points.map((p) => p[i]!)));
    const [angles] = await run((y, x) => t.atan2(y!, x!), ys!, xs!);
    points.forEach(([y, x], i) => {
      expect(angles!.at(i)).toBeCloseTo(Math.atan2(y, x), 6);
    });
  });

  test("atan2 has gradients everywhere but at the origin, where they are zero", async () => {
    const inputs = [0, 1].map((i) => HostTensor.from(points.map((p) => p[i]!)));
    const [dy, dx] = await run((y, x) => grad(t.sum(t.atan2(y!, x!)), [y!, x!]), ...inputs);
    points.forEach(([y, x], i) => {
      const square = x * x + y * y || 1;
      expect(dy!.at(i)).toBeCloseTo(x / square, 6);
      expect(dx!.at(i)).toBeCloseTo(-y / square, 6);
    });
  });
});

describe("edges", () => {
  const values = async (fn: Unary, ...x: number[]): Promise<number[]> =>
    (await run((a) => fn(a!), HostTensor.from(x, { dtype: "f64" })))[0]!.toArray();
  const slope =
    (fn: Unary): Unary =>
    (x) =>
      grad(t.sum(fn(x)), x);

  test("powers and their gradients at zero", async () => {
    expect(await values((x) => t.pow(x, 0), 0, 2)).toEqual([1, 1]);
    expect(
      await values(
        slope((x) => t.pow(x, 0)),
        0,
        2,
      ),
    ).toEqual([0, 0]);
    expect(
      await values(
        slope((x) => t.pow(x, 1)),
        0,
        -2,
      ),
    ).toEqual([1, 1]);
    expect(
      await values(
        slope((x) => t.pow(x, 2)),
        0,
        -2,
      ),
    ).toEqual([0, -4]);
    expect(await values(slope(slope((x) => t.pow(x, 2))), 0, -2)).toEqual([2, 2]);
    expect(await values(slope(slope((x) => t.pow(x, 3))), 0, -2)).toEqual([0, -12]);
    expect(
      await values(
        slope((x) => t.pow(x, x)),
        0,
      ),
    ).toEqual([0]);
    expect(
      await values(
        slope((x) => t.pow(x, HostTensor.from([0, 3], { dtype: "f64" }))),
        0,
        0,
      ),
    ).toEqual([0, 0]);
    expect(
      await values(
        slope((x) => t.pow(0, x)),
        2,
      ),
    ).toEqual([0]);
    // d/db of (d/da a^b) at b = 0 is 1/a.
    const mixed = await run(
      (a, b) => grad(t.sum(grad(t.sum(t.pow(a!, b!)), a!)), b!),
      HostTensor.from([2, 4], { dtype: "f64" }),
      HostTensor.from([0, 0], { dtype: "f64" }),
    );
    expect(mixed[0]!.toArray()).toEqual([0.5, 0.25]);
  });

  test("sqrt at zero has an infinite slope and rsqrt an infinite value", async () => {
    expect(await values(t.sqrt, 0)).toEqual([0]);
    expect(await values(slope(t.sqrt), 0)).toEqual([Infinity]);
    expect(await values(t.rsqrt, 0)).toEqual([Infinity]);
  });

  test("abs, relu and sign are flat at zero", async () => {
    expect(await values(slope(t.abs), -1, 0, 1)).toEqual([-1, 0, 1]);
    expect(await values(slope(t.relu), -1, 0, 1)).toEqual([0, 0, 1]);
    expect(await values(t.sign, -2, 0, 2)).toEqual([-1, 0, 1]);
  });

  test("round goes to even", async () => {
    expect(await values(t.round, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5)).toEqual([-2, -2, -0, 0, 2, 2]);
  });

  test("saturating functions stay finite", async () => {
    expect(await values(t.sigmoid, -1000, 1000)).toEqual([0, 1]);
    expect(await values(slope(t.sigmoid), -1000, 1000)).toEqual([0, 0]);
    expect(await values(t.tanh, -1000, 1000)).toEqual([-1, 1]);
    const [soft] = await run((x) => t.softplus(x!), HostTensor.from([-1000, 1000]));
    expect(soft!.toArray()).toEqual([0, 1000]);
  });

  test("log1p keeps the digits of small numbers", async () => {
    const small = [1e-3, 1e-8, 1e-12, -1e-10, 0];
    const got = await values(t.log1p, ...small);
    small.forEach((x, i) => {
      expect(Math.abs(got[i]! - Math.log1p(x))).toBeLessThanOrEqual(1e-15 * Math.abs(x));
    });
    expect(await values(slope(t.log1p), 0, 1)).toEqual([1, 0.5]);
  });

  test("NaN and infinities are found", async () => {
    const x = HostTensor.from([NaN, Infinity, -Infinity, 1]);
    const [nan, inf] = await run((a) => [t.isNaN(a!), t.isInf(a!)], x);
    expect([nan!.toArray(), inf!.toArray()]).toEqual([
      [1, 0, 0, 0],
      [0, 1, 1, 0],
    ]);
  });

  test("the gradient of a cast comes back in the type of its input", async () => {
    const [y, g] = await run(
      (x) => {
        const wide = t.cast(x!, "f64");
        return [wide, grad(t.sum(t.mul(wide, wide)), x!)];
      },
      HostTensor.from([1.5, -2]),
    );
    expect([y!.dtype, g!.dtype, g!.toArray()]).toEqual(["f64", "f32", [3, -4]]);
    // Whole numbers stop the gradient.
    const [none] = await run((x) => grad(t.sum(t.cast(t.cast(x!, "i64"), "f32")), x!), HostTensor.from([1.5, -2]));
    expect(none!.toArray()).toEqual([0, 0]);
  });
});

describe("element types", () => {
  const SIGNED: DType[] = ["i8", "i16", "i32", "i64"];
  const UNSIGNED: DType[] = ["u8", "u16", "u32", "u64"];

  test.each([...SIGNED, ...UNSIGNED])("arithmetic and comparison of %s", async (dtype) => {
    const [a, b] = [HostTensor.from([7, 3, 9], { dtype }), HostTensor.from([2, 3, 4], { dtype })];
    const results = await run(
      (x, y) => [
        t.add(x!, y!),
        t.sub(x!, t.op("Mod", [y!, x!])),
        t.mul(x!, y!),
        t.div(x!, y!),
        t.mod(x!, y!),
        t.greater(x!, y!),
        t.equal(x!, 3),
      ],
      a,
      b,
    );
    expect(results.map((r) => r.toArray())).toEqual([
      [9, 6, 13],
      [5, 3, 5],
      [14, 9, 36],
      [3, 1, 2],
      [1, 0, 1],
      [1, 0, 1],
      [0, 1, 0],
    ]);
    expect(results.map((r) => r.dtype)).toEqual([dtype, dtype, dtype, dtype, dtype, "bool", "bool"]);
  });

  test.each(SIGNED)("remainders of %s follow the divisor, abs and neg work", async (dtype) => {
    const [a, b] = [HostTensor.from([-7, 7, -7], { dtype }), HostTensor.from([2, -2, -2], { dtype })];
    const results = await run((x, y) => [t.mod(x!, y!), t.abs(x!), t.neg(x!)], a, b);
    expect(results.map((r) => r.toArray())).toEqual([
      [1, -1, -1],
      [7, 7, 7],
      [7, -7, 7],
    ]);
  });

  test.each([...SIGNED, ...UNSIGNED])("bits of %s", async (dtype) => {
    const [a, b] = [HostTensor.from([12, 5], { dtype }), HostTensor.from([10, 3], { dtype })];
    const results = await run(
      (x, y) => [t.bitwiseAnd(x!, y!), t.bitwiseOr(x!, y!), t.bitwiseXor(x!, y!), t.bitwiseNot(t.bitwiseNot(x!))],
      a,
      b,
    );
    expect(results.map((r) => r.toArray())).toEqual([
      [8, 1],
      [14, 7],
      [6, 6],
      [12, 5],
    ]);
  });

  test.each<DType>(["u8", "u32", "u64"])("shifts of %s", async (dtype) => {
    const results = await run((x) => [t.shiftLeft(x!, 2), t.shiftRight(x!, 1)], HostTensor.from([12, 5], { dtype }));
    expect(results.map((r) => r.toArray())).toEqual([
      [48, 20],
      [6, 2],
    ]);
  });

  test("booleans", async () => {
    const results = await run(
      (x, y) => [t.and(x!, y!), t.or(x!, y!), t.xor(x!, y!), t.not(x!), t.equal(x!, y!), t.cast(x!, "u8")],
      HostTensor.from([false, false, true, true]),
      HostTensor.from([false, true, false, true]),
    );
    expect(results.map((r) => r.toArray())).toEqual([
      [0, 0, 0, 1],
      [0, 1, 1, 1],
      [0, 1, 1, 0],
      [1, 1, 0, 0],
      [1, 0, 0, 1],
      [0, 0, 1, 1],
    ]);
  });

  test("casts between all types that cross a program's border", async () => {
    const types: DType[] = ["f32", "f64", "f16", "bool", ...SIGNED, ...UNSIGNED];
    const source = HostTensor.from([0, 1, 2, 100], { dtype: "f32" });
    for (const from of types) {
      const x = source.cast(from);
      const results = await run((a) => types.map((to) => t.cast(a!, to)), x);
      results.forEach((r, i) => {
        expect([from, r.dtype, r.toArray()]).toEqual([from, types[i], x.cast(types[i]!).toArray()]);
      });
    }
    expect(types.filter(isFloat)).toHaveLength(3);
  });
});
