import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Rng } from "../src/tensor/rng.ts";

/** One side of a comparison. It lives in a process of its own, so that memory and threads do not mix. */
export interface Participant {
  setup(): Promise<void>;
  /** Makes ready for a round of one of its works; not measured. */
  begin?(work: string): Promise<void>;
  /** Does the measured work once; returns a number to check it by (a loss, a token, one element of a product). */
  step(work: string): Promise<number>;
  dispose(): Promise<void>;
  /** Further figures of its own, asked for after the last round. */
  figures?(): Record<string, number> | Promise<Record<string, number>>;
}

/** What a participant's module exports. */
export interface ParticipantModule {
  create(threads: number, settings: unknown): Participant;
}

export interface Entry {
  readonly name: string;
  /** The module to load, relative to this folder. */
  readonly module: string;
  /** Handed to the module as it is, by way of JSON. */
  readonly settings?: unknown;
  /** Names of what it does, for a module that does several things. */
  readonly works?: readonly string[];
}

/** What a participant that does one thing is asked for. */
const onlyWork = "step";

/** What was measured of one work of one participant. Times are in seconds. */
export interface Measured {
  readonly setupSeconds: number;
  /** Peak resident memory of the set-up, as `peakBytes`. */
  readonly setupPeakBytes: number;
  readonly stepSeconds: readonly number[];
  /** Processor time of the same steps, all threads together: what a busy machine disturbs less. */
  readonly cpuSeconds: readonly number[];
  /** What the steps returned, those of the warm-up included. */
  readonly values: readonly number[];
  /** Peak resident memory of the rounds, less what the process took before `setup`. */
  readonly peakBytes: number;
  readonly figures: Readonly<Record<string, number>>;
}

/** What the harness asks of a participant's process. */
export interface Request {
  readonly do: keyof Replies;
  /** Of a warm-up and of a round. */
  readonly work: string;
  /** Of a round: how long to go on beginning steps. */
  readonly seconds: number;
}

export interface Replies {
  start: { setupSeconds: number; setupPeakBytes: number };
  warmUp: { values: number[] };
  round: { stepSeconds: number[]; cpuSeconds: number[]; values: number[] };
  finish: { peakBytes: number; figures: Record<string, number> };
}

export interface RunOptions {
  readonly rounds: number;
  readonly threads: number;
  /** How long a participant is at one work in one round; it finishes the step it is in. */
  readonly seconds: number;
  readonly log: (line: string) => void;
}

/** Runs participants that have one work each in turns; returns what was measured by name. */
export async function compare(entries: readonly Entry[], options: RunOptions): Promise<Record<string, Measured>> {
  const measured = await compareWorks(entries, options);
  return Object.fromEntries(entries.map(({ name }) => [name, measured[name]![onlyWork]!]));
}

/**
 * Runs all participants in turns, in a new random order each round; in its turn, each does all its works. Returns what
 * was measured by name and work.
 */
export async function compareWorks(
  entries: readonly Entry[],
  { rounds, threads, seconds, log }: RunOptions,
): Promise<Record<string, Record<string, Measured>>> {
  const rng = new Rng(0);
  const runners: Runner[] = [];
  try {
    const started: Replies["start"][] = [];
    for (const entry of entries) {
      log(`${entry.name}: setting up`);
      const runner = new Runner(entry, threads);
      runners.push(runner);
      started.push(await runner.ask("start"));
      await runner.warmUp();
    }
    for (let round = 1; round <= rounds; round++) {
      for (const i of rng.permutation(runners.length))
        await runners[i]!.round(seconds, (line) => log(`round ${round} of ${rounds}, ${line}`));
    }
    const result: Record<string, Record<string, Measured>> = {};
    for (const [i, runner] of runners.entries()) {
      const rest = { ...started[i]!, ...(await runner.ask("finish")) };
      result[runner.name] = Object.fromEntries(
        Array.from(runner.measured, ([work, steps]) => [work, { ...steps, ...rest }]),
      );
    }
    return result;
  } finally {
    for (const runner of runners) runner.stop();
  }
}

/** A participant's process, driven by messages. */
class Runner {
  readonly name: string;
  /** So far, by work. */
  readonly measured: ReadonlyMap<string, Replies["round"]>;
  readonly #child: ChildProcess;
  readonly #failed: Promise<never>;

  constructor({ name, module, settings = null, works = [onlyWork] }: Entry, threads: number) {
    this.name = name;
    this.measured = new Map(works.map((work) => [work, { stepSeconds: [], cpuSeconds: [], values: [] }]));
    const path = fileURLToPath(new URL("participant.ts", import.meta.url));
    this.#child = fork(path, [module, `${threads}`, JSON.stringify(settings)], {
      cwd: fileURLToPath(new URL("..", import.meta.url)),
      execArgv: ["--import", "tsx", "--expose-gc"],
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    this.#failed = new Promise((_, reject) => {
      this.#child.once("exit", (code, signal) => {
        reject(new Error(`the process of ${name} ended with ${signal ?? `code ${code}`}; see its message above`));
      });
    });
    this.#failed.catch(() => {});
  }

  /** @throws Error when the process ends instead of answering. */
  ask<K extends keyof Replies>(what: K, { work = "", seconds = 0 } = {}): Promise<Replies[K]> {
    const reply = new Promise<Replies[K]>((resolve) => this.#child.once("message", (m) => resolve(m as Replies[K])));
    this.#child.send({ do: what, work, seconds } satisfies Request);
    return Promise.race([reply, this.#failed]);
  }

  async warmUp(): Promise<void> {
    for (const [work, sums] of this.measured) sums.values.push(...(await this.ask("warmUp", { work })).values);
  }

  /** One turn: `seconds` of each work. */
  async round(seconds: number, log: (line: string) => void): Promise<void> {
    for (const [work, sums] of this.measured) {
      const { stepSeconds, cpuSeconds, values } = await this.ask("round", { work, seconds });
      sums.stepSeconds.push(...stepSeconds);
      sums.cpuSeconds.push(...cpuSeconds);
      sums.values.push(...values);
      log(`${this.name}: ${(1000 * median(stepSeconds)).toFixed(1)} ms a ${work}`);
    }
  }

  stop(): void {
    this.#child.kill();
  }
}

/** The middle value; the mean of the two middle ones where their number is even. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
