import { ArgumentError, type Rng } from "../../tensor/index.ts";
import {
  covarianceOf,
  dot,
  factorOf,
  type Hyperparameters,
  inverseOf,
  product,
  symmetrised,
  times,
} from "./covariance.ts";
import { Draws, type Units } from "./draws.ts";
import type { Kernel } from "./kernel.ts";
import { ascend, startOf, unpacked } from "./likelihood.ts";

/** Mean and deviation of a function's value, without the noise of measuring it. */
export interface Prediction {
  readonly mean: number;
  readonly std: number;
}

export interface FitOptions {
  readonly rng: Rng;
  /** Starts of the ascent of the likelihood; the best end is taken. Default 4. */
  readonly starts?: number;
  /** Steps of each. Default 60. */
  readonly steps?: number;
}

/**
 * Regression by a Gaussian process (Rasmussen and Williams 2006): a function is believed to have values of covariance
 * `variance * kernel`, and is seen through noise. Variance, noise and the kernel's parameters are those that make the
 * observations most likely.
 */
export class GaussianProcess<X> {
  readonly #kernel: Kernel<X>;
  readonly #inputs: readonly X[];
  readonly #chosen: Hyperparameters;
  /** Of the targets: `y = offset + scale * standardised`. */
  readonly #offset: number;
  readonly #scale: number;
  readonly #targets: Float64Array;
  /** Inverse of the covariance of the observations, `[n * n]`. */
  readonly #inverse: Float64Array;
  /** That times the standardised targets. */
  readonly #alpha: Float64Array;

  private constructor(
    kernel: Kernel<X>,
    inputs: readonly X[],
    standard: Standardised,
    chosen: Hyperparameters,
    inverse: Float64Array,
  ) {
    this.#kernel = kernel;
    this.#inputs = inputs;
    this.#chosen = chosen;
    this.#offset = standard.offset;
    this.#scale = standard.scale;
    this.#targets = standard.values;
    this.#inverse = inverse;
    this.#alpha = times(inverse, standard.values);
  }

  /** @throws ArgumentError for fewer than two observations, or targets that are not finite */
  static async fit<X>(
    kernel: Kernel<X>,
    inputs: readonly X[],
    targets: readonly number[],
    { rng, starts = 4, steps = 60 }: FitOptions,
  ): Promise<GaussianProcess<X>> {
    if (inputs.length !== targets.length)
      throw new ArgumentError(`${inputs.length} points were given with ${targets.length} values`);
    if (inputs.length < 2) throw new ArgumentError(`a Gaussian process needs two observations, not ${inputs.length}`);
    const bad = targets.findIndex((value) => !Number.isFinite(value));
    if (bad >= 0)
      throw new ArgumentError(`value ${bad} of ${targets.length} is ${targets[bad]}; drop it or measure again`);
    const standard = standardised(targets);
    let best: { value: number; parameters: Float64Array } | undefined;
    for (let start = 0; start < starts; start++) {
      const found = await ascend(kernel, inputs, standard.values, startOf(kernel, start === 0 ? null : rng), steps);
      if (!best || found.value > best.value) best = found;
    }
    const chosen = unpacked(best!.parameters);
    const { inverse } = await inverseOf(covarianceOf(kernel, inputs, chosen), inputs.length);
    return new GaussianProcess(kernel, inputs, standard, chosen, inverse);
  }

  /** The fitted numbers by name, in units of the targets and of the inputs. */
  get hyperparameters(): Readonly<Record<string, number>> {
    const { variance, noise, kernel } = this.#chosen;
    return {
      deviation: this.#scale * Math.exp(variance / 2),
      noise: this.#scale * Math.exp(noise / 2),
      ...Object.fromEntries(this.#kernel.parameters.map(({ name }, i) => [name, Math.exp(kernel[i]!)])),
    };
  }

  /** The belief about the value at a point. */
  predict(x: X): Prediction {
    const { variance, kernel } = this.#chosen;
    const column = Float64Array.from(
      this.#inputs,
      (input) => Math.exp(variance) * this.#kernel.value(x, input, kernel),
    );
    const spread = Math.exp(variance) * this.#kernel.value(x, x, kernel) - dot(column, times(this.#inverse, column));
    return {
      mean: this.#offset + this.#scale * dot(column, this.#alpha),
      std: this.#scale * Math.sqrt(Math.max(0, spread)),
    };
  }

  /** Each observation as predicted from all others, noise included (Rasmussen and Williams, eq. 5.12). */
  leaveOneOut(): Prediction[] {
    const n = this.#inputs.length;
    return Array.from(this.#alpha, (alpha, i) => {
      const precision = this.#inverse[i * n + i]!;
      return {
        mean: this.#offset + this.#scale * (this.#targets[i]! - alpha / precision),
        std: this.#scale / Math.sqrt(precision),
      };
    });
  }

  /** Share of the targets' variance that predictions from all other observations explain. */
  get leaveOneOutR2(): number {
    const predicted = this.leaveOneOut();
    let [missed, total] = [0, 0];
    this.#targets.forEach((value, i) => {
      missed += ((predicted[i]!.mean - this.#offset) / this.#scale - value) ** 2;
      total += value ** 2;
    });
    return 1 - missed / total;
  }

  /**
   * The function drawn `count` times from the belief, at the observations and then, one after the other, at whatever
   * points are asked for: what a draw has been told it keeps to.
   */
  async draw(count: number, rng: Rng): Promise<Draws<X>> {
    const n = this.#inputs.length;
    const prior = covarianceOf(this.#kernel, this.#inputs, { ...this.#chosen, noise: -Infinity });
    // Posterior at the observations: mean K a, covariance K - K C^-1 K, where K and C^-1 commute.
    const mean = times(prior, this.#alpha);
    const shrink = product(prior, product(this.#inverse, prior, n), n);
    const { factor } = await factorOf(
      // Where little is left of it, rounding would show as asymmetry.
      symmetrised(
        prior.map((v, i) => v - shrink[i]!),
        n,
      ),
      n,
      Math.exp(this.#chosen.variance),
    );
    const values = Array.from({ length: count }, () => {
      const normal = Float64Array.from({ length: n }, () => rng.normal());
      return Float64Array.from(mean, (m, i) => m + dot(factor.subarray(i * n, i * n + i + 1), normal));
    });
    return await Draws.of(this.#kernel, this.#chosen, this.#inputs, values, {
      offset: this.#offset,
      scale: this.#scale,
    });
  }
}

interface Standardised extends Units {
  readonly values: Float64Array;
}

function standardised(targets: readonly number[]): Standardised {
  const offset = targets.reduce((a, b) => a + b, 0) / targets.length;
  const scale = Math.sqrt(targets.reduce((a, b) => a + (b - offset) ** 2, 0) / targets.length) || 1;
  return { values: Float64Array.from(targets, (value) => (value - offset) / scale), offset, scale };
}
