import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { cholesky, choleskyInverse, choleskyOfInverse, solveTriangular } from "../../src/linalg/index.ts";
import { HostTensor } from "../../src/tensor/index.ts";
import {
  belowDiagonal,
  diagonal,
  distance,
  identity,
  multiply,
  random,
  spectra,
  transpose,
  withEigenvalues,
} from "./matrices.ts";

const f64 = (rows: number[][]): HostTensor => HostTensor.from(rows, { dtype: "f64" });

describe("closed forms", () => {
  const a = f64([
    [4, 12, -16],
    [12, 37, -43],
    [-16, -43, 98],
  ]);

  test("factor", async () => {
    const expected = f64([
      [2, 0, 0],
      [6, 1, 0],
      [-8, 5, 3],
    ]);
    expect(distance(await cholesky(a), expected)).toBeLessThan(1e-13);
  });

  test("inverse and its upper factor", async () => {
    const b = f64([
      [4, 2],
      [2, 2],
    ]);
    const inverse = f64([
      [0.5, -0.5],
      [-0.5, 1],
    ]);
    expect(distance(await choleskyInverse(b), inverse)).toBeLessThan(1e-15);
    const upper = f64([
      [Math.SQRT1_2, -Math.SQRT1_2],
      [0, Math.SQRT1_2],
    ]);
    expect(distance(await choleskyOfInverse(b), upper)).toBeLessThan(1e-15);
  });

  test("one number", async () => {
    expect((await cholesky(HostTensor.from([[9]]))).toArray()).toEqual([3]);
    expect((await choleskyInverse(HostTensor.from([[4]]))).toArray()).toEqual([0.25]);
    expect((await choleskyOfInverse(HostTensor.from([[4]]))).toArray()).toEqual([0.5]);
  });

  test("Hilbert's matrix of order 6 has an inverse of whole numbers", async () => {
    const hilbert = f64(Array.from({ length: 6 }, (_, i) => Array.from({ length: 6 }, (_, j) => 1 / (i + j + 1))));
    const inverse = await choleskyInverse(hilbert);
    expect(inverse.at(0)).toBeCloseTo(36, 4);
    expect(inverse.at(1)).toBeCloseTo(-630, 3);
    expect(inverse.at(35)).toBeCloseTo(698544, 1);
  });
});

test.each([63, 64, 65, 150])("%i rows: factor, inverse, factor of the inverse", async (n) => {
  const a = withEigenvalues(
    n,
    Array.from({ length: n }, (_, i) => 1 + i),
  );
  const l = await cholesky(a);
  expect(distance(multiply(l, transpose(l)), a)).toBeLessThan(1e-11);
  const inverse = await choleskyInverse(a);
  expect(distance(multiply(inverse, a), identity(n))).toBeLessThan(1e-11);
  expect(distance(inverse, transpose(inverse))).toBe(0);
  const u = await choleskyOfInverse(a);
  expect(distance(multiply(transpose(u), u), inverse)).toBeLessThan(1e-12);
  expect(belowDiagonal(transpose(l))).toBe(0);
  expect(belowDiagonal(u)).toBe(0);
});

test("single precision comes back in single precision, right to its rounding", async () => {
  const a = withEigenvalues(3, spectra[0]!.values(100)).cast("f32");
  const l = await cholesky(a);
  expect(l.dtype).toBe("f32");
  expect(distance(multiply(l, transpose(l)), a)).toBeLessThan(1e-6);
});

test("small random matrices", async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 9 }), fc.nat(1e6), async (n, seed) => {
      const x = random(seed, n, n + 3);
      const a = multiply(x, transpose(x));
      const l = await cholesky(a);
      expect(distance(multiply(l, transpose(l)), a)).toBeLessThan(1e-10);
    }),
    { numRuns: 15, seed: 1 },
  );
});

describe("refused", () => {
  const cases: [string, HostTensor, RegExp][] = [
    ["an indefinite matrix", diagonal([1, 2, -3, 4]), /not positive definite: pivot 2 is -3/],
    ["zero", HostTensor.zeros("f32", [2, 2]), /pivot 0 is 0/],
    [
      "a singular matrix",
      HostTensor.from([
        [1, 1],
        [1, 1],
      ]),
      /pivot 1 is 0/,
    ],
    [
      "a matrix that is not symmetric",
      HostTensor.from([
        [1, 2],
        [0, 1],
      ]),
      /symmetric matrix, but entry \[1, 0\] is 0 and \[0, 1\] is 2/,
    ],
    [
      "NaN",
      HostTensor.from([
        [1, Number.NaN],
        [0, 1],
      ]),
      /finite numbers, but entry \[0, 1\] of the \[2, 2\] matrix is NaN/,
    ],
    ["a rectangle", HostTensor.zeros("f32", [2, 3]), /square matrix, not \[2, 3\]/],
    ["a vector", HostTensor.zeros("f32", [3]), /one matrix with at least one row and column, not \[3\]/],
    ["nothing", HostTensor.zeros("f32", [0, 0]), /not \[0, 0\]/],
    ["whole numbers", HostTensor.zeros("i32", [1, 1]), /takes f32 or f64, not i32/],
  ];
  test.each(cases)("%s", async (_, a, message) => {
    await expect(cholesky(a)).rejects.toThrow(message);
    await expect(cholesky(a)).rejects.toMatchObject({ name: "LinalgError", code: "LINALG" });
  });

  test("a late pivot, by its number in the matrix whichever end elimination starts from", async () => {
    const values = new Array(130).fill(1);
    values[100] = -1;
    const a = diagonal(values);
    await expect(cholesky(a)).rejects.toThrow("pivot 100 is -1");
    await expect(choleskyOfInverse(a)).rejects.toThrow("pivot 100 is -1");
  });

  test("a singular product of a thin matrix, although rounding leaves its pivots above zero", async () => {
    const x = random(5, 80, 3);
    await expect(cholesky(multiply(x, transpose(x)))).rejects.toThrow(/pivot \d+ is/);
  });
});

describe("solveTriangular", () => {
  test.each([
    { n: 1, k: 1 },
    { n: 7, k: 3 },
    { n: 64, k: 2 },
    { n: 131, k: 5 },
  ])("$n rows, $k right sides", async ({ n, k }) => {
    const t = random(n, n, n);
    for (let i = 0; i < n; i++) t.set(i * n + i, n + i);
    const b = random(n + 1, n, k);
    for (const upper of [false, true])
      for (const transposed of [false, true]) {
        const triangle = HostTensor.zeros("f64", [n, n]);
        for (let i = 0; i < n; i++)
          for (let j = 0; j < n; j++) if (upper ? j >= i : j <= i) triangle.set(i * n + j, t.at(i * n + j));
        const x = await solveTriangular(t, b, { upper, transposed });
        expect(distance(multiply(transposed ? transpose(triangle) : triangle, x), b)).toBeLessThan(1e-12);
      }
  });

  test("one right side is a vector", async () => {
    const x = await solveTriangular(
      f64([
        [2, 0],
        [1, 4],
      ]),
      HostTensor.from([2, 9]),
    );
    expect(x.shape).toEqual([2]);
    expect(x.toArray()).toEqual([1, 2]);
  });

  test("refuses what cannot be solved", async () => {
    const singular = f64([
      [1, 0],
      [1, 0],
    ]);
    await expect(solveTriangular(singular, HostTensor.from([1, 1]))).rejects.toThrow(
      "entry [1, 1] of its diagonal is 0",
    );
    await expect(solveTriangular(identity(2), HostTensor.from([1, 2, 3]))).rejects.toThrow(
      "the triangle has 2 rows, but the right side 3",
    );
  });
});
