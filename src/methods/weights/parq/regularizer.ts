import {
  ArgumentError,
  abs,
  add,
  greater,
  HostTensor,
  less,
  maximum,
  minimum,
  mul,
  neg,
  sub,
  sum,
  type Tensor,
  type TensorLike,
  where,
} from "../../../tensor/index.ts";

/**
 * A convex, piecewise-affine regularizer with kinks at quantization levels, which pulls weights onto them (Jin et al.
 * 2025, section 2): `sum_i max_k { a_k (|w_i| - q_k) + b_k }`, infinite beyond the last level.
 */
export interface PiecewiseAffine {
  /** `0 = q_0 < q_1 < ... < q_m`; levels are these and their negatives. */
  readonly levels: readonly number[];
  /** `a_0 < ... < a_(m-1)`, the slope behind each level but the last. */
  readonly slopes: readonly number[];
  /** The regularizer's value, a scalar. */
  value(w: Tensor): Tensor;
  /** `argmin_w scale * Psi(w) + |w - u|^2 / 2`, elementwise (equation 5); entries on a level are exactly on it. */
  prox(u: Tensor, scale: TensorLike): Tensor;
}

/**
 * The regularizer with these levels and slopes; `slopes[0]` of 0 takes zero out of the levels.
 * @throws ArgumentError for levels or slopes that do not ascend, or that do not go together
 */
export function piecewiseAffine(levels: readonly number[], slopes: readonly number[]): PiecewiseAffine {
  const ascends = (list: readonly number[]): boolean => list.every((x, i) => i === 0 || x > list[i - 1]!);
  if (levels.length < 2 || levels[0] !== 0 || !ascends(levels))
    throw new ArgumentError(`the levels of a regularizer ascend from 0, as [${levels.join(", ")}] do not`);
  if (slopes.length !== levels.length - 1 || !(slopes[0]! >= 0) || !ascends(slopes))
    throw new ArgumentError(
      `${levels.length} levels need ${levels.length - 1} slopes that ascend from 0 or more, not [${slopes.join(", ")}]`,
    );
  const offsets = [0];
  for (let k = 1; k < slopes.length; k++)
    offsets.push(offsets[k - 1]! + slopes[k - 1]! * (levels[k]! - levels[k - 1]!));
  const last = levels.at(-1)!;
  return {
    levels,
    slopes,
    value: (w) => {
      const size = abs(w);
      const pieces = slopes.map((a, k) => add(mul(sub(size, levels[k]!), a), offsets[k]!));
      return sum(where(greater(size, last), Infinity, pieces.reduce(maximum)));
    },
    prox: (u, scale) => {
      const size = abs(u);
      // A ramp between each two levels; those not reached yet, or passed, are below the one that holds.
      const ramps = slopes.map((a, k) => minimum(sub(size, mul(a, scale)), levels[k + 1]!));
      const moved = maximum(ramps.reduce(maximum), 0);
      return where(less(u, 0), neg(moved), moved);
    },
  };
}

/**
 * The share of coordinates at which `w` can be a minimum of `f + lambda Psi` (section 2.2): between two levels the
 * gradient of `f` must be `-lambda a` of the slope there, and on a level anything between the slopes on its sides.
 * @param gradient of `f` at `w`, of the same shape
 * @param tolerance how far the gradient may be off
 */
export function optimalShare(
  { levels, slopes }: PiecewiseAffine,
  lambda: number,
  w: HostTensor,
  gradient: HostTensor,
  tolerance: number,
): number {
  const onLevel = levels.map((q) => HostTensor.from([q]).cast(w.dtype).at(0));
  let met = 0;
  for (let i = 0; i < w.size; i++) {
    const size = Math.abs(w.at(i));
    // Seen from the positive side, how much the loss pulls outwards.
    const pull = (w.at(i) < 0 ? 1 : -1) * gradient.at(i);
    const k = onLevel.indexOf(size);
    const above = onLevel.findIndex((q) => q > size);
    if (above < 0 && k < 0) continue;
    let [low, high] = [slopes[above - 1]!, slopes[above - 1]!];
    if (k === 0) [low, high] = [-slopes[0]!, slopes[0]!];
    else if (k > 0) [low, high] = [slopes[k - 1]!, slopes[k] ?? Infinity];
    if (pull >= lambda * low - tolerance && pull <= lambda * high + tolerance) met++;
  }
  return met / w.size;
}

/** The share of entries that are exactly on a level, or on its negative. */
export function onLevelShare({ levels }: PiecewiseAffine, w: HostTensor): number {
  const exact = new Set(levels.map((q) => HostTensor.from([q]).cast(w.dtype).at(0)));
  return w.toArray().filter((x) => exact.has(Math.abs(x))).length / w.size;
}
