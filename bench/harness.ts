import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Rng } from "../src/tensor/rng.ts";

/** One side of a comparison. It lives in a process of its own, so that memory and threads do not mix. */
export interface Participant {
  setup(): Promise<void>;
  /** Does the measured work once; returns a number to check it by (a loss, one element of a product). */
  step(): Promise<number>;
  dispose(): Promise<void>;
  /** Further figures of its own, asked for after the last round. */
  figures?(): Record<string, number>;
}

/** What a participant's module exports. */
export interface ParticipantModule {
  create(threads: number): Participant;
}

export interface Entry {
  readonly name: string;
  /** The module to load, relative to this folder. */
  readonly module: string;
}

/** What was measured of one participant. Times are in seconds. */
export interface Measured {
  readonly setupSeconds: number;
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
  /** Of a round: how long to go on beginning steps. */
  readonly seconds: number;
}

export interface Replies {
  start: { setupSeconds: number; values: number[] };
  round: { stepSeconds: number[]; cpuSeconds: number[]; values: number[] };
  finish: { peakBytes: number; figures: Record<string, number> };
}

export interface RunOptions {
  readonly rounds: number;
  readonly threads: number;
  /** How long a participant works in one round; it finishes the step it is in. */
  readonly seconds: number;
  readonly log: (line: string) => void;
}

/** Runs all participants in turns, in a new random order each round, and returns what was measured by name. */
export async function compare(
  entries: readonly Entry[],
  { rounds, threads, seconds, log }: RunOptions,
): Promise<Record<string, Measured>> {
  const rng = new Rng(0);
  const runners: Runner[] = [];
  try {
    const started: Replies["start"][] = [];
    for (const entry of entries) {
      log(`${entry.name}: setting up`);
      const runner = new Runner(entry, threads);
      runners.push(runner);
      started.push(await runner.ask("start"));
    }
    const measured = entries.map((): Replies["round"] => ({ stepSeconds: [], cpuSeconds: [], values: [] }));
    for (let round = 1; round <= rounds; round++) {
      for (const i of rng.permutation(runners.length)) {
        const { stepSeconds, cpuSeconds, values } = await runners[i]!.ask("round", seconds);
        measured[i]!.stepSeconds.push(...stepSeconds);
        measured[i]!.cpuSeconds.push(...cpuSeconds);
        measured[i]!.values.push(...values);
        log(`round ${round} of ${rounds}, ${runners[i]!.name}: ${(1000 * median(stepSeconds)).toFixed(1)} ms a step`);
      }
    }
    const finished: Replies["finish"][] = [];
    for (const runner of runners) finished.push(await runner.ask("finish"));
    return Object.fromEntries(
      entries.map(({ name }, i) => [
        name,
        {
          ...measured[i]!,
          ...finished[i]!,
          setupSeconds: started[i]!.setupSeconds,
          values: [...started[i]!.values, ...measured[i]!.values],
        },
      ]),
    );
  } finally {
    for (const runner of runners) runner.stop();
  }
}

/** A participant's process, driven by messages. */
class Runner {
  readonly name: string;
  readonly #child: ChildProcess;
  readonly #failed: Promise<never>;

  constructor({ name, module }: Entry, threads: number) {
    this.name = name;
    this.#child = fork(fileURLToPath(new URL("participant.ts", import.meta.url)), [module, `${threads}`], {
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
  ask<K extends keyof Replies>(what: K, seconds = 0): Promise<Replies[K]> {
    const reply = new Promise<Replies[K]>((resolve) => this.#child.once("message", (m) => resolve(m as Replies[K])));
    this.#child.send({ do: what, seconds } satisfies Request);
    return Promise.race([reply, this.#failed]);
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
