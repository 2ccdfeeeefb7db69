import { block, type Matrix, matrixOf } from "../../../linalg/matrix.ts";
import { type Products, withProducts } from "../../../linalg/products.ts";
import { decompose, type Factors } from "../../../linalg/svd.ts";
import { ArgumentError, type HostTensor } from "../../../tensor/index.ts";
import { type BitMask, largestEntries } from "./bit-mask.ts";

/** A matrix in double precision with its singular values, descending, and vectors. */
export interface Spectrum {
  readonly matrix: Matrix;
  readonly factors: Factors;
}

/** Which part of a spectrum counts as principal: so many of the largest values, or as many as hold half of the energy. */
export type Rank = number | "energy50";

/** A matrix of any floating-point type in double precision. @throws LinalgError for what is not a finite matrix */
export function exact(operation: string, t: HostTensor): Matrix {
  return matrixOf(operation, t.cast("f64"));
}

export async function spectrumOf(p: Products, matrix: Matrix): Promise<Spectrum> {
  return { matrix, factors: await decompose(p, matrix) };
}

/** `b - a`. */
export function difference(a: Matrix, b: Matrix): Matrix {
  return { ...a, data: b.data.map((x, i) => x - a.data[i]!) };
}

export function norm(values: Float64Array): number {
  return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
}

/** The rank as a number. @throws ArgumentError for one outside of 1 to the smaller dimension */
export function rankOf(rank: Rank, { factors: { s } }: Spectrum): number {
  if (rank === "energy50") {
    const half = s.reduce((sum, x) => sum + x * x, 0) / 2;
    let held = 0;
    let count = 0;
    while (count < s.length && held < half) held += s[count++]! ** 2;
    return Math.max(1, count);
  }
  if (!Number.isInteger(rank) || rank < 1 || rank > s.length)
    throw new ArgumentError(`a rank of this matrix is a whole number from 1 to ${s.length}, not ${rank}`);
  return rank;
}

/** `|sigma(after) - sigma(before)| / |sigma(before)|`, the drift of the spectrum as a whole (NSS). */
export function spectralDrift(before: Spectrum, after: Spectrum): number {
  const [a, b] = [before.factors.s, after.factors.s];
  const size = norm(a);
  return size === 0 ? 0 : norm(b.map((x, i) => x - a[i]!)) / size;
}

/** Squared Frobenius over squared spectral norm: over how many directions a matrix is spread; null for zero. */
export function stableRank(s: Float64Array): number | null {
  return s[0]! === 0 ? null : s.reduce((sum, x) => sum + x * x, 0) / s[0]! ** 2;
}

const leading = (m: Matrix, k: number): Matrix => block(m, 0, m.rows, 0, k);

/**
 * The principal angles between two subspaces with orthonormal columns `[n, k]`, ascending, in radians. From cosines where
 * these tell most, and from sines (of what is left of one basis outside of the other) where angles are small, so that
 * both ends are right (Björck and Golub 1973).
 */
export async function principalAngles(p: Products, a: Matrix, b: Matrix): Promise<Float64Array> {
  const inner = await p.tProduct(a, b);
  const cosines = (await decompose(p, inner)).s;
  const outside = (await decompose(p, await p.minus(b, a, inner))).s;
  // The largest cosine belongs to the smallest sine.
  return cosines.map((cosine, i) => {
    const c = Math.min(1, Math.max(0, cosine));
    const s = Math.min(1, outside[cosines.length - 1 - i] ?? 0);
    return c > Math.SQRT1_2 ? Math.asin(s) : Math.acos(c);
  });
}

/** Angles between the principal subspaces of two matrices, of the left vectors and of the right ones. */
export async function subspaceRotation(
  p: Products,
  before: Spectrum,
  after: Spectrum,
  k: number,
): Promise<{ readonly left: Float64Array; readonly right: Float64Array }> {
  const [a, b] = [before.factors, after.factors];
  return {
    left: await principalAngles(p, leading(a.u, k), leading(b.u, k)),
    right: await principalAngles(p, leading(a.v, k), leading(b.v, k)),
  };
}

/** How many entries are an `alpha` of a matrix. @throws ArgumentError for an alpha that is no share */
export function shareOf({ rows, cols }: Matrix, alpha: number): number {
  if (!(alpha > 0 && alpha < 1)) throw new ArgumentError(`alpha must be above 0 and below 1, not ${alpha}`);
  return Math.round(alpha * rows * cols);
}

/** The `alpha` of entries that are largest in the rank-`rank` part of a matrix. */
export async function principalEntries(
  p: Products,
  { matrix, factors }: Spectrum,
  rank: number,
  alpha: number,
): Promise<BitMask> {
  const scaled = leading(factors.u, rank);
  for (let i = 0; i < scaled.data.length; i++) scaled.data[i]! *= factors.s[i % rank]!;
  const { data } = await p.productT(scaled, leading(factors.v, rank));
  return largestEntries(matrix.rows, matrix.cols, data.map(Math.abs), shareOf(matrix, alpha));
}

/** The `alpha` of entries that are smallest. */
export function smallEntries(matrix: Matrix, alpha: number): BitMask {
  return largestEntries(
    matrix.rows,
    matrix.cols,
    matrix.data.map((x) => -Math.abs(x)),
    shareOf(matrix, alpha),
  );
}

/**
 * The `alpha` of entries of a matrix that carry its principal part: the largest of its rank-`rank` approximation.
 * @throws ArgumentError for a rank or an alpha out of range; LinalgError for what is not a finite matrix
 */
export async function principalMask(w: HostTensor, rank: Rank, alpha: number): Promise<BitMask> {
  const matrix = exact("principalMask", w);
  return withProducts(async (p) => {
    const spectrum = await spectrumOf(p, matrix);
    return principalEntries(p, spectrum, rankOf(rank, spectrum), alpha);
  });
}

/** The `alpha` of entries of a matrix with the smallest magnitude. @throws as `principalMask` */
export function lowMagnitudeMask(w: HostTensor, alpha: number): BitMask {
  return smallEntries(exact("lowMagnitudeMask", w), alpha);
}

/** Where reinforcement learning moves by itself: entries of small magnitude, or outside of the principal part. */
export async function safeMask(w: HostTensor, rank: Rank, alpha: number): Promise<BitMask> {
  return lowMagnitudeMask(w, alpha).or((await principalMask(w, rank, alpha)).not());
}
