import { HostTensor, Rng } from "../../src/tensor/index.ts";

const numbers = (a: HostTensor): Float64Array => a.cast("f64").data as Float64Array;

/** Plain loops over f64: slow, and obviously right. */
export function multiply(a: HostTensor, b: HostTensor): HostTensor {
  const [[m, k], n] = [a.shape as [number, number], b.shape[1]!];
  const [x, y, result] = [numbers(a), numbers(b), new Float64Array(m * n)];
  for (let i = 0; i < m; i++)
    for (let l = 0; l < k; l++) for (let j = 0; j < n; j++) result[i * n + j]! += x[i * k + l]! * y[l * n + j]!;
  return HostTensor.from(result, { shape: [m, n] });
}

export function transpose(a: HostTensor): HostTensor {
  const [m, n] = a.shape as [number, number];
  const [x, result] = [numbers(a), new Float64Array(m * n)];
  for (let i = 0; i < m; i++) for (let j = 0; j < n; j++) result[j * m + i] = x[i * n + j]!;
  return HostTensor.from(result, { shape: [n, m] });
}

export function identity(n: number): HostTensor {
  return diagonal(new Array(n).fill(1));
}

export function diagonal(values: ArrayLike<number>): HostTensor {
  const n = values.length;
  const result = HostTensor.zeros("f64", [n, n]);
  for (let i = 0; i < n; i++) result.set(i * n + i, values[i]!);
  return result;
}

export function random(seed: number, rows: number, cols: number): HostTensor {
  return new Rng(seed).normalTensor([rows, cols], { dtype: "f64" });
}

/** `[n, n]` orthogonal: the identity reflected at random planes, made without the code under test. */
export function reflections(seed: number, n: number): HostTensor {
  const result = identity(n);
  for (let k = 0; k < 3; k++) {
    const v = random(seed + 1000 * k, n, 1);
    const [along, squares] = [numbers(multiply(result, v)), multiply(transpose(v), v).item()];
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) result.set(i * n + j, result.at(i * n + j) - (2 * along[i]! * v.at(j)) / squares);
  }
  return result;
}

/** The symmetric matrix with these eigenvalues and random eigenvectors. */
export function withEigenvalues(seed: number, values: ArrayLike<number>): HostTensor {
  const q = reflections(seed, values.length);
  const a = multiply(multiply(q, diagonal(values)), transpose(q));
  const n = values.length;
  for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) a.set(j * n + i, a.at(i * n + j));
  return a;
}

/** The largest difference of two tensors' entries. */
export function distance(a: HostTensor, b: HostTensor): number {
  if (String(a.shape) !== String(b.shape)) throw new Error(`[${a.shape}] is not compared with [${b.shape}]`);
  const [x, y] = [numbers(a), numbers(b)];
  let result = 0;
  for (let i = 0; i < x.length; i++) {
    const apart = Math.abs(x[i]! - y[i]!);
    if (Number.isNaN(apart)) return Number.NaN;
    result = Math.max(result, apart);
  }
  return result;
}

/** The largest magnitude below the diagonal. */
export function belowDiagonal(a: HostTensor): number {
  const [m, n] = a.shape as [number, number];
  let result = 0;
  for (let i = 0; i < m; i++)
    for (let j = 0; j < Math.min(i, n); j++) result = Math.max(result, Math.abs(a.at(i * n + j)));
  return result;
}

/** How far the columns are from orthonormal. */
export function skew(q: HostTensor): number {
  return distance(multiply(transpose(q), q), identity(q.shape[1]!));
}

const spectrum = (n: number, value: (i: number) => number): number[] => Array.from({ length: n }, (_, i) => value(i));

/** Spectra of the kinds that break decompositions, not negative, descending. */
export const spectra: readonly { readonly name: string; readonly values: (n: number) => number[] }[] = [
  { name: "well conditioned", values: (n) => spectrum(n, (i) => 2 - i / n) },
  { name: "of low rank", values: (n) => spectrum(n, (i) => (i < n / 4 ? n - i : 0)) },
  { name: "clustered", values: (n) => spectrum(n, (i) => (i < n / 3 ? 5 : i < (2 * n) / 3 ? 2 - 1e-12 * i : 1)) },
  { name: "graded", values: (n) => spectrum(n, (i) => 10 ** ((-16 * i) / n)) },
  { name: "equal", values: (n) => spectrum(n, () => 3) },
  { name: "zero", values: (n) => spectrum(n, () => 0) },
  { name: "huge", values: (n) => spectrum(n, (i) => 1e30 * (n - i)) },
  { name: "tiny", values: (n) => spectrum(n, (i) => 1e-30 * (n - i)) },
];
