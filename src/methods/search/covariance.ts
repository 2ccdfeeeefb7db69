import { cholesky, choleskyInverse, LinalgError } from "../../linalg/index.ts";
import { HostTensor } from "../../tensor/index.ts";
import type { Kernel } from "./kernel.ts";

/** What a fit chooses: all are logarithms, in units of the standardised targets. */
export interface Hyperparameters {
  readonly variance: number;
  readonly noise: number;
  readonly kernel: readonly number[];
}

/** Variances of noise that a fit may choose, in the same units. */
export const NOISE = { low: 1e-6, high: 1 };
const LARGEST_JITTER = 1e-4;

/** Covariance of observations, `[n * n]`. */
export function covarianceOf<X>(
  kernel: Kernel<X>,
  inputs: readonly X[],
  { variance, noise, kernel: parameters }: Hyperparameters,
): Float64Array {
  const n = inputs.length;
  const result = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      const value = Math.exp(variance) * kernel.value(inputs[i]!, inputs[j]!, parameters);
      result[i * n + j] = result[j * n + i] = value + (i === j ? Math.exp(noise) : 0);
    }
  return result;
}

/**
 * `use` of a covariance `[n, n]`, with as much added to its diagonal as it takes to be positive definite in spite of
 * rounding: nothing, else from 1e-10 to 1e-4 of `size`.
 * @throws LinalgError where that does not do
 */
export async function withJitter<R>(
  matrix: Float64Array,
  n: number,
  size: number,
  use: (covariance: HostTensor) => Promise<R>,
): Promise<R> {
  for (let jitter = 0; ; jitter = jitter === 0 ? 1e-10 : 10 * jitter) {
    const added = matrix.slice();
    for (let i = 0; i < n; i++) added[i * n + i]! += jitter * size;
    try {
      return await use(HostTensor.from(added, { shape: [n, n] }));
    } catch (error) {
      if (!(error instanceof LinalgError)) throw error;
      if (jitter * 10 > LARGEST_JITTER * 1.01)
        throw new LinalgError(
          `a covariance of ${n} points is not positive definite, not even with ${LARGEST_JITTER} of its size added to the diagonal: ${error.message}`,
        );
    }
  }
}

export async function inverseOf(
  covariance: Float64Array,
  n: number,
): Promise<{ inverse: Float64Array; logDeterminant: number }> {
  return await withJitter(covariance, n, covariance[0]!, async (matrix) => {
    const factor = (await cholesky(matrix)).data as Float64Array;
    let half = 0;
    for (let i = 0; i < n; i++) half += Math.log(factor[i * n + i]!);
    return { inverse: (await choleskyInverse(matrix)).data as Float64Array, logDeterminant: 2 * half };
  });
}

export function factorOf(covariance: Float64Array, n: number, size: number): Promise<{ factor: Float64Array }> {
  // A posterior covariance is nearly singular where noise is small.
  return withJitter(covariance, n, size, async (matrix) => ({ factor: (await cholesky(matrix)).data as Float64Array }));
}

export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}

/** A square matrix times a vector. */
export function times(matrix: Float64Array, vector: Float64Array): Float64Array {
  const n = vector.length;
  return vector.map((_, i) => dot(matrix.subarray(i * n, (i + 1) * n), vector));
}

/** The product of square matrices, the second one symmetric. */
export function product(a: Float64Array, b: Float64Array, n: number): Float64Array {
  const result = new Float64Array(n * n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) result[i * n + j] = dot(a.subarray(i * n, (i + 1) * n), b.subarray(j * n, (j + 1) * n));
  return result;
}

/** The mean of a square matrix and its transpose. */
export function symmetrised(matrix: Float64Array, n: number): Float64Array {
  return matrix.map((v, at) => (v + matrix[(at % n) * n + Math.floor(at / n)]!) / 2);
}
