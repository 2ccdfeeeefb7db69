import type { HostTensor } from "../tensor/index.ts";
import { factorAndInverse } from "./cholesky.ts";
import { symmetricEigen } from "./eigh.ts";
import { largest, type Matrix, matrixOf, mirrored, scaled, tensorOf, transposed, vectorOf, zeros } from "./matrix.ts";
import { type Products, withProducts } from "./products.ts";
import { thinQr } from "./qr.ts";

/** `a = u diag(s) vt` with `r` singular values: `u` `[m, r]`, `s` `[r]`, `vt` `[r, n]`. */
export interface Svd {
  readonly u: HostTensor;
  readonly s: HostTensor;
  readonly vt: HostTensor;
}

/** The same in double precision, with the right vectors as columns too. */
export interface Factors {
  readonly u: Matrix;
  readonly s: Float64Array;
  readonly v: Matrix;
}

/**
 * The thin singular value decomposition of `a` `[m, n]`, `r = min(m, n)`, values descending; `u` has orthonormal columns
 * and `vt` orthonormal rows whatever the rank. Computed in double precision, returned in the type of `a` (f32 or f64).
 * Values and reconstruction are right to about 1e-8 of the largest singular value, which is below what f32 can tell;
 * singular values smaller than that are noise.
 *
 * The right vectors are the eigenvectors `V` of `aᵀ a`. The `R` of `a V = Q R` is diagonal to the accuracy above, and `Q`
 * is orthonormal where dividing the columns of `a V` by the singular values would not be. Columns of `a V` none of which
 * is lost in rounding are orthogonal already but for a correction that their Gram matrix gives (Cholesky QR).
 * @throws LinalgError for what is not a finite matrix.
 */
export async function svd(a: HostTensor): Promise<Svd> {
  const m = matrixOf("svd", a);
  return tensorsOf(await withProducts((p) => decompose(p, m)), a);
}

/**
 * A column of `a V` this much shorter than the longest may have lost its direction: two such columns of length `r` times
 * the longest are orthogonal to about `1e-16 / r²`.
 */
const LOST = 1e-7;

/** The factors as tensors of the type of `like`. */
export function tensorsOf({ u, s, v }: Factors, like: HostTensor): Svd {
  return { u: tensorOf(u, like), s: vectorOf(s, like), vt: tensorOf(transposed(v), like) };
}

export async function decompose(p: Products, a: Matrix): Promise<Factors> {
  if (a.rows < a.cols) {
    const { u, s, v } = await decompose(p, transposed(a));
    return { u: v, s, v: u };
  }
  const size = largest(a) || 1;
  const unit = scaled(a, 1 / size);
  const right = (await symmetricEigen(p, mirrored(await p.tProduct(unit, unit)))).vectors;
  // The eigenvalues ascend: the last column belongs to the largest singular value.
  const v = columns(
    right,
    Array.from({ length: a.cols }, (_, j) => a.cols - 1 - j),
  );
  const { q, diagonal } = await orthonormal(p, await p.product(unit, v));
  const s = diagonal.map((value) => value * size);
  // Where values are equal to rounding, their order may differ from that of the eigenvalues.
  const order = Array.from(s.keys()).sort((i, j) => s[j]! - s[i]!);
  return { u: columns(q, order), s: s.sort().reverse(), v: columns(v, order) };
}

/** The `Q` of `b = Q R`, and the diagonal of `R`, for columns that are orthogonal to rounding of the longest. */
async function orthonormal(p: Products, b: Matrix): Promise<{ q: Matrix; diagonal: Float64Array }> {
  const lengths = columnLengths(b);
  const longest = lengths.reduce((x, y) => Math.max(x, y), 0);
  if (lengths.some((length) => !(length > LOST * longest))) {
    const { q, r } = await thinQr(p, b);
    return { q, diagonal: lengths.map((_, i) => r.data[i * b.cols + i]!) };
  }
  const unit = { ...b, data: b.data.map((x, i) => x / lengths[i % b.cols]!) };
  const { factor, inverse } = await factorAndInverse(p, mirrored(await p.tProduct(unit, unit)));
  return { q: await p.productT(unit, inverse), diagonal: lengths.map((x, i) => x * factor.data[i * b.cols + i]!) };
}

function columnLengths({ rows, cols, data }: Matrix): Float64Array {
  const squares = new Float64Array(cols);
  for (let i = 0; i < rows; i++) for (let j = 0; j < cols; j++) squares[j]! += data[i * cols + j]! ** 2;
  return squares.map(Math.sqrt);
}

/** The columns of `m` that `order` names. */
function columns(m: Matrix, order: readonly number[]): Matrix {
  const result = zeros(m.rows, order.length);
  for (let i = 0; i < m.rows; i++)
    for (let j = 0; j < order.length; j++) result.data[i * order.length + j] = m.data[i * m.cols + order[j]!]!;
  return result;
}
