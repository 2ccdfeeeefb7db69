import type { Schedule } from "../nn/optim/index.ts";
import { ArgumentError, HostTensor, PareError, randomKey } from "../tensor/index.ts";
import type { BatchSource } from "./data.ts";
import { firstBroken } from "./diagnose.ts";
import { compileStep, type StepLoop, type StepOptions, type TrainState, withTrained } from "./step.ts";

/** One line of a training log. */
export interface LogEntry {
  /** Steps done, counted from 1. */
  readonly step: number;
  readonly kind: "train" | "evaluate";
  /** `loss`, `gradNorm`, `rate` and metrics; what the evaluation returned. */
  readonly values: Readonly<Record<string, number>>;
  /** Seconds since the run (or its resumption) began. */
  readonly seconds: number;
}

/** Everything that a run needs to go on exactly where it stood. */
export interface Checkpoint {
  readonly step: number;
  readonly state: TrainState;
  readonly data: unknown;
  /** Best evaluation so far, for early stopping. */
  readonly best: { readonly step: number; readonly value: number } | null;
}

/** Where checkpoints go. */
export interface CheckpointStore {
  save(checkpoint: Checkpoint): Promise<void>;
  /** The newest checkpoint, its tensors shaped like `like`; null when there is none. */
  latest(like: TrainState): Promise<Checkpoint | null>;
}

export interface TrainOptions<P, B> extends Omit<StepOptions<P, B>, "example"> {
  readonly data: BatchSource<B>;
  /** Steps in total, those of an interrupted run included. */
  readonly steps: number;
  readonly schedule: Schedule;
  readonly seed?: number;
  /** Measures the parameters every so many steps and after the last. */
  readonly evaluate?: {
    readonly every: number;
    run(params: P, step: number): Promise<Readonly<Record<string, number>>>;
  };
  /** Ends the run when an evaluation's `metric` has not improved for `patience` evaluations. */
  readonly earlyStop?: { readonly metric: string; readonly patience: number; readonly larger?: boolean };
  readonly checkpoint?: { readonly every: number; readonly store: CheckpointStore };
  readonly onLog?: (entry: LogEntry) => void;
  /** Stops after the step under way; a checkpoint is written first. */
  readonly signal?: AbortSignal;
}

export interface TrainResult<P> {
  readonly params: P;
  readonly log: readonly LogEntry[];
  readonly step: number;
  readonly stopped: "done" | "early" | "aborted";
}

/** The loss left the real numbers. */
export class DivergedError extends PareError {
  override readonly code = "DIVERGED";
  readonly step: number;
  /** Name of the first named point whose activation is not finite, or null where no point is to blame. */
  readonly point: string | null;

  constructor(step: number, loss: number, point: string | null, saved: boolean) {
    super(
      `training diverged: the loss is ${loss} at step ${step}; ` +
        (point === null
          ? "no named point of the forward pass was broken before the loss"
          : `the activation at "${point}" broke first`) +
        (saved
          ? `; the state from before this step was saved as checkpoint ${step - 1}`
          : "; no checkpoint store was given"),
    );
    this.step = step;
    this.point = point;
  }
}

/** Steps between snapshots kept in memory, from which the state before a divergence is recomputed. */
const SNAPSHOT_EVERY = 100;

/**
 * Trains parameters on a stream of batches. With a checkpoint store, a run that was stopped (or killed) goes on where its last
 * checkpoint was made, with the same numbers as if it had never stopped.
 * @throws DivergedError when the loss is not finite; ArgumentError for options that cannot be meant.
 */
export async function train<P, B>(options: TrainOptions<P, B>): Promise<TrainResult<P>> {
  const { data, steps, checkpoint, evaluate } = options;
  if (!Number.isInteger(steps) || steps < 1)
    throw new ArgumentError(`steps must be a whole number from 1, not ${steps}`);
  for (const [name, every] of [
    ["evaluate.every", evaluate?.every],
    ["checkpoint.every", checkpoint?.every],
  ] as const) {
    if (every !== undefined && (!Number.isInteger(every) || every < 1))
      throw new ArgumentError(`${name} must be a whole number from 1, not ${every}`);
  }
  const first = data.state();
  const example = data.next();
  data.restore(first);
  const loop = await compileStep({ ...options, example });
  try {
    return await new Run(options, loop).go();
  } finally {
    await loop.dispose();
  }
}

class Run<P, B> {
  readonly #options: TrainOptions<P, B>;
  readonly #loop: StepLoop;
  readonly #log: LogEntry[] = [];
  readonly #began = performance.now();
  #step = 0;
  #best: Checkpoint["best"] = null;
  #snapshot: Checkpoint | null = null;
  /** Step of the newest checkpoint in the store. */
  #saved: number | null = null;

  constructor(options: TrainOptions<P, B>, loop: StepLoop) {
    this.#options = options;
    this.#loop = loop;
  }

  async go(): Promise<TrainResult<P>> {
    const { steps, checkpoint, evaluate, signal } = this.#options;
    const resumed = checkpoint ? await checkpoint.store.latest(await this.#loop.state()) : null;
    if (resumed) {
      this.#restore(resumed);
      this.#saved = resumed.step;
    }
    this.#snapshot = await this.#capture();
    let stopped: TrainResult<P>["stopped"] = "done";
    while (this.#step < steps) {
      if (signal?.aborted) {
        stopped = "aborted";
        break;
      }
      await this.#advance();
      if (evaluate && (this.#step === steps || this.#step % evaluate.every === 0) && (await this.#evaluate())) {
        stopped = "early";
        break;
      }
      if (checkpoint && this.#step % checkpoint.every === 0) await this.#save();
      else if (this.#step % SNAPSHOT_EVERY === 0) this.#snapshot = await this.#capture();
    }
    if (checkpoint && this.#saved !== this.#step) await this.#save();
    const { params } = await this.#loop.state();
    return { params: withTrained(this.#options.params, params), log: this.#log, step: this.#step, stopped };
  }

  /** One step, logged. @throws DivergedError */
  async #advance(): Promise<void> {
    const rate = this.#options.schedule(this.#step);
    const { values, batches } = await this.#run(rate);
    this.#step++;
    if (!Number.isFinite(values.loss!)) await this.#diverged(values.loss!, batches);
    this.#write("train", { ...values, rate });
  }

  async #run(rate: number): Promise<{ values: Record<string, number>; batches: B[] }> {
    const batches = Array.from({ length: this.#options.accumulate ?? 1 }, () => this.#options.data.next());
    const key = randomKey(stepSeed(this.#options.seed ?? 0, this.#step));
    const result = await this.#loop.run(batches as never, HostTensor.from(rate), key);
    return { values: Object.fromEntries(Object.entries(result).map(([name, t]) => [name, t.item()])), batches };
  }

  /** Goes back to the last snapshot, repeats the run up to the broken step, saves that state and says what broke. */
  async #diverged(loss: number, batches: B[]): Promise<never> {
    const broken = this.#step;
    this.#restore(this.#snapshot!);
    while (this.#step < broken - 1) {
      await this.#run(this.#options.schedule(this.#step));
      this.#step++;
    }
    const { checkpoint } = this.#options;
    if (checkpoint) await this.#save();
    const { params } = await this.#loop.state();
    const key = randomKey(stepSeed(this.#options.seed ?? 0, broken - 1));
    const point = await firstBroken(this.#options, withTrained(this.#options.params, params), batches, key);
    throw new DivergedError(broken, loss, point, checkpoint !== undefined);
  }

  /** Runs the evaluation; true when it is time to stop early. */
  async #evaluate(): Promise<boolean> {
    const { evaluate, earlyStop, params } = this.#options;
    const { params: trained } = await this.#loop.state();
    const values = await evaluate!.run(withTrained(params, trained), this.#step);
    this.#write("evaluate", values);
    if (!earlyStop) return false;
    const value = values[earlyStop.metric];
    if (value === undefined)
      throw new ArgumentError(
        `early stopping watches "${earlyStop.metric}", but the evaluation returned ${Object.keys(values).join(", ")}`,
      );
    const better = this.#best === null || (earlyStop.larger ? value > this.#best.value : value < this.#best.value);
    if (better) this.#best = { step: this.#step, value };
    return this.#step - this.#best!.step >= earlyStop.patience * evaluate!.every;
  }

  async #capture(): Promise<Checkpoint> {
    return { step: this.#step, state: await this.#loop.state(), data: this.#options.data.state(), best: this.#best };
  }

  #restore(from: Checkpoint): void {
    this.#loop.load(from.state);
    this.#options.data.restore(from.data);
    this.#step = from.step;
    this.#best = from.best;
  }

  async #save(): Promise<void> {
    this.#snapshot = await this.#capture();
    await this.#options.checkpoint!.store.save(this.#snapshot);
    this.#saved = this.#step;
  }

  #write(kind: LogEntry["kind"], values: Readonly<Record<string, number>>): void {
    const entry: LogEntry = { step: this.#step, kind, values, seconds: (performance.now() - this.#began) / 1000 };
    this.#log.push(entry);
    this.#options.onLog?.(entry);
  }
}

/** A seed of its own for each step of each run. */
function stepSeed(seed: number, step: number): number {
  return (Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(step + 1, 0x85ebca6b)) >>> 0;
}
