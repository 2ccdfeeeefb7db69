import { covarianceOf, dot, type Hyperparameters, inverseOf, NOISE, times } from "./covariance.ts";
import type { Kernel } from "./kernel.ts";

/** Targets as a fit sees them: of mean 0 and deviation 1. */
export interface Units {
  readonly offset: number;
  readonly scale: number;
}

/** Functions drawn from a belief, known at some points. */
export class Draws<X> {
  readonly #kernel: Kernel<X>;
  readonly #chosen: Hyperparameters;
  readonly #points: readonly X[];
  readonly #units: Units;
  /** By draw, at the points; standardised. */
  readonly #values: readonly Float64Array[];
  readonly #inverse: Float64Array;
  /** The inverse times the values, by draw. */
  readonly #weights: readonly Float64Array[];

  private constructor(
    kernel: Kernel<X>,
    chosen: Hyperparameters,
    points: readonly X[],
    values: readonly Float64Array[],
    units: Units,
    inverse: Float64Array,
  ) {
    this.#kernel = kernel;
    this.#chosen = chosen;
    this.#points = points;
    this.#values = values;
    this.#units = units;
    this.#inverse = inverse;
    this.#weights = values.map((v) => times(inverse, v));
  }

  static async of<X>(
    kernel: Kernel<X>,
    chosen: Hyperparameters,
    points: readonly X[],
    values: readonly Float64Array[],
    units: Units,
  ): Promise<Draws<X>> {
    const covariance = covarianceOf(kernel, points, { ...chosen, noise: Math.log(NOISE.low) });
    const { inverse } = await inverseOf(covariance, points.length);
    return new Draws(kernel, chosen, points, values, units, inverse);
  }

  /** Values of each draw at the points known so far, `[draws][points]`. */
  get values(): number[][] {
    return this.#values.map((draw) => Array.from(draw, (v) => this.#units.offset + this.#units.scale * v));
  }

  /** The value of each draw at a further point. @param normal one standard normal number for each draw */
  at(x: X, normal: ArrayLike<number>): number[] {
    return Array.from(this.#standardised(x, normal), (v) => this.#units.offset + this.#units.scale * v);
  }

  /** The draws with their values at a further point, as `at` gives them, known as well. */
  and(x: X, normal: ArrayLike<number>): Promise<Draws<X>> {
    const added = this.#standardised(x, normal);
    const values = this.#values.map((draw, i) => Float64Array.of(...draw, added[i]!));
    return Draws.of(this.#kernel, this.#chosen, [...this.#points, x], values, this.#units);
  }

  #standardised(x: X, normal: ArrayLike<number>): Float64Array {
    const { variance, kernel } = this.#chosen;
    const column = Float64Array.from(
      this.#points,
      (point) => Math.exp(variance) * this.#kernel.value(x, point, kernel),
    );
    const left = Math.exp(variance) * this.#kernel.value(x, x, kernel) - dot(column, times(this.#inverse, column));
    const std = Math.sqrt(Math.max(0, left));
    return Float64Array.from(this.#weights, (weights, i) => dot(column, weights) + std * normal[i]!);
  }
}
