import { jacobi } from "./jacobi.ts";
import { block, type Matrix, zeros } from "./matrix.ts";
import type { Products } from "./products.ts";
import { secularRoot } from "./secular.ts";

/** Up to this many rows the eigenvectors are found by rotations. */
const SMALL = 24;

/** Eigenvalues, ascending, and eigenvectors as rows. */
export interface Eigen {
  readonly values: Float64Array;
  readonly vectors: Matrix;
}

/**
 * Eigenvalues and eigenvectors of the symmetric tridiagonal matrix with the given diagonal `[n]` and the numbers beside it
 * `[n - 1]`, by divide and conquer: two halves and a correction of rank one (Cuppen 1981), which is a secular equation for
 * each eigenvalue; eigenvectors stay orthogonal because they belong exactly to a correction that has the computed roots
 * (Gu and Eisenstat 1995). Nearly all work is in the products that combine the halves' eigenvectors.
 */
export async function tridiagonalEigen(p: Products, diagonal: Float64Array, beside: Float64Array): Promise<Eigen> {
  const n = diagonal.length;
  if (n <= SMALL) return sorted(jacobi(dense(diagonal, beside)));
  const half = n >> 1;
  const joint = beside[half - 1]!;
  const torn = diagonal.slice();
  torn[half - 1]! -= Math.abs(joint);
  torn[half]! -= Math.abs(joint);
  const top = await tridiagonalEigen(p, torn.subarray(0, half), beside.subarray(0, half - 1));
  const bottom = await tridiagonalEigen(p, torn.subarray(half), beside.subarray(half));
  // T = diag(T₁, T₂) + |joint| u uᵀ; the products of u with the halves' eigenvectors are z, scaled to length one.
  const vectors = zeros(n, n);
  const z = new Float64Array(n);
  for (let i = 0; i < half; i++) {
    vectors.data.set(top.vectors.data.subarray(i * half, (i + 1) * half), i * n);
    z[i] = top.vectors.data[(i + 1) * half - 1]! * Math.SQRT1_2;
  }
  const rest = n - half;
  for (let i = 0; i < rest; i++) {
    vectors.data.set(bottom.vectors.data.subarray(i * rest, (i + 1) * rest), (half + i) * n + half);
    z[half + i] = bottom.vectors.data[i * rest]! * Math.SQRT1_2 * Math.sign(joint);
  }
  const values = new Float64Array(n);
  values.set(top.values);
  values.set(bottom.values, half);
  return correct(p, sorted({ values, vectors }, z), z, 2 * Math.abs(joint));
}

function dense(diagonal: Float64Array, beside: Float64Array): Matrix {
  const n = diagonal.length;
  const result = zeros(n, n);
  for (let i = 0; i < n; i++) {
    result.data[i * n + i] = diagonal[i]!;
    if (i + 1 < n) result.data[i * n + i + 1] = result.data[(i + 1) * n + i] = beside[i]!;
  }
  return result;
}

/** The pairs in ascending order; `z` is put in the same order, in place. */
function sorted({ values, vectors }: Eigen, z?: Float64Array): Eigen {
  const n = values.length;
  const order = Array.from(values.keys()).sort((i, j) => values[i]! - values[j]!);
  z?.set(order.map((i) => z[i]!));
  return { values: Float64Array.from(order, (i) => values[i]!), vectors: pick(vectors, order, n) };
}

/** The rows of `m` that `order` names. */
function pick(m: Matrix, order: readonly number[], cols: number): Matrix {
  const result = zeros(order.length, cols);
  order.forEach((from, to) => {
    result.data.set(m.data.subarray(from * cols, (from + 1) * cols), to * cols);
  });
  return result;
}

/** The eigenpairs of `Σ valuesᵢ vᵢ vᵢᵀ + rho y yᵀ`, where `z` holds the products of `y` with the rows `vᵢ`. */
async function correct(p: Products, { values, vectors }: Eigen, z: Float64Array, rho: number): Promise<Eigen> {
  const n = values.length;
  const kept = deflate(values, vectors, z, rho);
  const k = kept.length;
  if (k > 0) {
    const poles = Float64Array.from(kept, (i) => values[i]!);
    const weights = Float64Array.from(kept, (i) => z[i]!);
    const { roots, combinations } = solveSecular(poles, weights, rho);
    const combined = await p.product(combinations, pick(vectors, kept, n));
    kept.forEach((i, j) => {
      values[i] = roots[j]!;
      vectors.data.set(block(combined, j, j + 1, 0, n).data, i * n);
    });
  }
  return sorted({ values, vectors });
}

/**
 * Finds the eigenpairs that the correction leaves alone, to rounding: those with no part in it, and one of each two with
 * equal values, once a rotation has moved its part to the other (Dongarra and Sorensen 1987). Rotates `vectors` and `z`
 * in place and returns the indices of the others.
 */
function deflate(values: Float64Array, vectors: Matrix, z: Float64Array, rho: number): number[] {
  const n = values.length;
  const largest = Math.max(Math.abs(values[0]!), Math.abs(values[n - 1]!), rho);
  const tolerance = 8 * Number.EPSILON * largest;
  const kept: number[] = [];
  for (let j = 0; j < n; j++) {
    if (rho * Math.abs(z[j]!) <= tolerance) continue;
    const i = kept.at(-1);
    if (i !== undefined) {
      const length = Math.hypot(z[i]!, z[j]!);
      const [c, s] = [z[j]! / length, z[i]! / length];
      const [low, high] = [values[i]!, values[j]!];
      if (Math.abs((high - low) * c * s) <= tolerance) {
        [z[i], z[j]] = [0, length];
        for (let q = 0; q < n; q++) {
          const [x, y] = [vectors.data[i * n + q]!, vectors.data[j * n + q]!];
          vectors.data[i * n + q] = c * x - s * y;
          vectors.data[j * n + q] = s * x + c * y;
        }
        values[i] = low * c * c + high * s * s;
        values[j] = low * s * s + high * c * c;
        kept.pop();
      }
    }
    kept.push(j);
  }
  return kept;
}

/** The eigenvalues of `diag(poles) + rho z zᵀ`, and as rows its eigenvectors. */
function solveSecular(
  poles: Float64Array,
  z: Float64Array,
  rho: number,
): { roots: Float64Array; combinations: Matrix } {
  const k = poles.length;
  const roots = new Float64Array(k);
  const combinations = zeros(k, k);
  const gaps = combinations.data;
  for (let j = 0; j < k; j++) {
    const { origin, offset } = secularRoot(poles, z, rho, j);
    roots[j] = poles[origin]! + offset;
    for (let i = 0; i < k; i++) gaps[j * k + i] = poles[i]! - poles[origin]! - offset;
  }
  // The z whose correction has exactly these roots (Löwner's formula), up to a common factor.
  const exact = Float64Array.from(poles, (_, i) => -gaps[(k - 1) * k + i]!);
  for (let j = 0; j < k - 1; j++)
    for (let i = 0; i < k; i++) exact[i]! *= gaps[j * k + i]! / (poles[i]! - poles[i <= j ? j + 1 : j]!);
  for (let i = 0; i < k; i++) exact[i] = Math.sign(z[i]!) * Math.sqrt(Math.abs(exact[i]!));
  for (let j = 0; j < k; j++) {
    let squares = 0;
    for (let i = 0; i < k; i++) {
      const entry = (gaps[j * k + i] = exact[i]! / gaps[j * k + i]!);
      squares += entry * entry;
    }
    const scale = 1 / Math.sqrt(squares);
    for (let i = 0; i < k; i++) gaps[j * k + i]! *= scale;
  }
  return { roots, combinations };
}
