import { ArgumentError, Rng } from "../../../tensor/index.ts";
import { GaussianProcess } from "../gaussian-process.ts";
import { type Choices, mostPromising } from "../improvement.ts";
import { type Kernel, type MixedPoint, mixedKernel } from "../kernel.ts";
import { hypervolume, paretoFront } from "../pareto.ts";
import {
  type Architecture,
  architectureChoices,
  architectureName,
  architecturePoint,
  checkArchitecture,
  POINT_NUMBERS,
  type SearchSpace,
  spreadArchitectures,
} from "./architecture.ts";

/** An architecture that was tried: made from the backbone, trained on for a short while, and measured. */
export interface Trial {
  /** Counted from 1. */
  readonly number: number;
  readonly architecture: Architecture;
  /** On text for validation, in nats a token. */
  readonly loss: number;
  /** As the latency model predicts it. */
  readonly ttftMs: number;
}

export interface SearchOptions {
  readonly space: SearchSpace;
  /** Predicted time to the first token, in milliseconds. */
  latency(x: Architecture): number;
  /** Validation loss after continued pre-training, in nats a token. */
  evaluate(x: Architecture): Promise<number>;
  /** Trials in all. */
  readonly trials: number;
  /** Trials that cover the space before the search begins. Default 8. */
  readonly initial?: number;
  /** Architectures of the space to choose among. Default: all that there are. */
  readonly pool?: readonly Architecture[];
  /** Trials that are chosen at once. Default 4. */
  readonly batch?: number;
  /** What is worse than this in loss or latency does not count. */
  readonly reference: { readonly loss: number; readonly ttftMs: number };
  readonly seed: number;
  /** Trials of the same search that were made before, in order: it goes on behind them as if it had never stopped. */
  readonly done?: readonly Trial[];
  readonly warn?: (message: string) => void;
  readonly signal?: AbortSignal | undefined;
}

/** The front of trials by latency, both to be small. */
export function trialFront(trials: readonly Trial[]): Trial[] {
  return paretoFront(
    trials,
    ({ ttftMs }) => ttftMs,
    ({ loss }) => loss,
  );
}

/** Area between trials and the reference, in milliseconds times nats a token. */
export function trialHypervolume(trials: readonly Trial[], { loss, ttftMs }: SearchOptions["reference"]): number {
  return hypervolume(
    trials.map((trial) => [trial.ttftMs, trial.loss] as const),
    [ttftMs, loss],
  );
}

/**
 * Latency-guided search (MobileLLM-Flash, Huang et al. 2026, stage 2): after trials that cover the space, batches by expected
 * improvement of the hypervolume under a Gaussian process of the loss.
 * @throws ArgumentError for options that cannot be meant, and trials done that are not of the space
 */
export async function* searchArchitectures(options: SearchOptions): AsyncGenerator<Trial, void, undefined> {
  const {
    space,
    latency,
    evaluate,
    trials: total,
    initial = 8,
    batch = 4,
    reference,
    seed,
    pool,
    done = [],
    signal,
  } = options;
  if (!Number.isInteger(initial) || initial < 2 || initial > total)
    throw new ArgumentError(`a search of ${total} trials starts with 2 to ${total} of them, not ${initial}`);
  for (const { architecture } of done) checkArchitecture(architecture, space);
  const rng = new Rng(seed).fork("search");
  const trials = [...done];
  const upTo = async function* (architectures: readonly Architecture[], first: number): AsyncGenerator<Trial> {
    for (const [i, architecture] of architectures.entries()) {
      if (first + i < trials.length) continue;
      signal?.throwIfAborted();
      const trial = {
        number: trials.length + 1,
        architecture,
        loss: await evaluate(architecture),
        ttftMs: latency(architecture),
      };
      trials.push(trial);
      yield trial;
    }
  };
  const start = rng.fork("initial");
  yield* upTo(pool ? start.sample(pool, initial) : spreadArchitectures(space, initial, start), 0);
  if (trialHypervolume(trials.slice(0, initial), reference) === 0)
    options.warn?.(
      `none of the first ${initial} trials is better than the reference in both (loss ${reference.loss.toFixed(3)}, ${reference.ttftMs.toFixed(1)} ms), so that their hypervolume is 0; raise it, or give smaller architectures`,
    );
  const choices = pool ? poolChoices(pool) : architectureChoices(space);
  for (let first = initial; first < total; first += batch) {
    const known = trials.slice(0, first);
    // The whole batch again where it was begun before, so that the rest of it is the same.
    const chosen = await mostPromising({
      rng: rng.fork(`batch from ${first}`),
      choices,
      evaluated: known.map(({ architecture }) => architecture),
      belief: await lossBelief(known, space, rng.fork(`belief from ${first}`)),
      known: latency,
      reference: [reference.ttftMs, reference.loss],
      batch: Math.min(batch, total - first),
    });
    if (chosen.length === 0) return;
    yield* upTo(chosen, first);
  }
}

/** Everything is next to everything. */
function poolChoices(pool: readonly Architecture[]): Choices<Architecture> {
  return { key: architectureName, random: (rng) => rng.choice(pool), neighbours: () => pool };
}

async function lossBelief(
  trials: readonly Trial[],
  space: SearchSpace,
  rng: Rng,
): Promise<GaussianProcess<Architecture>> {
  const place = architecturePoint(space);
  const points = new Map<string, MixedPoint>();
  const pointOf = (x: Architecture): MixedPoint => {
    const name = architectureName(x);
    let found = points.get(name);
    if (!found) points.set(name, (found = place(x)));
    return found;
  };
  const mixed = mixedKernel(POINT_NUMBERS);
  const kernel: Kernel<Architecture> = {
    parameters: mixed.parameters,
    value: (a, b, parameters, gradient) => mixed.value(pointOf(a), pointOf(b), parameters, gradient),
  };
  return await GaussianProcess.fit(
    kernel,
    trials.map(({ architecture }) => architecture),
    trials.map(({ loss }) => loss),
    { rng },
  );
}
