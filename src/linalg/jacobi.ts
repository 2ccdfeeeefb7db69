import { identity, type Matrix } from "./matrix.ts";

/**
 * Eigenvalues (in no order) and eigenvectors (as rows) of a small symmetric matrix by cyclic Jacobi rotations (Golub and
 * Van Loan 2013, section 8.5). The data of `a` is overwritten.
 */
export function jacobi({ rows: n, data: a }: Matrix): { values: Float64Array; vectors: Matrix } {
  const vectors = identity(n);
  const v = vectors.data;
  const negligible = (Number.EPSILON / 16) * Math.sqrt(a.reduce((sum, x) => sum + x * x, 0));
  const turn = (m: Float64Array, i: number, j: number, step: number, c: number, s: number): void => {
    for (let k = 0; k < n; k++) {
      const [x, y] = [m[i + k * step]!, m[j + k * step]!];
      m[i + k * step] = c * x - s * y;
      m[j + k * step] = s * x + c * y;
    }
  };
  for (let rotations = 1; rotations > 0; ) {
    rotations = 0;
    for (let i = 0; i < n; i++)
      for (let j = i + 1; j < n; j++) {
        const off = a[i * n + j]!;
        if (Math.abs(off) <= negligible) continue;
        rotations++;
        const theta = (a[j * n + j]! - a[i * n + i]!) / (2 * off);
        const tangent = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
        const c = 1 / Math.hypot(tangent, 1);
        turn(a, i * n, j * n, 1, c, tangent * c);
        turn(a, i, j, n, c, tangent * c);
        turn(v, i * n, j * n, 1, c, tangent * c);
        a[i * n + j] = a[j * n + i] = 0;
      }
  }
  return { values: Float64Array.from({ length: n }, (_, i) => a[i * n + i]!), vectors };
}
