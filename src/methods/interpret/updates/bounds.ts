import { type Products, withProducts } from "../../../linalg/products.ts";
import { ArgumentError, formatShape, type HostTensor, sameShape } from "../../../tensor/index.ts";
import { difference, exact, norm, rankOf, type Spectrum, spectrumOf, subspaceRotation } from "./spectrum.ts";

/** A quantity and what theory allows it to be at most. */
export interface Check {
  readonly value: number;
  /** Null where the theorem says nothing. */
  readonly bound: number | null;
  /** Within rounding: 1e-9 of the matrix's norm, or of 1 for sines. */
  readonly holds: boolean;
}

export interface PerturbationBounds {
  /** The largest `|sigma_i(after) - sigma_i(before)|` against `|D|_2`. */
  readonly weyl: Check;
  /** `|sigma(after) - sigma(before)|` against `|D|_F`. */
  readonly mirsky: Check;
  /**
   * The sine of the largest angle between the subspaces of the `k` largest values, left or right, against
   * `|D|_2 / (sigma_k(before) - sigma_{k+1}(after))`, where that gap is positive.
   */
  readonly wedin: Check;
  /** Change of the sum of the `k` largest values against the same sum of `D`. */
  readonly kyFan: Check;
}

const TOLERANCE = 1e-9;

/**
 * What a change `D` of a matrix can do to its spectrum, against what it did (Weyl 1912, Mirsky 1960, Wedin 1972,
 * Fan 1951).
 * @param k values that count as principal
 * @throws ArgumentError for matrices of different shapes or a `k` out of range; LinalgError for what is not finite
 */
export async function perturbationBounds(
  before: HostTensor,
  after: HostTensor,
  k: number,
): Promise<PerturbationBounds> {
  if (!sameShape(before.shape, after.shape))
    throw new ArgumentError(
      `a matrix ${formatShape(before.shape)} cannot have become ${formatShape(after.shape)}; compare matrices of one shape`,
    );
  const [a, b] = [exact("perturbationBounds", before), exact("perturbationBounds", after)];
  return withProducts(async (p) => {
    const spectra = [await spectrumOf(p, a), await spectrumOf(p, b), await spectrumOf(p, difference(a, b))] as const;
    return boundsOf(p, ...spectra, rankOf(k, spectra[0]));
  });
}

/** The same of spectra that are known; `change` is that of the difference. */
export async function boundsOf(
  p: Products,
  before: Spectrum,
  after: Spectrum,
  change: Spectrum,
  k: number,
): Promise<PerturbationBounds> {
  const { left, right } = await subspaceRotation(p, before, after, k);
  return checkBounds(before, after, change, k, Math.max(...left, ...right));
}

/** The same with the largest angle known, in radians. */
export function checkBounds(
  before: Spectrum,
  after: Spectrum,
  change: Spectrum,
  k: number,
  angle: number,
): PerturbationBounds {
  const [a, b, d] = [before.factors.s, after.factors.s, change.factors.s];
  const moved = b.map((x, i) => Math.abs(x - a[i]!));
  const scale = Math.max(a[0]!, b[0]!);
  const within = (value: number, bound: number, unit: number): Check => ({
    value,
    bound,
    holds: value <= bound + TOLERANCE * unit,
  });
  const top = (s: Float64Array): number => s.subarray(0, k).reduce((sum, x) => sum + x, 0);
  const gap = a[k - 1]! - (b[k] ?? 0);
  const sine = Math.sin(angle);
  return {
    weyl: within(Math.max(...moved), d[0]!, scale),
    mirsky: within(norm(moved), norm(d), scale),
    wedin: gap > 0 ? within(sine, d[0]! / gap, 1) : { value: sine, bound: null, holds: true },
    kyFan: within(Math.abs(top(b) - top(a)), top(d), scale),
  };
}
