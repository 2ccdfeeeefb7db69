import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  addDims,
  type Bindings,
  broadcastShapes,
  type Dim,
  divideDims,
  evaluateDim,
  floorDivideDims,
  isStatic,
  multiplyDims,
  normalizeDim,
  sizeOf,
  subtractDims,
} from "../../src/tensor/index.ts";

const NAMES = ["batch", "seq", "past", "heads"];

/** A dimension together with a function that computes it in ordinary arithmetic. */
interface Sample {
  dim: Dim;
  value: (bindings: Bindings) => number;
}

const leaf = fc.oneof(
  fc.integer({ min: 0, max: 9 }).map((n): Sample => ({ dim: n, value: () => n })),
  fc.constantFrom(...NAMES).map((name): Sample => ({ dim: name, value: (b) => b.get(name)! })),
);

const sample = fc.letrec<{ dim: Sample }>((tie) => ({
  dim: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    leaf,
    fc
      .tuple(tie("dim"), tie("dim"))
      .map(([a, b]): Sample => ({ dim: addDims(a.dim, b.dim), value: (x) => a.value(x) + b.value(x) })),
    fc
      .tuple(tie("dim"), tie("dim"))
      .map(([a, b]): Sample => ({ dim: subtractDims(a.dim, b.dim), value: (x) => a.value(x) - b.value(x) })),
    fc
      .tuple(tie("dim"), tie("dim"))
      .map(([a, b]): Sample => ({ dim: multiplyDims(a.dim, b.dim), value: (x) => a.value(x) * b.value(x) })),
    fc
      .tuple(tie("dim"), fc.integer({ min: 1, max: 5 }))
      .map(([a, n]): Sample => ({ dim: floorDivideDims(a.dim, n), value: (x) => Math.floor(a.value(x) / n) })),
  ),
})).dim;

const bindings = fc
  .array(fc.integer({ min: 1, max: 12 }), { minLength: NAMES.length, maxLength: NAMES.length })
  .map((values): Bindings => new Map(NAMES.map((name, i) => [name, values[i]!])));

describe("dimensions", () => {
  test("sums, differences, products and quotients agree with arithmetic on numbers", () => {
    fc.assert(
      fc.property(sample, bindings, ({ dim, value }, b) => {
        expect(evaluateDim(dim, b)! + 0).toBe(value(b) + 0);
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  test("equal polynomials are equal values, however they came about", () => {
    fc.assert(
      fc.property(leaf, leaf, leaf, (a, b, c) => {
        expect(addDims(a.dim, addDims(b.dim, c.dim))).toBe(addDims(addDims(c.dim, b.dim), a.dim));
        expect(multiplyDims(a.dim, addDims(b.dim, c.dim))).toBe(
          addDims(multiplyDims(c.dim, a.dim), multiplyDims(a.dim, b.dim)),
        );
        expect(subtractDims(addDims(a.dim, b.dim), b.dim)).toBe(a.dim);
      }),
      { seed: 2, numRuns: 300 },
    );
  });

  test("the canonical form is its own canonical form", () => {
    fc.assert(
      fc.property(sample, ({ dim }) => {
        if (typeof dim === "string") expect(normalizeDim(dim)).toBe(dim);
      }),
      { seed: 3, numRuns: 300 },
    );
  });

  test("division undoes multiplication by a product of names, and otherwise is exact or refused", () => {
    const monomial = fc
      .tuple(fc.integer({ min: 1, max: 4 }), fc.array(fc.constantFrom(...NAMES), { maxLength: 2 }))
      .map(([n, names]) => names.reduce<Dim>(multiplyDims, n));
    fc.assert(
      fc.property(sample, monomial, ({ dim }, by) => {
        expect(divideDims(multiplyDims(dim, by), by)).toBe(dim);
      }),
      { seed: 4, numRuns: 300 },
    );
    fc.assert(
      fc.property(sample, monomial, bindings, ({ dim, value }, by, b) => {
        const quotient = divideDims(dim, by);
        if (quotient !== undefined) expect(evaluateDim(quotient, b)! * evaluateDim(by, b)!).toBe(value(b) + 0);
      }),
      { seed: 5, numRuns: 300 },
    );
  });

  test.each<[Dim, Dim]>([
    ["seq+past", "seq+past"],
    ["past+seq", "seq+past"],
    [" seq * 2 + 3 ", "2*seq+3"],
    ["seq*batch", "batch*seq"],
    ["seq+seq", "2*seq"],
    ["2*3", 6],
    ["seq+-1*seq", 0],
    ["floor(h/2)+1", "floor(h/2)+1"],
    [7, 7],
  ])("%s is written %s", (given, canonical) => {
    expect(normalizeDim(given)).toBe(canonical);
  });

  test.each<[Dim, string]>([
    [-1, "not -1"],
    [1.5, "not 1.5"],
    ["-3", "not -3"],
    ["seq+", '"seq+" is not a dimension'],
    ["2**seq", '"2**seq" is not a dimension'],
  ])("%s is refused", (given, message) => {
    expect(() => normalizeDim(given)).toThrow(message);
  });

  test("zero divides nothing", () => {
    expect(divideDims(0, 0)).toBeUndefined();
    expect(divideDims(4, 0)).toBeUndefined();
    expect(divideDims("seq", 0)).toBeUndefined();
    expect(divideDims(0, 3)).toBe(0);
  });

  test("an unbound name has no value", () => {
    expect(evaluateDim("2*seq+1", new Map([["batch", 2]]))).toBeUndefined();
    expect(evaluateDim("floor(seq+1/2)", new Map())).toBeUndefined();
    expect(evaluateDim("floor(seq+1/2)", new Map([["seq", 4]]))).toBe(2);
  });

  test("sizes multiply, and only numbers are static", () => {
    expect(sizeOf(["batch", 3, "seq"])).toBe("3*batch*seq");
    expect(sizeOf([])).toBe(1);
    expect(isStatic([1, 2])).toBe(true);
    expect(isStatic([1, "seq"])).toBe(false);
  });
});

describe("broadcasting", () => {
  /** Two axes fit where they are equal or one of them is 1. */
  function bruteForce(a: readonly Dim[], b: readonly Dim[]): Dim[] | undefined {
    const result: Dim[] = [];
    for (let i = 1; i <= Math.max(a.length, b.length); i++) {
      const x = i <= a.length ? a[a.length - i]! : 1;
      const y = i <= b.length ? b[b.length - i]! : 1;
      if (x !== y && x !== 1 && y !== 1) return undefined;
      result.unshift(x === 1 ? y : x);
    }
    return result;
  }
  const shape = fc.array(fc.constantFrom<Dim>(0, 1, 1, 2, 3, "seq", "batch"), { maxLength: 4 });

  test("of two shapes agrees with brute force", () => {
    fc.assert(
      fc.property(shape, shape, (a, b) => {
        expect(broadcastShapes(a, b)).toEqual(bruteForce(a, b));
      }),
      { seed: 6, numRuns: 1000 },
    );
  });

  test("of three shapes is that of pairs", () => {
    fc.assert(
      fc.property(shape, shape, shape, (a, b, c) => {
        const ab = bruteForce(a, b);
        expect(broadcastShapes(a, b, c)).toEqual(ab && bruteForce(ab, c));
      }),
      { seed: 7, numRuns: 1000 },
    );
  });
});
