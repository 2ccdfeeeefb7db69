import {
  ArgumentError,
  add,
  clip,
  div,
  exp,
  greaterEqual,
  less,
  mul,
  sub,
  type Tensor,
  where,
} from "../../../tensor/index.ts";

/** When, and how sharply, the map of PARQ turns from the identity to rounding. Steps are counted from 1. */
export interface Anneal {
  /** Up to this step `w` is `u`, cut off at the outermost levels. Default 0. */
  readonly annealStart?: number;
  /** From this step on `w` is the nearest level. */
  readonly annealEnd: number;
  /** Steepness of the sigmoid. Default 10. */
  readonly steepness?: number;
  /** Where between both the sigmoid has its centre, as a share. Default 0.5. */
  readonly center?: number;
}

/** @throws ArgumentError for a schedule that cannot be. */
export function checkAnneal({ annealStart = 0, annealEnd, steepness = 10, center = 0.5 }: Anneal): void {
  if (!(annealEnd > annealStart))
    throw new ArgumentError(
      `annealing must end after it starts: annealEnd is ${annealEnd}, annealStart ${annealStart}`,
    );
  if (!(steepness > 0)) throw new ArgumentError(`the steepness of annealing must be above 0, not ${steepness}`);
  if (!(center >= 0 && center <= 1))
    throw new ArgumentError(`the centre of annealing is a share from 0 to 1, not ${center}`);
}

/** How far annealing has come at a step, from 0 to 1. */
export function annealed(step: Tensor, { annealStart = 0, annealEnd }: Anneal): Tensor {
  return clip(div(sub(step, annealStart), annealEnd - annealStart), 0, 1);
}

/**
 * The inverse slope of PARQ's map at a step, from 1 (before `annealStart`) to 0 (from `annealEnd`) along a sigmoid (Jin
 * et al. 2025, section 4): `(s(f - c) - s(1/2)) / (s(-1/2) - s(1/2))` with `s(x) = 1 / (1 + exp(k x))` and `f` the share
 * of annealing that is done.
 * @param step an `f32` scalar
 */
export function inverseSlope(step: Tensor, anneal: Anneal): Tensor {
  checkAnneal(anneal);
  const { annealStart = 0, annealEnd, steepness = 10, center = 0.5 } = anneal;
  const sigmoid = (x: number): number => 1 / (1 + Math.exp(steepness * x));
  const [top, bottom] = [sigmoid(-0.5), sigmoid(0.5)];
  const at = div(1, add(1, exp(mul(sub(annealed(step, anneal), center), steepness))));
  const along = clip(div(sub(at, bottom), top - bottom), 0, 1);
  return where(less(step, annealStart), 1, where(greaterEqual(step, annealEnd), 0, along));
}
