import { ArgumentError, Rng } from "../tensor/index.ts";

/** What one document adds to a ratio of sums: for a mean, its value with weight 1; for perplexity, nats and tokens. */
export interface Term {
  readonly total: number;
  readonly weight: number;
}

export interface Estimate {
  readonly value: number;
  /** Standard deviation of the value over resamples. */
  readonly stderr: number;
  /** Ends of the percentile interval. */
  readonly low: number;
  readonly high: number;
}

export interface BootstrapOptions {
  /** What to make of the ratio; default the ratio itself. */
  readonly of?: (ratio: number) => number;
  readonly seed?: number;
  /** Default 1000. */
  readonly resamples?: number;
  /** Share of resamples within the interval, default 0.95. */
  readonly confidence?: number;
}

/**
 * A function of `sum(total) / sum(weight)` with its standard error and percentile interval, by drawing documents with
 * replacement (Efron 1979).
 * @throws ArgumentError when there is no document, or for options out of range
 */
export function bootstrap(terms: readonly Term[], options: BootstrapOptions = {}): Estimate {
  return estimate([terms], options);
}

/**
 * The difference `first - second` of two systems on the same documents. Each resample draws the same documents for both,
 * so that what makes a document hard or easy for both cancels out.
 * @throws ArgumentError when the two do not have the same number of documents
 */
export function pairedDifference(
  first: readonly Term[],
  second: readonly Term[],
  options: BootstrapOptions = {},
): Estimate {
  if (first.length !== second.length)
    throw new ArgumentError(`${first.length} and ${second.length} documents are no pairs; give the same ones twice`);
  return estimate([first, second], options);
}

function estimate(
  systems: readonly (readonly Term[])[],
  { of = (ratio) => ratio, seed = 0, resamples = 1000, confidence = 0.95 }: BootstrapOptions,
): Estimate {
  const count = systems[0]!.length;
  if (count === 0) throw new ArgumentError("there is no document to estimate from");
  if (!Number.isInteger(resamples) || resamples < 2)
    throw new ArgumentError(`resamples must be a whole number from 2, not ${resamples}`);
  if (!(confidence > 0 && confidence < 1))
    throw new ArgumentError(`confidence must lie between 0 and 1, not ${confidence}`);
  const statistic = (documents: readonly number[]): number => {
    const [first, second] = systems.map((terms) => of(ratio(terms, documents)));
    return second === undefined ? first! : first! - second;
  };
  const rng = new Rng(seed);
  const values = Array.from({ length: resamples }, () => statistic(rng.integers(count, count))).sort((a, b) => a - b);
  const mean = values.reduce((a, b) => a + b) / resamples;
  const spread = values.reduce((a, b) => a + (b - mean) ** 2, 0) / (resamples - 1);
  return {
    value: statistic(Array.from({ length: count }, (_, i) => i)),
    stderr: Math.sqrt(spread),
    low: quantile(values, (1 - confidence) / 2),
    high: quantile(values, (1 + confidence) / 2),
  };
}

function ratio(terms: readonly Term[], documents: readonly number[]): number {
  let [total, weight] = [0, 0];
  for (const i of documents) {
    total += terms[i]!.total;
    weight += terms[i]!.weight;
  }
  return total / weight;
}

/** The quantile `p` of sorted values, interpolated between the two nearest. */
export function quantile(sorted: ArrayLike<number>, p: number): number {
  const at = p * (sorted.length - 1);
  const below = Math.floor(at);
  const low = sorted[below]!;
  const share = at - below;
  return share === 0 ? low : low + share * (sorted[below + 1]! - low);
}
