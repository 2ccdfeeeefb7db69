import { ArgumentError } from "../tensor/index.ts";

/**
 * Probability that at least one of `k` programs drawn from `samples`, of which `correct` pass, does: the unbiased
 * estimate `1 - C(n - c, k) / C(n, k)` (Chen et al. 2021, equation 1), as a product that does not overflow.
 */
export function passAtK(samples: number, correct: number, k: number): number {
  if (!(k >= 1 && k <= samples && correct >= 0 && correct <= samples))
    throw new ArgumentError(`pass@${k} cannot be told from ${samples} samples of which ${correct} pass`);
  if (samples - correct < k) return 1;
  let none = 1;
  for (let i = samples - correct + 1; i <= samples; i++) none *= 1 - k / i;
  return 1 - none;
}
