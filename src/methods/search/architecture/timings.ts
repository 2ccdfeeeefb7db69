import { ArgumentError, PareError } from "../../../tensor/index.ts";

export interface TimingOptions {
  /** Runs of each before anything counts. Default 2. */
  readonly warmUps?: number;
  /** Runs of each that count, in turns. Default 7. */
  readonly repeats?: number;
  /**
   * What becomes of the runs' times: the middle one, or the least. Other programs only ever make a run longer, so that on
   * a busy machine the least is nearer to what a quiet one would take. Default `median`.
   */
  readonly statistic?: "median" | "least";
  /** Times above this count as failed, in the unit of the samples. */
  readonly longest?: number;
  readonly warn?: (message: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** Numbers of one thing that was timed. */
export interface Timing {
  /** One for each number that a run gives. */
  readonly values: readonly number[];
  /** Spread of the first number between runs, as a share of it. */
  readonly noise: number;
  readonly runs: number;
}

/** Times differ too much from run to run to tell which is less. */
export class NoisyProbeError extends PareError {
  override readonly code = "NOISY_PROBE";
}

/** Spread between runs that is taken without more of them. */
const MOST_NOISE = 0.2;
/** Runs are raised up to so many times their number. */
const MOST_MORE = 4;
/** Share of things that may be left out for noise before nothing is to be believed. */
const MOST_LEFT_OUT = 0.25;

/**
 * Times several things in turns, so that what the machine does meanwhile falls on all of them. Runs whose numbers are not
 * positive and finite, or too long, are dropped and made again. Where the spread between runs is above 20 % (of the
 * `median`, the distance between the quartiles; of the `least`, between it and the first quartile), more runs are made;
 * what is still too noisy then is left out.
 * @returns null for what failed or stayed too noisy
 * @throws NoisyProbeError when more than a quarter was too noisy
 */
export async function interleavedTimings(
  tasks: readonly (() => Promise<readonly number[]>)[],
  options: TimingOptions = {},
): Promise<(Timing | null)[]> {
  const { warmUps = 2, repeats = 7, warn = () => undefined } = options;
  if (!Number.isInteger(repeats) || repeats < 1)
    throw new ArgumentError(`repeats must be a whole number from 1, not ${repeats}`);
  const runs = tasks.map((): (readonly number[])[] => []);
  const failures = tasks.map(() => 0);
  const round = async (which: readonly number[]): Promise<void> => {
    for (const i of which) {
      options.signal?.throwIfAborted();
      const numbers = await tasks[i]!();
      if (isGood(numbers, options)) runs[i]!.push(numbers);
      else failures[i]!++;
    }
  };
  const all = tasks.map((_, i) => i);
  for (let i = 0; i < warmUps; i++) for (const task of all) await tasks[task]!();
  const until = async (wanted: number, which: readonly number[]): Promise<void> => {
    for (let left = which; left.length > 0; )
      await round((left = left.filter((i) => runs[i]!.length < wanted && failures[i]! < repeats)));
  };
  await until(repeats, all);
  const noisy = (i: number): boolean => runs[i]!.length > 0 && noiseOf(runs[i]!, options) > MOST_NOISE;
  for (let more = 2; more <= MOST_MORE && all.some(noisy); more *= 2) {
    const again = all.filter(noisy);
    warn(
      `${again.length} of ${tasks.length} latencies vary by up to ${percent(Math.max(...again.map((i) => noiseOf(runs[i]!, options))))} between runs; each is run ${more * repeats} times`,
    );
    await until(more * repeats, again);
  }
  const failed = all.filter((i) => runs[i]!.length < repeats).length;
  if (failed > 0) warn(`${failed} of ${tasks.length} latencies could not be measured and are left out`);
  const left = all.filter(noisy);
  if (left.length > MOST_LEFT_OUT * tasks.length)
    throw new NoisyProbeError(
      `the latencies of ${left.length} of ${tasks.length} architectures vary by up to ${percent(Math.max(...left.map((i) => noiseOf(runs[i]!, options))))} between runs, too much to rank them; end other programs, or measure processor time`,
    );
  if (left.length > 0) warn(`${left.length} of ${tasks.length} latencies stay too noisy and are left out`);
  return runs.map((own, i) => {
    if (own.length < repeats || noisy(i)) return null;
    const values = own[0]!.map((_, number) =>
      statisticOf(
        own.map((run) => run[number]!),
        options,
      ),
    );
    return { values, noise: noiseOf(own, options), runs: own.length };
  });
}

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

function isGood(numbers: readonly number[], { longest = Infinity }: TimingOptions): boolean {
  return numbers.every((value) => Number.isFinite(value) && value > 0) && numbers[0]! <= longest;
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const [low, high] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!];
  return low + (at - Math.floor(at)) * (high - low);
}

function statisticOf(values: readonly number[], { statistic = "median" }: TimingOptions): number {
  return quantile(values, statistic === "median" ? 0.5 : 0);
}

function noiseOf(runs: readonly (readonly number[])[], options: TimingOptions): number {
  const first = runs.map(([value]) => value!);
  const [low, high] = options.statistic === "least" ? [0, 0.25] : [0.25, 0.75];
  return (quantile(first, high) - quantile(first, low)) / statisticOf(first, options);
}
