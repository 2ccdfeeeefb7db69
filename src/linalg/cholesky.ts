import type { HostTensor } from "../tensor/index.ts";
import { LinalgError } from "./errors.ts";
import { block, type Matrix, mirrored, place, symmetricOf, tensorOf, zeros } from "./matrix.ts";
import { type Products, withProducts } from "./products.ts";

/** Below this many rows plain loops are faster than products. */
const SMALL = 64;

/**
 * The lower Cholesky factor `L` `[n, n]` of a symmetric positive definite `a` `[n, n]`: `a = L Lᵀ`, with zeros above the
 * diagonal. Computed in double precision, returned in the type of `a` (f32 or f64).
 * @throws LinalgError naming the pivot when `a` is not positive definite (or so nearly singular that rounding decides),
 *   and for what is not a finite symmetric matrix.
 */
export async function cholesky(a: HostTensor): Promise<HostTensor> {
  const m = symmetricOf("cholesky", a);
  const { factor } = await withProducts((p) => factorize(p, m, "factor", 0, pivotsOf(m)));
  return tensorOf(factor, a);
}

/** The lower Cholesky factor of `m`, and its inverse. @throws LinalgError like {@link cholesky} */
export function factorAndInverse(p: Products, m: Matrix): Promise<{ factor: Matrix; inverse: Matrix }> {
  return factorize(p, m, "both", 0, pivotsOf(m));
}

/**
 * The inverse `[n, n]` of a symmetric positive definite `a` `[n, n]`, symmetric to the last bit.
 * @throws LinalgError like {@link cholesky}.
 */
export async function choleskyInverse(a: HostTensor): Promise<HostTensor> {
  const m = symmetricOf("choleskyInverse", a);
  return withProducts(async (p) => {
    const { inverse } = await factorize(p, m, "both", 0, pivotsOf(m));
    return tensorOf(mirrored(await p.tProduct(inverse, inverse)), a);
  });
}

/**
 * The upper Cholesky factor `U` `[n, n]` of the inverse of a symmetric positive definite `a` `[n, n]`: `a⁻¹ = Uᵀ U`. Row
 * `i` of it steers the update of the columns after `i` in GPTQ (Frantar et al. 2023, Algorithm 1). No inverse is formed:
 * with `J` the reversal of the rows and `J a J = M Mᵀ`, it is `J M⁻¹ J`.
 * @throws LinalgError like {@link cholesky}; the pivots run from the last row to the first.
 */
export async function choleskyOfInverse(a: HostTensor): Promise<HostTensor> {
  const m = symmetricOf("choleskyOfInverse", a);
  // Reversing rows and columns of a row-major square matrix reverses its numbers.
  m.data.reverse();
  const { inverse } = await withProducts((p) => factorize(p, m, "both", 0, { ...pivotsOf(m), reversed: true }));
  inverse.data.reverse();
  return tensorOf(inverse, a);
}

/** What tells a pivot from the rounding errors that a cancelled one leaves, and names it. */
interface Pivots {
  /** Of the whole matrix, before any elimination. */
  readonly diagonal: Float64Array;
  /** Whether the rows were reversed, so that pivots count from the end. */
  readonly reversed: boolean;
}

function pivotsOf({ rows, data }: Matrix): Pivots {
  return { diagonal: Float64Array.from({ length: rows }, (_, i) => data[i * rows + i]!), reversed: false };
}

/**
 * The Cholesky factor of `m` by halves, and its inverse if `want` says so: nearly all work is in products.
 * @param first the row of the whole matrix at which `m`, what is left there after elimination, starts.
 */
async function factorize(
  p: Products,
  m: Matrix,
  want: "factor" | "both",
  first: number,
  pivots: Pivots,
): Promise<{ factor: Matrix; inverse: Matrix }> {
  const n = m.rows;
  if (n <= SMALL) return factorizeSmall(m, first, pivots);
  const half = n >> 1;
  const top = await factorize(p, block(m, 0, half, 0, half), "both", first, pivots);
  const left = await p.productT(block(m, half, n, 0, half), top.inverse);
  const rest = await p.minusT(block(m, half, n, half, n), left, left);
  const bottom = await factorize(p, rest, want, first + half, pivots);
  const factor = zeros(n, n);
  place(factor, top.factor, 0, 0);
  place(factor, left, half, 0);
  place(factor, bottom.factor, half, half);
  if (want === "factor") return { factor, inverse: bottom.inverse };
  const inverse = zeros(n, n);
  const corner = await p.product(bottom.inverse, await p.product(left, top.inverse));
  for (let i = 0; i < corner.data.length; i++) corner.data[i] = -corner.data[i]!;
  place(inverse, top.inverse, 0, 0);
  place(inverse, corner, half, 0);
  place(inverse, bottom.inverse, half, half);
  return { factor, inverse };
}

function factorizeSmall(
  { rows: n, data }: Matrix,
  first: number,
  { diagonal, reversed }: Pivots,
): { factor: Matrix; inverse: Matrix } {
  const [factor, inverse] = [zeros(n, n), zeros(n, n)];
  const [l, v] = [factor.data, inverse.data];
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      let sum = data[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= l[i * n + k]! * l[j * n + k]!;
      if (i === j) {
        if (!(sum > diagonal.length * Number.EPSILON * Math.abs(diagonal[first + i]!))) {
          const row = reversed ? diagonal.length - 1 - first - i : first + i;
          throw new LinalgError(
            `the matrix is not positive definite: pivot ${row} is ${sum.toExponential(2)}; add a small multiple of the identity`,
          );
        }
        l[i * n + i] = Math.sqrt(sum);
      } else l[i * n + j] = sum / l[j * n + j]!;
    }
  for (let i = 0; i < n; i++) {
    v[i * n + i] = 1 / l[i * n + i]!;
    for (let j = 0; j < i; j++) {
      let sum = 0;
      for (let k = j; k < i; k++) sum -= l[i * n + k]! * v[k * n + j]!;
      v[i * n + j] = sum / l[i * n + i]!;
    }
  }
  return { factor, inverse };
}
