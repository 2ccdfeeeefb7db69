import { ArgumentError } from "../../tensor/index.ts";

/** Outermost level with the least squared error on a standard normal, by bits (QuEST, section 3.1). */
const SCALES: Readonly<Record<number, number>> = {
  1: 0.79788456,
  1.585: 1.22400895,
  2: 1.49353462,
  3: 2.05106835,
  4: 2.51393058,
  5: 2.91609388,
  6: 3.27659728,
  7: 3.60104972,
  8: 3.88493868,
};

/**
 * How many roots of the mean square the outermost of `2^bits` evenly spaced levels lies from zero, so that normal
 * numbers are rounded with the least squared error.
 * @throws ArgumentError for bits that are not in the table; `bestGaussianScale` finds the scale of any grid
 */
export function gaussianScale(bits: number): number {
  const scale = SCALES[bits];
  if (scale !== undefined) return scale;
  throw new ArgumentError(
    `there is no Gaussian scale for ${bits} bits; there is one for ${Object.keys(SCALES).sort().join(", ")}, and bestGaussianScale finds that of any other grid from its levels`,
  );
}

/** Levels of a grid of that many bits. */
export function levelsOf(bits: number): number {
  return bits === 1.585 ? 3 : 2 ** bits;
}

/** `count` evenly spaced levels from -1 to 1. */
export function evenLevels(count: number): number[] {
  return Array.from({ length: count }, (_, i) => (2 * i) / (count - 1) - 1);
}

/** Beyond this a standard normal has no weight that counts. */
const EDGE = 9;
/** Intervals of Simpson's rule in each cell of a grid. */
const INTERVALS = 128;

/**
 * The mean squared error of rounding standard normal numbers to the nearest of `scale * levels`, by Simpson's rule cell
 * by cell.
 * @param levels rising
 */
export function gaussianError(levels: readonly number[], scale: number): number {
  const points = levels.map((level) => level * scale);
  let total = 0;
  points.forEach((level, i) => {
    const from = i === 0 ? -EDGE : Math.max(-EDGE, (points[i - 1]! + level) / 2);
    const to = i === points.length - 1 ? EDGE : Math.min(EDGE, (level + points[i + 1]!) / 2);
    if (to <= from) return;
    const width = (to - from) / INTERVALS;
    for (let k = 0; k <= INTERVALS; k++) {
      const x = from + k * width;
      const share = k === 0 || k === INTERVALS ? 1 : k % 2 === 1 ? 4 : 2;
      total += (share * width * (x - level) ** 2 * Math.exp((-x * x) / 2)) / (3 * Math.sqrt(2 * Math.PI));
    }
  });
  return total;
}

const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * The scale with the least squared error for any grid, by golden-section search around the best of a coarse sweep.
 * @param levels rising, the outermost at a magnitude of 1
 * @throws ArgumentError for fewer than two levels, or levels that do not rise
 */
export function bestGaussianScale(levels: readonly number[]): number {
  if (levels.length < 2 || levels.some((level, i) => !(Number.isFinite(level) && (i === 0 || level > levels[i - 1]!))))
    throw new ArgumentError(`a grid is two or more finite levels that rise, not [${levels.join(", ")}]`);
  const sweep = Array.from({ length: 80 }, (_, i) => 0.1 * (i + 1));
  const errors = sweep.map((scale) => gaussianError(levels, scale));
  const best = sweep[errors.indexOf(Math.min(...errors))]!;
  let [low, high] = [best - 0.1, best + 0.1];
  while (high - low > 1e-9) {
    const [a, b] = [high - GOLDEN * (high - low), low + GOLDEN * (high - low)];
    if (gaussianError(levels, a) < gaussianError(levels, b)) high = b;
    else low = a;
  }
  return (low + high) / 2;
}
