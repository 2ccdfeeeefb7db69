import { ArgumentError, PareError } from "../../../tensor/index.ts";

export interface TimingOptions {
  /** Runs of each before anything counts. Default 2. */
  readonly warmUps?: number;
  /** Runs of each that count, in turns. Default 7. */
  readonly repeats?: number;
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

/** Spread of the faster runs that is taken without more of them. */
const MOST_SPREAD = 0.2;
/** Standard error of the lower quartile, as a share of it, that still lets architectures be ranked. */
const MOST_ERROR = 0.1;
/** Runs are raised up to so many times their number. */
const MOST_MORE = 4;
/** Share of things that may be left out for noise before nothing is to be believed. */
const MOST_LEFT_OUT = 0.25;

/**
 * Lower quartiles of the times of several things, which are run in turns, so that what the machine does meanwhile falls on
 * all of them. Whatever else the machine does only adds to a time, often doubling it for seconds, so that the faster runs
 * tell what a thing takes, and half of the runs may be disturbed. Runs whose numbers are not positive and finite, or too
 * long, are dropped and made again. Where twice the distance from the fastest run to the quartile is more than 20 % of it,
 * more runs are made; where its standard error is then still above 10 %, the thing is left out.
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
  const spread = (i: number): number => (runs[i]!.length === 0 ? 0 : spreadOf(runs[i]!));
  const widest = (which: readonly number[]): string => `${(100 * Math.max(...which.map(spread))).toFixed(0)} %`;
  const wide = (i: number): boolean => spread(i) > MOST_SPREAD;
  for (let more = 2; more <= MOST_MORE && all.some(wide); more *= 2) {
    const again = all.filter(wide);
    warn(
      `${again.length} of ${tasks.length} latencies vary by up to ${widest(again)} between runs; each is run ${more * repeats} times`,
    );
    await until(more * repeats, again);
  }
  const failed = all.filter((i) => runs[i]!.length < repeats).length;
  if (failed > 0) warn(`${failed} of ${tasks.length} latencies could not be measured and are left out`);
  // Of seven normal numbers, the spread is 1.36 deviations, as many as the standard error of a lower quartile of one.
  const noisy = (i: number): boolean => wide(i) && spread(i) / Math.sqrt(runs[i]!.length) > MOST_ERROR;
  const left = all.filter(noisy);
  if (left.length > MOST_LEFT_OUT * tasks.length)
    throw new NoisyProbeError(
      `the latencies of ${left.length} of ${tasks.length} architectures vary by up to ${widest(left)} between runs, too much to rank them; end other programs, or measure processor time`,
    );
  if (left.length > 0) warn(`${left.length} of ${tasks.length} latencies stay too noisy and are left out`);
  return runs.map((own, i) => {
    if (own.length < repeats || noisy(i)) return null;
    const timeOf = (number: number): number => lowerQuartile(own.map((run) => run[number]!));
    return { values: own[0]!.map((_, number) => timeOf(number)), noise: spread(i), runs: own.length };
  });
}

function isGood(numbers: readonly number[], { longest = Infinity }: TimingOptions): boolean {
  return numbers.every((value) => Number.isFinite(value) && value > 0) && numbers[0]! <= longest;
}

function lowerQuartile(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (sorted.length - 1) / 4;
  const [low, high] = [sorted[Math.floor(at)]!, sorted[Math.ceil(at)]!];
  return low + (at - Math.floor(at)) * (high - low);
}

/** Twice the distance of the runs' first numbers from the fastest to the lower quartile, as a share of that. */
function spreadOf(runs: readonly (readonly number[])[]): number {
  const first = runs.map(([value]) => value!);
  return 2 * (1 - Math.min(...first) / lowerQuartile(first));
}
