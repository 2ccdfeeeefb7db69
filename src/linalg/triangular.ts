import type { HostTensor } from "../tensor/index.ts";
import { LinalgError } from "./errors.ts";
import { block, type Matrix, matrixOf, place, squareOf, tensorOf, transposed, zeros } from "./matrix.ts";
import { type Products, withProducts } from "./products.ts";

/** Below this many rows plain loops are faster than products. */
const SMALL = 64;

export interface TriangularOptions {
  /** Which triangle of the matrix is read: the upper, or (default) the lower one. The other is ignored. */
  readonly upper?: boolean;
  /** Solve with the transpose of that triangle. */
  readonly transposed?: boolean;
}

/**
 * The `X` with `T X = B` for a triangular `t` `[n, n]`; `b` and the result are `[n, k]`, or `[n]` for one right side.
 * Substitution by blocks in double precision; the result has the type of `b` (f32 or f64).
 * @throws LinalgError for a zero on the diagonal, shapes that do not fit, and numbers that are not finite.
 */
export async function solveTriangular(
  t: HostTensor,
  b: HostTensor,
  options: TriangularOptions = {},
): Promise<HostTensor> {
  const given = squareOf("solveTriangular", t);
  const right = matrixOf("solveTriangular", b.shape.length === 1 ? b.reshape([...b.shape, 1]) : b);
  const { rows: n } = given;
  if (right.rows !== n)
    throw new LinalgError(`the triangle has ${n} rows, but the right side ${right.rows}; they must be equal`);
  for (let i = 0; i < n; i++)
    if (given.data[i * n + i] === 0)
      throw new LinalgError(`the triangle is singular: entry [${i}, ${i}] of its diagonal is 0`);
  const triangle = options.transposed ? transposed(given) : given;
  const upper = (options.upper ?? false) !== (options.transposed ?? false);
  const solved = await withProducts((p) => substitute(p, triangle, right, upper));
  return tensorOf(solved, b).reshape(b.shape);
}

/** Solves `T X = B` for the lower or upper triangle of `t`. */
async function substitute(p: Products, t: Matrix, b: Matrix, upper: boolean): Promise<Matrix> {
  const n = t.rows;
  if (n <= SMALL) return substituteSmall(t, b, upper);
  const half = n >> 1;
  const [head, tail] = [block(b, 0, half, 0, b.cols), block(b, half, n, 0, b.cols)];
  const [first, last] = [block(t, 0, half, 0, half), block(t, half, n, half, n)];
  let [x, y] = [head, tail];
  if (upper) {
    y = await substitute(p, last, tail, upper);
    x = await substitute(p, first, await p.minus(head, block(t, 0, half, half, n), y), upper);
  } else {
    x = await substitute(p, first, head, upper);
    y = await substitute(p, last, await p.minus(tail, block(t, half, n, 0, half), x), upper);
  }
  const result = zeros(n, b.cols);
  place(result, x, 0, 0);
  place(result, y, half, 0);
  return result;
}

function substituteSmall(t: Matrix, b: Matrix, upper: boolean): Matrix {
  const [n, { cols }] = [t.rows, b];
  const x = b.data.slice();
  for (let step = 0; step < n; step++) {
    const i = upper ? n - 1 - step : step;
    const [from, to] = upper ? [i + 1, n] : [0, i];
    for (let k = from; k < to; k++) {
      const factor = t.data[i * n + k]!;
      if (factor === 0) continue;
      for (let c = 0; c < cols; c++) x[i * cols + c]! -= factor * x[k * cols + c]!;
    }
    for (let c = 0; c < cols; c++) x[i * cols + c]! /= t.data[i * n + i]!;
  }
  return { rows: n, cols, data: x };
}
