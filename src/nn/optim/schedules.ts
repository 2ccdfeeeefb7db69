import { ArgumentError } from "../../tensor/index.ts";

/** Learning rate at a step counted from 0. */
export type Schedule = (step: number) => number;

export const constantRate =
  (rate: number): Schedule =>
  () =>
    rate;

/** Rises linearly from near 0 to `inner`'s rate over the first `steps` steps. */
export function warmUp(steps: number, inner: Schedule): Schedule {
  return (step) => inner(step) * Math.min(1, (step + 1) / Math.max(1, steps));
}

/** Falls from `peak` to `floor` along half a cosine over `total` steps (Loshchilov & Hutter 2017). */
export function cosine(peak: number, total: number, floor = 0): Schedule {
  checkSteps(total);
  return (step) => floor + (peak - floor) * 0.5 * (1 + Math.cos(Math.PI * Math.min(1, step / total)));
}

/** Falls linearly from `peak` to `floor` over `total` steps. */
export function linearDecay(peak: number, total: number, floor = 0): Schedule {
  checkSteps(total);
  return (step) => floor + (peak - floor) * (1 - Math.min(1, step / total));
}

/**
 * Warm-up, stable, decay (Hu et al. 2024, arXiv:2404.06395): up over `warmUpSteps`, level, then linearly down to `floor` over the last
 * `decaySteps` of `total`.
 */
export function warmUpStableDecay(
  peak: number,
  total: number,
  { warmUpSteps = 0, decaySteps = Math.round(total / 5), floor = 0 } = {},
): Schedule {
  checkSteps(total);
  if (warmUpSteps + decaySteps > total)
    throw new ArgumentError(
      `warm-up (${warmUpSteps}) and decay (${decaySteps}) together are longer than the ${total} steps`,
    );
  return (step) => {
    if (step < warmUpSteps) return (peak * (step + 1)) / warmUpSteps;
    const left = total - step;
    return left >= decaySteps ? peak : floor + (peak - floor) * Math.max(0, left / decaySteps);
  };
}

function checkSteps(total: number): void {
  if (!(total > 0)) throw new ArgumentError(`a schedule needs a positive number of steps, not ${total}`);
}
