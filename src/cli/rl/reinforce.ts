import { rm } from "node:fs/promises";
import { join } from "node:path";
import { type MaskKind, masksByPath, type TrainedModel, trainingMasks } from "../../methods/index.ts";
import { decoderConfig, type Weights } from "../../models/index.ts";
import { optim } from "../../nn/index.ts";
import { type HostTensor, Rng } from "../../tensor/index.ts";
import { decoderPolicy, type LogEntry, Progress, PromptBatches, trainPolicy } from "../../train/index.ts";
import { checkpointFolder, openRunLog } from "../../train/node.ts";
import { writeFormats } from "../compress/formats.ts";
import { stage } from "../compress/staging.ts";
import { claim, type RunJob, weightsIn, writeCurves } from "../train/run-folder.ts";
import type { Question } from "./prompts.ts";

export interface ReinforceJob extends RunJob {
  readonly questions: readonly Question[];
  /** Tokens that end a completion. */
  readonly stop: readonly number[];
  /** Entries of matrices that may change, and the share of them that counts as principal; null for all. */
  readonly mask: { readonly kind: MaskKind; readonly share: number } | null;
  /** Prompts in a step. */
  readonly batch: number;
  /** Completions of each prompt. */
  readonly samples: number;
  /** Factor of the divergence from the model that training began with, which is measured in any case. */
  readonly kl: number;
  readonly temperature: number;
  readonly maxTokens: number;
}

/** Means over the first and over the last steps, ten where there are twenty. */
export interface Course {
  readonly first: number;
  readonly last: number;
}

export interface ReinforceOutcome {
  readonly steps: number;
  readonly reward: Course;
  /** Divergence from the model that training began with, in nats a token; null where no step taught anything. */
  readonly kl: Course | null;
  /** Share of prompts whose completions all earned the same, so that they taught nothing. */
  readonly skipped: Course;
  readonly weights: Weights;
}

/** Steps that a mean is taken over; as many in a row that teach nothing end the run. */
const STEPS = 10;
/** Steps between two lines of progress, and seconds where steps are slow. */
const TOLD_EVERY = 10;
const TOLD_AFTER = 10;
const SHARE_OF_WARM_UP = 0.05;

/**
 * Trains a model by rewards into a folder: the model, and in `training/` the log and the curves. Stopped half-way it
 * leaves its checkpoints beside the folder, with which the same command goes on; the folder itself appears when it is whole.
 * @returns null when the signal stopped it
 * @throws UsageError where the checkpoints there are of another run; NoLearningSignalError; PolicyDivergedError
 */
export async function reinforce(job: ReinforceJob): Promise<ReinforceOutcome | null> {
  const { beginning, method, note } = job;
  const staging = await stage(job.out, job);
  try {
    await claim(staging.state, identityOf(job), job);
    const run = await trainedIn(staging.state, job);
    if (!run) {
      await staging.discard();
      note(`stopped; the same command goes on from ${staging.state}`);
      return null;
    }
    const finished = await method.finish(run.model);
    const weights = weightsIn(finished.weights, job.dtype);
    const json = { ...beginning.json, tie_word_embeddings: finished.config.tied };
    const name = job.out.split(/[/\\]/).at(-1)!;
    await writeFormats(staging.folder, { name, json, weights, tokenizer: beginning.tokenizer }, ["safetensors"]);
    await writeCurves(join(staging.folder, "training"), `${name}: rewards, ${method.name}`, run.log);
    await staging.finish();
    const [reward, skipped] = [courseOf(run.log, "reward")!, courseOf(run.log, "skipped")!];
    return { steps: run.steps, reward, kl: courseOf(run.log, "kl"), skipped, weights };
  } catch (error) {
    await staging.discard();
    throw error;
  }
}

function identityOf({ method, mask, steps, batch, samples, ...job }: ReinforceJob): Record<string, unknown> {
  const { accumulate, rate, kl, temperature, maxTokens, seed, identity } = job;
  return {
    ...{ method: method.name, mask, steps, batch, samples, accumulate, rate, kl, temperature, maxTokens, seed },
    ...identity,
  };
}

/** The model at the end of training, and all that was logged; null when the signal stopped it. */
async function trainedIn(
  state: string,
  job: ReinforceJob,
): Promise<{ readonly model: TrainedModel; readonly steps: number; readonly log: readonly LogEntry[] } | null> {
  const { beginning, method, steps, batch, samples, seed, signal, note } = job;
  const store = checkpointFolder(join(state, "checkpoints"));
  const log = await openRunLog(join(state, "log.jsonl"), await store.newest());
  let told = 0;
  const progress = new Progress({ steps, perStep: { count: batch * samples, unit: "completions" } });
  try {
    const masks = await masksFor(job);
    const { config, weights } = await method.start({
      config: decoderConfig(beginning.json),
      weights: beginning.weights,
    });
    const result = await trainPolicy<Weights, Question, unknown>({
      ...(job.threads !== undefined && { threads: job.threads }),
      policy: decoderPolicy(config, weights),
      prompts: new PromptBatches(job.questions, { batch, seed }),
      verify: ({ judge }, { tokens }) => judge(beginning.tokenizer.decode(tokens)),
      samples,
      maxTokens: job.maxTokens,
      stop: job.stop,
      steps,
      seed,
      accumulate: job.accumulate,
      temperature: job.temperature,
      kl: job.kl,
      patience: Math.min(STEPS, steps),
      solved: 1,
      optimizer: optim.adamw({ weightDecay: 0 }),
      schedule: optim.warmUp(Math.ceil(SHARE_OF_WARM_UP * steps), optim.constantRate(job.rate)),
      ...(masks && { masks }),
      ...(method.trainable && { trainable: method.trainable }),
      checkpoint: { every: job.checkpointEvery, store },
      signal,
      onLog(entry) {
        log.write(entry);
        if (entry.step % TOLD_EVERY !== 0 && entry.step !== steps && entry.seconds < told + TOLD_AFTER) return;
        told = entry.seconds;
        note(progress.line(entry));
      },
    });
    if (result.stopped === "aborted") return null;
    if (result.stopped === "early")
      note(`all completions of the last ${STEPS} steps were right: done after step ${result.step}`);
    return { model: { config, weights: result.params }, steps: result.step, log: log.entries };
  } catch (error) {
    if (signal.aborted && error === signal.reason) return null;
    // What has no checkpoint has nothing to go on from, and must not stand in the way of a run with other options.
    if ((await store.newest()) === 0) await rm(state, { recursive: true, force: true });
    throw error;
  }
}

async function masksFor({
  mask,
  beginning,
  seed,
  signal,
  note,
}: ReinforceJob): Promise<Record<string, HostTensor> | null> {
  if (!mask) return null;
  const rng = new Rng(seed).fork("mask");
  const masks = await trainingMasks(beginning.weights, { ...mask, rng, signal }, (done, count) => {
    if (done === count || done % TOLD_EVERY === 0) note(`${mask.kind} mask: ${done} of ${count} matrices`);
  });
  return masksByPath(masks);
}

function courseOf(log: readonly LogEntry[], value: string): Course | null {
  const values = log.flatMap(({ values: { [value]: x } }) => (x === undefined ? [] : [x]));
  if (values.length === 0) return null;
  const count = Math.min(STEPS, Math.ceil(values.length / 2));
  const mean = (part: readonly number[]): number => part.reduce((sum, x) => sum + x, 0) / part.length;
  return { first: mean(values.slice(0, count)), last: mean(values.slice(-count)) };
}
