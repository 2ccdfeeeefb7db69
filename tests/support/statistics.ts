/** Largest distance between the distribution of `sample` and a distribution function, times the root of the count. */
export function kolmogorovSmirnov(sample: readonly number[], distribution: (x: number) => number): number {
  const sorted = [...sample].sort((a, b) => a - b);
  const n = sorted.length;
  let worst = 0;
  sorted.forEach((x, i) => {
    const p = distribution(x);
    worst = Math.max(worst, p - i / n, (i + 1) / n - p);
  });
  return worst * Math.sqrt(n);
}

/** A `kolmogorovSmirnov` above this happens by chance once in a thousand times. */
export const KS_LIMIT = 1.95;

export function meanOf(sample: readonly number[]): number {
  return sample.reduce((a, b) => a + b, 0) / sample.length;
}

export function varianceOf(sample: readonly number[]): number {
  const mean = meanOf(sample);
  return sample.reduce((total, x) => total + (x - mean) ** 2, 0) / sample.length;
}

/** Correlation of two equally long samples, times the root of their length: about standard normal when independent. */
export function correlation(a: readonly number[], b: readonly number[]): number {
  const [ma, mb] = [meanOf(a), meanOf(b)];
  const covariance = a.reduce((total, x, i) => total + (x - ma) * (b[i]! - mb), 0) / a.length;
  return (covariance / Math.sqrt(varianceOf(a) * varianceOf(b))) * Math.sqrt(a.length);
}

/** Chi-square statistic of counts against equal expectations, standardized: about standard normal for many cells. */
export function chiSquareExcess(counts: readonly number[]): number {
  const expected = meanOf(counts);
  const statistic = counts.reduce((total, c) => total + (c - expected) ** 2 / expected, 0);
  const freedom = counts.length - 1;
  return (statistic - freedom) / Math.sqrt(2 * freedom);
}

/** Distribution function of the standard normal (Abramowitz and Stegun 7.1.26: within 1.5e-7). */
export function normalCdf(x: number): number {
  const z = Math.abs(x) / Math.SQRT2;
  const t = 1 / (1 + 0.3275911 * z);
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const upper = 0.5 * series * Math.exp(-z * z);
  return x > 0 ? 1 - upper : upper;
}
