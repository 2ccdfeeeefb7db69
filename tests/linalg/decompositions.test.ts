import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { eigh, LinalgError, qr, randomOrthogonal, svd, truncatedSvd } from "../../src/linalg/index.ts";
import { HostTensor, Rng } from "../../src/tensor/index.ts";
import {
  belowDiagonal,
  diagonal,
  distance,
  identity,
  multiply,
  random,
  reflections,
  skew,
  spectra,
  transpose,
  withEigenvalues,
} from "./matrices.ts";

const f64 = (rows: number[][]): HostTensor => HostTensor.from(rows, { dtype: "f64" });

/** The largest magnitude, or 1 for zero: what errors are relative to. */
const size = (a: HostTensor): number => distance(a, HostTensor.zeros("f64", a.shape)) || 1;

const rebuilt = ({ u, s, vt }: { u: HostTensor; s: HostTensor; vt: HostTensor }): HostTensor =>
  multiply(multiply(u, diagonal(s.toArray())), vt);

/** `[m, n]` with these singular values. */
function withSingularValues(seed: number, m: number, n: number, values: readonly number[]): HostTensor {
  const middle = HostTensor.zeros("f64", [m, n]);
  values.forEach((value, i) => {
    middle.set(i * n + i, value);
  });
  return multiply(multiply(reflections(seed, m), middle), reflections(seed + 1, n));
}

const shapes = [
  [1, 1],
  [1, 7],
  [7, 1],
  [16, 16],
  [17, 33],
  [90, 70],
  [50, 120],
] as const;

describe("qr", () => {
  test("closed form", async () => {
    const { q, r } = await qr(
      f64([
        [3, 1],
        [4, 2],
      ]),
    );
    expect(
      distance(
        q,
        f64([
          [0.6, -0.8],
          [0.8, 0.6],
        ]),
      ),
    ).toBeLessThan(1e-15);
    expect(
      distance(
        r,
        f64([
          [5, 2.2],
          [0, 0.4],
        ]),
      ),
    ).toBeLessThan(1e-15);
  });

  test.each(shapes)("[%i, %i]", async (m, n) => {
    const a = random(m * n, m, n);
    const { q, r } = await qr(a);
    const rank = Math.min(m, n);
    expect([q.shape, r.shape]).toEqual([
      [m, rank],
      [rank, n],
    ]);
    expect(distance(multiply(q, r), a)).toBeLessThan(1e-12);
    expect(skew(q)).toBeLessThan(1e-13);
    for (let i = 0; i < rank; i++) expect(r.at(i * n + i)).toBeGreaterThan(0);
    expect(belowDiagonal(r)).toBe(0);
  });

  test.each(spectra)("$name", async ({ values }) => {
    const a = withSingularValues(4, 60, 40, values(40));
    const { q, r } = await qr(a);
    expect(distance(multiply(q, r), a) / size(a)).toBeLessThan(1e-13);
    expect(skew(q)).toBeLessThan(1e-13);
  });
});

describe("eigh", () => {
  test("closed forms", async () => {
    const two = await eigh(
      f64([
        [2, 1],
        [1, 2],
      ]),
    );
    expect(distance(two.values, f64([[1, 3]]).reshape([2]))).toBeLessThan(1e-15);
    const three = await eigh(
      f64([
        [2, -1, 0],
        [-1, 2, -1],
        [0, -1, 2],
      ]),
    );
    expect(distance(three.values, HostTensor.from([2 - Math.SQRT2, 2, 2 + Math.SQRT2], { dtype: "f64" }))).toBeLessThan(
      1e-14,
    );
    expect((await eigh(HostTensor.from([[-5]]))).values.toArray()).toEqual([-5]);
  });

  test("a chain of 200: eigenvalues 2 - 2 cos(k π / 201)", async () => {
    const n = 200;
    const a = diagonal(new Array(n).fill(2));
    for (let i = 0; i + 1 < n; i++) {
      a.set(i * n + i + 1, -1);
      a.set((i + 1) * n + i, -1);
    }
    const { values, vectors } = await eigh(a);
    const expected = Float64Array.from({ length: n }, (_, k) => 2 - 2 * Math.cos(((k + 1) * Math.PI) / (n + 1)));
    expect(distance(values, HostTensor.from(expected))).toBeLessThan(1e-13);
    expect(skew(vectors)).toBeLessThan(1e-13);
  });

  test("Wilkinson's matrix of order 41: pairs closer than rounding", async () => {
    const n = 41;
    const a = diagonal(Array.from({ length: n }, (_, i) => Math.abs(i - 20)));
    for (let i = 0; i + 1 < n; i++) {
      a.set(i * n + i + 1, 1);
      a.set((i + 1) * n + i, 1);
    }
    const { values, vectors } = await eigh(a);
    expect(values.at(n - 1) - values.at(n - 2)).toBeLessThan(1e-13);
    expect(skew(vectors)).toBeLessThan(1e-13);
    expect(distance(multiply(a, vectors), multiply(vectors, diagonal(values.toArray())))).toBeLessThan(1e-12);
  });

  test.each(
    spectra.flatMap((s) => [
      { ...s, n: 30 },
      { ...s, n: 140 },
    ]),
  )("$name, $n rows", async ({ values, n }) => {
    const wanted = values(n).map((x, i) => (i % 3 === 1 ? -x : x));
    const a = withEigenvalues(n, wanted);
    const found = await eigh(a);
    const ascending = HostTensor.from(Float64Array.from(wanted).sort());
    const unit = size(ascending);
    expect(distance(found.values, ascending) / unit).toBeLessThan(1e-12);
    expect(skew(found.vectors)).toBeLessThan(1e-12);
    const back = multiply(multiply(found.vectors, diagonal(found.values.toArray())), transpose(found.vectors));
    expect(distance(back, a) / unit).toBeLessThan(1e-12);
  });

  test("single precision, right to its rounding", async () => {
    const a = withEigenvalues(8, spectra[3]!.values(100)).cast("f32");
    const { values, vectors } = await eigh(a);
    expect([values.dtype, vectors.dtype]).toEqual(["f32", "f32"]);
    expect(skew(vectors)).toBeLessThan(1e-5);
    expect(distance(multiply(multiply(vectors, diagonal(values.toArray())), transpose(vectors)), a)).toBeLessThan(1e-6);
  });

  test("small random matrices", async () => {
    const entries = fc.integer({ min: -3, max: 3 });
    const matrices = fc
      .integer({ min: 1, max: 8 })
      .chain((n) => fc.array(entries, { minLength: n * n, maxLength: n * n }));
    await fc.assert(
      fc.asyncProperty(matrices, async (numbers) => {
        const n = Math.sqrt(numbers.length);
        const half = HostTensor.from(Float64Array.from(numbers), { shape: [n, n] });
        const a = HostTensor.from(
          Float64Array.from(numbers, (x, i) => x + transpose(half).at(i)),
          { shape: [n, n] },
        );
        const { values, vectors } = await eigh(a);
        expect(skew(vectors)).toBeLessThan(1e-13);
        expect(distance(multiply(a, vectors), multiply(vectors, diagonal(values.toArray())))).toBeLessThan(1e-12);
        expect(values.toArray()).toEqual([...values.toArray()].sort((x, y) => x - y));
      }),
      { numRuns: 15, seed: 2 },
    );
  });

  test("refuses what is not symmetric or not finite", async () => {
    await expect(
      eigh(
        HostTensor.from([
          [1, 2],
          [3, 1],
        ]),
      ),
    ).rejects.toThrow("eigh takes a symmetric matrix, but entry [1, 0] is 3 and [0, 1] is 2");
    await expect(eigh(HostTensor.from([[Infinity]]))).rejects.toThrow("entry [0, 0] of the [1, 1] matrix is Infinity");
    await expect(eigh(HostTensor.zeros("f32", [2, 3]))).rejects.toThrow(LinalgError);
  });
});

describe("svd", () => {
  test("closed forms", async () => {
    const { s } = await svd(
      f64([
        [3, 0],
        [4, 5],
      ]),
    );
    expect(distance(s, HostTensor.from([Math.sqrt(45), Math.sqrt(5)], { dtype: "f64" }))).toBeLessThan(1e-14);
    expect((await svd(HostTensor.from([[3, -4]]))).s.toArray()).toEqual([5]);
    const zero = await svd(HostTensor.zeros("f32", [3, 2]));
    expect(zero.s.toArray()).toEqual([0, 0]);
    expect(skew(zero.u)).toBe(0);
  });

  test.each(shapes)("[%i, %i]", async (m, n) => {
    const a = random(m + n, m, n);
    const found = await svd(a);
    const rank = Math.min(m, n);
    expect([found.u.shape, found.s.shape, found.vt.shape]).toEqual([[m, rank], [rank], [rank, n]]);
    expect(distance(rebuilt(found), a)).toBeLessThan(1e-12);
    expect(skew(found.u)).toBeLessThan(1e-12);
    expect(skew(transpose(found.vt))).toBeLessThan(1e-12);
  });

  test.each(spectra)("$name", async ({ values }) => {
    const wanted = values(60);
    const a = withSingularValues(9, 80, 60, wanted);
    const found = await svd(a);
    const unit = wanted[0]! || 1;
    expect(distance(found.s, HostTensor.from(Float64Array.from(wanted))) / unit).toBeLessThan(5e-8);
    expect(distance(rebuilt(found), a) / unit).toBeLessThan(5e-8);
    expect(skew(found.u)).toBeLessThan(1e-12);
    expect(skew(transpose(found.vt))).toBeLessThan(1e-12);
    expect(found.s.toArray()).toEqual([...found.s.toArray()].sort((x, y) => y - x));
  });

  test("refuses numbers that are not finite", async () => {
    await expect(svd(HostTensor.from([[1, Number.NaN]]))).rejects.toThrow("svd takes finite numbers, but entry [0, 1]");
  });
});

describe("truncatedSvd", () => {
  test("finds a matrix of low rank exactly", async () => {
    const a = multiply(random(1, 150, 6), random(2, 6, 120));
    const found = await truncatedSvd(a, 6, new Rng(3));
    expect([found.u.shape, found.s.shape, found.vt.shape]).toEqual([[150, 6], [6], [6, 120]]);
    expect(distance(rebuilt(found), a) / size(a)).toBeLessThan(1e-7);
    expect(skew(found.u)).toBeLessThan(1e-12);
    expect(skew(transpose(found.vt))).toBeLessThan(1e-12);
  });

  test.each([
    { name: "a slowly falling spectrum", value: (i: number) => 1 / (1 + i) },
    { name: "noise", value: (i: number) => 1 - i / 300 },
  ])("is within a percent of the best approximation: $name", async ({ value }) => {
    const values = Array.from({ length: 120 }, (_, i) => value(i));
    const a = withSingularValues(5, 150, 120, values);
    const found = await truncatedSvd(a, 10, new Rng(6));
    const norm = (x: HostTensor): number => Math.hypot(...x.toArray());
    const near = rebuilt(found);
    for (let i = 0; i < near.size; i++) near.set(i, near.at(i) - a.at(i));
    expect(norm(near) / Math.hypot(...values.slice(10))).toBeLessThan(1.01);
  });

  test("the same seed gives the same numbers; zero stays zero; a large rank is cut from the whole", async () => {
    const a = random(3, 70, 60);
    const [one, two] = [await truncatedSvd(a, 5, new Rng(1)), await truncatedSvd(a, 5, new Rng(1))];
    expect(one.u.toArray()).toEqual(two.u.toArray());
    expect((await truncatedSvd(HostTensor.zeros("f32", [60, 70]), 2, new Rng(1))).s.toArray()).toEqual([0, 0]);
    expect(distance((await truncatedSvd(a, 60, new Rng(1))).s, (await svd(a)).s)).toBe(0);
  });

  test("refuses a rank that the matrix does not have", async () => {
    await expect(truncatedSvd(HostTensor.zeros("f32", [3, 2]), 3, new Rng(1))).rejects.toThrow(
      "truncatedSvd takes a rank from 1 to 2 for a [3, 2] matrix, not 3",
    );
    await expect(truncatedSvd(HostTensor.zeros("f32", [3, 2]), 0, new Rng(1))).rejects.toThrow("not 0");
  });
});

describe("randomOrthogonal", () => {
  test("is orthogonal, and the same for the same seed", async () => {
    const q = await randomOrthogonal(new Rng(4), 75);
    expect(q.dtype).toBe("f32");
    expect(skew(q)).toBeLessThan(1e-6);
    expect(distance(await randomOrthogonal(new Rng(4), 75), q)).toBe(0);
    expect(distance(multiply(q, transpose(q)), identity(75))).toBeLessThan(1e-6);
  });

  test("has both signs everywhere, as Haar measure asks", async () => {
    const rng = new Rng(5);
    let sum = 0;
    for (let i = 0; i < 40; i++) sum += Math.sign((await randomOrthogonal(rng, 2)).at(0));
    expect(Math.abs(sum)).toBeLessThan(25);
  });

  test("refuses no rows", async () => {
    await expect(randomOrthogonal(new Rng(1), 0)).rejects.toThrow("a whole number of rows from 1, not 0");
  });
});
