import type { Rng } from "../../tensor/index.ts";
import { covarianceOf, dot, type Hyperparameters, inverseOf, NOISE, times } from "./covariance.ts";
import type { Kernel } from "./kernel.ts";

/** Log variance, log variance of noise, and the kernel's parameters. */
export const unpacked = ([variance, noise, ...kernel]: Float64Array): Hyperparameters =>
  ({ variance, noise, kernel }) as Hyperparameters;

function rangesOf<X>({ parameters }: Kernel<X>): { low: number; high: number }[] {
  return [{ low: 0.05, high: 20 }, NOISE, ...parameters];
}

/** Parameters to start from: unit variance, little noise, moderate scales; or drawn at random from their ranges. */
export function startOf<X>(kernel: Kernel<X>, rng: Rng | null): Float64Array {
  const start = [1, 0.01, ...kernel.parameters.map(() => 1)];
  return Float64Array.from(rangesOf(kernel), ({ low, high }, i) =>
    rng && i > 0 ? rng.uniform(Math.log(Math.max(low, 1e-4)), Math.log(Math.min(high, 5))) : Math.log(start[i]!),
  );
}

/**
 * Ascends the likelihood by steps for each parameter of its own, which grow while its derivative keeps its sign and shrink
 * when it changes (Riedmiller and Braun 1993).
 */
export async function ascend<X>(
  kernel: Kernel<X>,
  inputs: readonly X[],
  targets: Float64Array,
  start: Float64Array,
  steps: number,
): Promise<{ value: number; parameters: Float64Array }> {
  const ranges = rangesOf(kernel).map(({ low, high }) => [Math.log(low), Math.log(high)] as const);
  let parameters = start.slice();
  const size = new Float64Array(start.length).fill(0.2);
  let before = new Float64Array(start.length);
  let best = { value: -Infinity, parameters };
  for (let step = 0; step < steps; step++) {
    const { value, gradient } = await logLikelihood(kernel, inputs, targets, parameters);
    if (value > best.value) best = { value, parameters };
    const slopes = gradient.map((slope, i) => {
      const agreement = slope * before[i]!;
      size[i] = Math.min(1, Math.max(1e-4, size[i]! * (agreement > 0 ? 1.2 : agreement < 0 ? 0.5 : 1)));
      return agreement < 0 ? 0 : slope;
    });
    parameters = parameters.map((value, i) =>
      Math.min(ranges[i]![1], Math.max(ranges[i]![0], value + Math.sign(slopes[i]!) * size[i]!)),
    );
    before = slopes;
  }
  return best;
}

/**
 * Logarithm of the observations' density (Rasmussen and Williams, eq. 2.30), with its derivatives (eq. 5.9) by log
 * variance, log noise variance, and the kernel's parameters.
 */
export async function logLikelihood<X>(
  kernel: Kernel<X>,
  inputs: readonly X[],
  targets: Float64Array,
  parameters: Float64Array,
): Promise<{ value: number; gradient: Float64Array }> {
  const n = inputs.length;
  const chosen = unpacked(parameters);
  const { inverse, logDeterminant } = await inverseOf(covarianceOf(kernel, inputs, chosen), n);
  const alpha = times(inverse, targets);
  const gradient = new Float64Array(parameters.length);
  const own = new Float64Array(kernel.parameters.length);
  const scale = Math.exp(chosen.variance);
  for (let i = 0; i < n; i++)
    for (let j = 0; j <= i; j++) {
      // Half the trace of (a a' - C^-1) dC; entries off the diagonal count twice.
      const weight = (alpha[i]! * alpha[j]! - inverse[i * n + j]!) * (i === j ? 0.5 : 1);
      gradient[0]! += weight * scale * kernel.value(inputs[i]!, inputs[j]!, chosen.kernel, own);
      for (let p = 0; p < own.length; p++) gradient[2 + p]! += weight * scale * own[p]!;
      if (i === j) gradient[1]! += weight * Math.exp(chosen.noise);
    }
  const value = -0.5 * (dot(targets, alpha) + logDeterminant + n * Math.log(2 * Math.PI));
  return { value, gradient };
}
