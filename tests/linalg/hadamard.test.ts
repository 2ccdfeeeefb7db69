import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { fwht, hadamard } from "../../src/linalg/index.ts";
import { distance, multiply, random, skew, transpose } from "./matrices.ts";

const orders = [1, 2, 4, 8, 12, 16, 20, 24, 40, 48, 64, 80, 96, 128];

describe("hadamard", () => {
  test.each(orders)("order %i is orthogonal with entries of one magnitude", (n) => {
    const h = hadamard(n);
    expect(skew(h)).toBeLessThan(1e-6);
    expect(new Set(h.toArray().map(Math.abs))).toEqual(new Set([Math.fround(1 / Math.sqrt(n))]));
  });

  test("order 4 is Walsh's, in natural order", () => {
    const signs = hadamard(4).toArray().map(Math.sign);
    expect(signs).toEqual([1, 1, 1, 1, 1, -1, 1, -1, 1, 1, -1, -1, 1, -1, -1, 1]);
  });

  test.each([768, 2560])("order %i, which hidden sizes have: two rows are orthogonal", (n) => {
    const h = hadamard(n);
    const product = (i: number, j: number): number => {
      let sum = 0;
      for (let k = 0; k < n; k++) sum += h.at(i * n + k) * h.at(j * n + k);
      return sum;
    };
    for (const [i, j] of [
      [0, 1],
      [5, 19],
      [20, 41],
      [n - 1, n - 2],
    ] as const)
      expect(product(i, j)).toBeCloseTo(0, 5);
    expect(product(n - 1, n - 1)).toBeCloseTo(1, 5);
  });

  test("refuses other orders and names the nearest", () => {
    expect(() => hadamard(100)).toThrow(
      "hadamard has orders 2^k, 12 · 2^k and 20 · 2^k, not 100; the nearest are 96 and 128",
    );
    expect(() => hadamard(0)).toThrow("not 0; the nearest are 1");
    expect(() => hadamard(2.5)).toThrow("the nearest are 2 and 4");
    expect(() => hadamard(Number.NaN)).toThrow("not NaN");
  });
});

describe("fwht", () => {
  test("multiplies every row with the matrix", () => {
    fc.assert(
      fc.property(fc.constantFrom(...orders), fc.integer({ min: 1, max: 4 }), fc.nat(1e6), (n, rows, seed) => {
        const x = random(seed, rows, n);
        const expected = multiply(x, transpose(hadamard(n)));
        const turned = x.clone();
        fwht(turned.data as Float64Array, n);
        expect(distance(turned, expected)).toBeLessThan(1e-5);
      }),
      { numRuns: 40, seed: 3 },
    );
  });

  test("is its own inverse for powers of two, in single precision too", () => {
    const x = random(7, 1, 256).cast("f32");
    const turned = x.clone();
    fwht(turned.data as Float32Array);
    fwht(turned.data as Float32Array);
    expect(distance(turned, x)).toBeLessThan(1e-5);
  });

  test("refuses rows that do not fit", () => {
    expect(() => fwht(new Float32Array(10), 4)).toThrow("fwht got 10 numbers, which are no whole rows of 4");
    expect(() => fwht(new Float32Array(7))).toThrow("not 7; the nearest are 4 and 8");
  });
});
