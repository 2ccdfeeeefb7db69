/**
 * Turns `x[from..to)` into the Householder vector `v` (with `v[from] = 1`) of the reflection `I - tau v vᵀ` that maps it to
 * `(beta, 0, ..., 0)` (Golub and Van Loan 2013, Algorithm 5.1.1). A vector that needs no reflection gets `tau = 0`.
 */
export function householder(x: Float64Array, from: number, to: number): { tau: number; beta: number } {
  let largest = 0;
  for (let i = from + 1; i < to; i++) largest = Math.max(largest, Math.abs(x[i]!));
  const alpha = x[from]!;
  x[from] = 1;
  if (largest === 0) return { tau: 0, beta: alpha };
  // Divided by the largest entry, no square overflows or vanishes.
  largest = Math.max(largest, Math.abs(alpha));
  let squares = (alpha / largest) ** 2;
  for (let i = from + 1; i < to; i++) squares += (x[i]! / largest) ** 2;
  const norm = largest * Math.sqrt(squares);
  const beta = alpha > 0 ? -norm : norm;
  for (let i = from + 1; i < to; i++) x[i]! /= alpha - beta;
  return { tau: (beta - alpha) / beta, beta };
}

/**
 * The triangle `T` `[k, k]` (row-major) with `H₀ H₁ ... = I - Y T Yᵀ` for the reflections `I - tauᵢ yᵢ yᵢᵀ`
 * (Schreiber and Van Loan 1989).
 * @param gram the products `Yᵀ Y` `[k, k]`, of which the upper triangle is read.
 */
export function compactTriangle(gram: Float64Array, taus: ArrayLike<number>): Float64Array {
  const k = taus.length;
  const t = new Float64Array(k * k);
  for (let j = 0; j < k; j++) {
    const tau = taus[j]!;
    t[j * k + j] = tau;
    for (let i = 0; i < j; i++) {
      let sum = 0;
      for (let l = i; l < j; l++) sum += t[i * k + l]! * gram[l * k + j]!;
      t[i * k + j] = -tau * sum;
    }
  }
  return t;
}

/** The inner product of two vectors of one length, from the index `from` on. */
export function dot(a: Float64Array, b: Float64Array, from: number): number {
  let sum = 0;
  for (let i = from; i < a.length; i++) sum += a[i]! * b[i]!;
  return sum;
}
