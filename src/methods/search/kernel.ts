/** A covariance of a function's values at two points, with parameters that are logarithms of positive numbers. */
export interface Kernel<X> {
  /** Names of the parameters, with the ranges that a fit keeps their exponentials in. */
  readonly parameters: readonly { readonly name: string; readonly low: number; readonly high: number }[];
  /**
   * The covariance, 1 of a point with itself.
   * @param gradient filled with the derivatives by the parameters, where it is given
   */
  value(a: X, b: X, parameters: ArrayLike<number>, gradient?: Float64Array): number;
}

/** A point of a space of numbers and of choices. */
export interface MixedPoint {
  /** About 0 to 1 each. */
  readonly numbers: readonly number[];
  /** One choice for each place; places that one of two points lacks count as different. */
  readonly choices: readonly string[];
}

const ROOT5 = Math.sqrt(5);

/**
 * Matérn 5/2 on the numbers, each with a length scale of its own, times `exp(-h / ell)` on the choices, `h` the share of
 * places in which they differ (Hamming distance).
 */
export function mixedKernel(numbers: number): Kernel<MixedPoint> {
  const scales = Array.from({ length: numbers }, (_, i) => ({ name: `length scale ${i}`, low: 0.05, high: 30 }));
  return {
    parameters: [...scales, { name: "length scale of choices", low: 0.05, high: 100 }],
    value(a, b, parameters, gradient) {
      let square = 0;
      const terms = new Float64Array(numbers);
      for (let i = 0; i < numbers; i++) {
        const scaled = (a.numbers[i]! - b.numbers[i]!) / Math.exp(parameters[i]!);
        terms[i] = scaled * scaled;
        square += terms[i]!;
      }
      const root = ROOT5 * Math.sqrt(square);
      const decay = Math.exp(-root);
      const smooth = (1 + root + (root * root) / 3) * decay;
      const distance = hamming(a.choices, b.choices) / Math.exp(parameters[numbers]!);
      const alike = Math.exp(-distance);
      if (gradient) {
        // d smooth / d square = -(5 / 6) (1 + root) exp(-root), and d term / d log scale = -2 term.
        const slope = (5 / 3) * (1 + root) * decay * alike;
        for (let i = 0; i < numbers; i++) gradient[i] = slope * terms[i]!;
        gradient[numbers] = smooth * alike * distance;
      }
      return smooth * alike;
    },
  };
}

/** The share of places in which two lists differ. */
function hamming(a: readonly string[], b: readonly string[]): number {
  const places = Math.max(a.length, b.length);
  let differing = 0;
  for (let i = 0; i < places; i++) if (a[i] !== b[i]) differing++;
  return places === 0 ? 0 : differing / places;
}
