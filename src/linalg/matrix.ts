import { HostTensor } from "../tensor/index.ts";
import { LinalgError } from "./errors.ts";

/** A dense matrix in double precision, row-major: what all decompositions compute with. */
export interface Matrix {
  readonly rows: number;
  readonly cols: number;
  readonly data: Float64Array;
}

export function zeros(rows: number, cols: number): Matrix {
  return { rows, cols, data: new Float64Array(rows * cols) };
}

export function identity(n: number): Matrix {
  const result = zeros(n, n);
  for (let i = 0; i < n; i++) result.data[i * n + i] = 1;
  return result;
}

export function transposed({ rows, cols, data }: Matrix): Matrix {
  const result = zeros(cols, rows);
  // Square tiles, because a column of a large matrix has one entry per page.
  const tile = 32;
  for (let i0 = 0; i0 < rows; i0 += tile)
    for (let j0 = 0; j0 < cols; j0 += tile)
      for (let i = i0; i < Math.min(i0 + tile, rows); i++)
        for (let j = j0; j < Math.min(j0 + tile, cols); j++) result.data[j * rows + i] = data[i * cols + j]!;
  return result;
}

/** The magnitude of the largest entry. */
export function largest({ data }: Matrix): number {
  let result = 0;
  for (let i = 0; i < data.length; i++) result = Math.max(result, Math.abs(data[i]!));
  return result;
}

export function scaled(m: Matrix, factor: number): Matrix {
  return { ...m, data: m.data.map((x) => x * factor) };
}

/** Copies what lies below the diagonal over what lies above it, in place: products are symmetric up to rounding. */
export function mirrored(m: Matrix): Matrix {
  const n = m.rows;
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) m.data[j * n + i] = m.data[i * n + j]!;
  return m;
}

/** A copy of rows `top` to below `bottom` and columns `left` to below `right`. */
export function block(m: Matrix, top: number, bottom: number, left: number, right: number): Matrix {
  const result = zeros(bottom - top, right - left);
  for (let i = top; i < bottom; i++)
    result.data.set(m.data.subarray(i * m.cols + left, i * m.cols + right), (i - top) * result.cols);
  return result;
}

/** Writes `part` over the entries of `m` from row `top` and column `left` on. */
export function place(m: Matrix, part: Matrix, top: number, left: number): void {
  for (let i = 0; i < part.rows; i++)
    m.data.set(part.data.subarray(i * part.cols, (i + 1) * part.cols), (top + i) * m.cols + left);
}

/** The argument of `operation` as a matrix. @throws LinalgError unless it is a finite f32 or f64 matrix with entries. */
export function matrixOf(operation: string, a: HostTensor): Matrix {
  const shape = `[${a.shape.join(", ")}]`;
  if (a.dtype !== "f32" && a.dtype !== "f64")
    throw new LinalgError(`${operation} takes f32 or f64, not ${a.dtype}; cast the matrix first`);
  const [rows, cols] = a.shape as [number, number];
  if (a.shape.length !== 2 || rows === 0 || cols === 0)
    throw new LinalgError(`${operation} takes one matrix with at least one row and column, not ${shape}`);
  const data = Float64Array.from(a.data as Float32Array);
  const bad = data.findIndex((x) => !Number.isFinite(x));
  if (bad >= 0)
    throw new LinalgError(
      `${operation} takes finite numbers, but entry [${Math.floor(bad / cols)}, ${bad % cols}] of the ${shape} matrix is ${data[bad]}`,
    );
  return { rows, cols, data };
}

/** The argument of `operation` as a square matrix. @throws LinalgError */
export function squareOf(operation: string, a: HostTensor): Matrix {
  const m = matrixOf(operation, a);
  if (m.rows !== m.cols) throw new LinalgError(`${operation} takes a square matrix, not [${m.rows}, ${m.cols}]`);
  return m;
}

/**
 * The argument of `operation` as a symmetric matrix. Opposite entries may differ as much as rounding makes them in a
 * product such as `XᵀX` (1e-5 of the largest entry in f32, 1e-10 in f64); their mean is taken.
 * @throws LinalgError
 */
export function symmetricOf(operation: string, a: HostTensor): Matrix {
  const m = squareOf(operation, a);
  const { rows: n, data } = m;
  const tolerance = (a.dtype === "f32" ? 1e-5 : 1e-10) * largest(m);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < i; j++) {
      const [below, above] = [data[i * n + j]!, data[j * n + i]!];
      if (Math.abs(below - above) > tolerance)
        throw new LinalgError(
          `${operation} takes a symmetric matrix, but entry [${i}, ${j}] is ${below} and [${j}, ${i}] is ${above}; symmetrise it as (A + Aᵀ) / 2`,
        );
      data[i * n + j] = data[j * n + i] = (below + above) / 2;
    }
  return m;
}

/** The matrix as a host tensor of the type of `like`. */
export function tensorOf({ rows, cols, data }: Matrix, like: HostTensor): HostTensor {
  return HostTensor.from(data, { shape: [rows, cols] }).cast(like.dtype);
}

/** Numbers as a host tensor of one axis and the type of `like`. */
export function vectorOf(values: Float64Array, like: HostTensor): HostTensor {
  return HostTensor.from(values).cast(like.dtype);
}
