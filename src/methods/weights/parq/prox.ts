import {
  add,
  div,
  greaterEqual,
  maximum,
  minimum,
  mul,
  slice,
  staticDim,
  sub,
  type Tensor,
  type TensorLike,
  where,
} from "../../../tensor/index.ts";

/** The smallest normal number of `f32`: slopes are at most its inverse. */
export const LEAST_INVERSE = 1.1754944e-38;

/** Far below any distance between numbers that matter, and still a step when the slope is the largest. */
const NUDGE = 1e-30;

/** Levels `[rows, k]` apart: `[rows, 1]` each. */
function columns(levels: Tensor): Tensor[] {
  return Array.from({ length: staticDim(levels, 1) }, (_, k) => slice(levels, 1, k, k + 1));
}

const middle = (low: Tensor, high: Tensor): Tensor => mul(add(low, high), 0.5);

/** Each of `u [rows, n]` at the nearest of its row's `levels [rows, k]`, in ascending order; the upper of two as near. */
export function nearestLevel(u: Tensor, levels: Tensor): Tensor {
  const [first, ...rest] = columns(levels) as [Tensor, ...Tensor[]];
  let below = first;
  return rest.reduce((w, level) => {
    const next = where(greaterEqual(u, middle(below, level)), level, w);
    below = level;
    return next;
  }, first);
}

/**
 * PARQ's map (Jin et al. 2025, equation 12): between neighbouring levels with centre `c`, `w = c + (u - c) / inverse` as
 * far as the levels; beyond the outermost, those. At `inverse` 1 it cuts `u` off at the outermost levels, at 0 it is
 * the nearest level, exactly. It is written as a maximum of ramps, without lookups.
 * @param u `[rows, n]`
 * @param levels `[rows, k]`, ascending
 * @param inverse the inverse slope, a scalar from 0 to 1
 */
export function parqProx(u: Tensor, levels: Tensor, inverse: TensorLike): Tensor {
  const slope = div(1, maximum(inverse, LEAST_INVERSE));
  const [first, ...rest] = columns(levels) as [Tensor, ...Tensor[]];
  let below = first;
  return rest.reduce<Tensor>((w, level) => {
    const c = middle(below, level);
    below = level;
    // Ramps further up stay below, those further down end at their level, because the slope is at least 1.
    return maximum(w, minimum(add(mul(add(sub(u, c), NUDGE), slope), c), level));
  }, first);
}

/**
 * BinaryRelax (Yin et al. 2018): `(1 - theta) u + theta Q(u)`, which is the nearest level at `theta` 1, exactly.
 * @param theta a scalar from 0 to 1
 */
export function binaryRelax(u: Tensor, levels: Tensor, theta: Tensor): Tensor {
  const q = nearestLevel(u, levels);
  return where(greaterEqual(theta, 1), q, add(u, mul(sub(q, u), theta)));
}
