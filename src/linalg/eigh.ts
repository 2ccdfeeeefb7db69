import type { HostTensor } from "../tensor/index.ts";
import { type Eigen, tridiagonalEigen } from "./divide-conquer.ts";
import { largest, type Matrix, scaled, symmetricOf, tensorOf, transposed, vectorOf } from "./matrix.ts";
import { type Products, withProducts } from "./products.ts";
import { applyReflectors, tridiagonalize } from "./tridiagonal.ts";

/**
 * All eigenvalues `values` `[n]`, ascending, and eigenvectors, the columns of `vectors` `[n, n]`, of a symmetric `a`
 * `[n, n]`: `a = V diag(values) Vᵀ`. Computed in double precision, returned in the type of `a` (f32 or f64); errors are
 * relative to the largest eigenvalue, and the vectors are orthonormal however close the values lie.
 * @throws LinalgError for what is not a finite symmetric matrix.
 */
export async function eigh(a: HostTensor): Promise<{ values: HostTensor; vectors: HostTensor }> {
  const m = symmetricOf("eigh", a);
  const { values, vectors } = await withProducts((p) => symmetricEigen(p, m));
  return { values: vectorOf(values, a), vectors: tensorOf(vectors, a) };
}

/** Eigenvalues, ascending, and eigenvectors as columns. */
export async function symmetricEigen(p: Products, a: Matrix): Promise<Eigen> {
  // At unit size nothing overflows or vanishes on the way.
  const size = largest(a) || 1;
  const reduced = await tridiagonalize(p, scaled(a, 1 / size));
  const { values, vectors } = await tridiagonalEigen(p, reduced.diagonal, reduced.beside);
  const columns = transposed(vectors);
  await applyReflectors(p, reduced, columns);
  for (let i = 0; i < values.length; i++) values[i]! *= size;
  return { values, vectors: columns };
}
