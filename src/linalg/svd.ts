import type { HostTensor } from "../tensor/index.ts";
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
 * is orthonormal where dividing the columns of `a V` by the singular values would not be.
 * @throws LinalgError for what is not a finite matrix.
 */
export async function svd(a: HostTensor): Promise<Svd> {
  const m = matrixOf("svd", a);
  return tensorsOf(await withProducts((p) => decompose(p, m)), a);
}

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
  const { q, r } = await thinQr(p, await p.product(unit, v));
  const s = Float64Array.from({ length: a.cols }, (_, i) => r.data[i * a.cols + i]! * size);
  // Where values are equal to rounding, their order may differ from that of the eigenvalues.
  const order = Array.from(s.keys()).sort((i, j) => s[j]! - s[i]!);
  return { u: columns(q, order), s: s.sort().reverse(), v: columns(v, order) };
}

/** The columns of `m` that `order` names. */
function columns(m: Matrix, order: readonly number[]): Matrix {
  const result = zeros(m.rows, order.length);
  for (let i = 0; i < m.rows; i++)
    for (let j = 0; j < order.length; j++) result.data[i * order.length + j] = m.data[i * m.cols + order[j]!]!;
  return result;
}
