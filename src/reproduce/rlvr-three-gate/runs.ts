import {
  analyzeUpdates,
  type BitMask,
  changedMask,
  layerMatrices,
  type MatrixPair,
  masksByPath,
  summaryOf,
  type UpdateReport,
  type UpdateSummary,
} from "../../methods/index.ts";
import type { Weights } from "../../models/index.ts";
import { optim } from "../../nn/index.ts";
import { Rng } from "../../tensor/index.ts";
import { decoderPolicy, isLora, train, trainPolicy } from "../../train/index.ts";
import type { Setting } from "../system.ts";
import { answeredSums, answerLoss, config, isRight, POINT, randomSums, type Sum } from "./addition.ts";

const SEQUENCES = 128;
const SAMPLES = 8;

/** The same for all runs, so that what differs is where the gradient comes from. */
export interface RunOptions {
  readonly rate: number;
  readonly updates: number;
  /** Which draws, of data and of completions. */
  readonly draw: number;
  /** Texts in an update; default 128. */
  readonly sequences?: number;
}

const optimizer = () => optim.adamw({ weightDecay: 0 });

/** Trains on right answers. */
export async function fineTune(
  { signal }: Setting,
  weights: Weights,
  { rate, updates, draw, sequences = SEQUENCES }: RunOptions,
): Promise<Weights> {
  const { params } = await train({
    params: weights,
    data: answeredSums(sequences, 1, new Rng(draw).fork("answers")),
    steps: updates,
    threads: 1,
    loss: (traced, batch) => answerLoss(config, traced as Weights, batch),
    optimizer: optimizer(),
    schedule: () => rate,
    signal,
  });
  signal.throwIfAborted();
  return params;
}

export interface ReinforceOptions extends RunOptions {
  /** Entries of matrices that may change, by name of the matrix. */
  readonly masks?: ReadonlyMap<string, BitMask>;
  /** Completions of a sum. Default 8. */
  readonly samples?: number;
  /** Trains adapters only. */
  readonly adapters?: boolean;
}

/** Trains on the model's own answers, by whether they are right. */
export async function reinforce(
  { signal }: Setting,
  weights: Weights,
  { rate, updates, draw, sequences = SEQUENCES, samples = SAMPLES, masks, adapters = false }: ReinforceOptions,
): Promise<Weights> {
  const { params } = await trainPolicy<Weights, Sum, unknown>({
    policy: decoderPolicy(config, weights),
    prompts: randomSums(sequences / samples, new Rng(draw).fork("sums")),
    verify: isRight,
    samples,
    maxTokens: 4,
    stop: [POINT],
    steps: updates,
    seed: draw,
    threads: 1,
    rolloutPrecision: adapters ? "f32" : "bf16",
    optimizer: optimizer(),
    schedule: () => rate,
    ...(masks && { masks: masksByPath(masks) }),
    ...(adapters && { trainable: isLora }),
    signal,
  });
  signal.throwIfAborted();
  return params;
}

function pairsOf(before: Weights, after: Weights): MatrixPair[] {
  const trained = layerMatrices(after);
  return Array.from(layerMatrices(before), ([name, matrix]) => ({ name, before: matrix, after: trained.get(name)! }));
}

/** What a run changed. */
export interface Update {
  readonly report: UpdateReport;
  readonly summary: UpdateSummary;
  /** Entries that differ as bfloat16, by matrix. */
  readonly changed: ReadonlyMap<string, BitMask>;
}

export async function updateOf({ signal }: Setting, before: Weights, after: Weights): Promise<Update> {
  const pairs = pairsOf(before, after);
  const report = await analyzeUpdates(pairs, { alpha: 0.3, k: 8, signal });
  return {
    report,
    summary: summaryOf("all", report.matrices),
    changed: new Map(pairs.map(({ name, before: a, after: b }) => [name, changedMask(a, b)])),
  };
}
