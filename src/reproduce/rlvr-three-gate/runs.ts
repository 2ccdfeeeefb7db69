import {
  analyzeUpdates,
  type BitMask,
  changedMask,
  type MatrixPair,
  summaryOf,
  type UpdateReport,
  type UpdateSummary,
} from "../../methods/index.ts";
import type { Weights } from "../../models/index.ts";
import { asWeight, type Dense, optim } from "../../nn/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { Rng } from "../../tensor/index.ts";
import { decoderPolicy, isLora, train, trainPolicy } from "../../train/index.ts";
import type { Setting } from "../system.ts";
import { AnsweredSums, answerLoss, config, isRight, POINT, RandomSums, type Sum } from "./addition.ts";

const SEQUENCES = 128;
const SAMPLES = 8;

/** The same for all runs, so that what differs is where the gradient comes from. */
export interface RunOptions {
  readonly rate: number;
  readonly updates: number;
  /** Which draws, of data and of completions. */
  readonly draw: number;
}

const optimizer = () => optim.adamw({ weightDecay: 0 });

/** Trains on right answers. */
export async function fineTune(
  { signal }: Setting,
  weights: Weights,
  { rate, updates, draw }: RunOptions,
): Promise<Weights> {
  const { params } = await train({
    params: weights,
    data: new AnsweredSums(SEQUENCES, 1, new Rng(draw).fork("answers")),
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
  readonly masks?: Readonly<Record<string, BitMask>>;
  readonly trainable?: (path: string) => boolean;
  /** Trains adapters only. */
  readonly adapters?: boolean;
}

/** Trains on the model's own answers, by whether they are right. */
export async function reinforce(
  { signal }: Setting,
  weights: Weights,
  { rate, updates, draw, masks, trainable, adapters = false }: ReinforceOptions,
): Promise<Weights> {
  const { params } = await trainPolicy<Weights, Sum, unknown>({
    policy: decoderPolicy(config, weights),
    prompts: new RandomSums(SEQUENCES / SAMPLES, new Rng(draw).fork("sums")),
    verify: isRight,
    samples: SAMPLES,
    maxTokens: 4,
    stop: [POINT],
    steps: updates,
    seed: draw,
    threads: 1,
    rolloutPrecision: adapters ? "f32" : "bf16",
    optimizer: optimizer(),
    schedule: () => rate,
    ...(masks && {
      masks: Object.fromEntries(Object.entries(masks).map(([name, mask]) => [`${name}.values`, mask.toTensor()])),
    }),
    ...(trainable && { trainable }),
    ...(adapters && { trainable: isLora }),
    signal,
  });
  signal.throwIfAborted();
  return params;
}

/** The matrices of the layers, `f32`, by name. */
export function matricesOf(weights: Weights): Map<string, HostTensor> {
  return new Map(
    Object.entries(weights).flatMap(([name, weight]) =>
      name.endsWith("_proj.weight") ? [[name, (asWeight(weight) as Dense).values as HostTensor]] : [],
    ),
  );
}

function pairsOf(before: Weights, after: Weights): MatrixPair[] {
  const trained = matricesOf(after);
  return Array.from(matricesOf(before), ([name, matrix]) => ({ name, before: matrix, after: trained.get(name)! }));
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
