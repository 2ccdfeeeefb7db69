import type { Weights } from "../../../models/index.ts";
import {
  AffineInput,
  affineTokenRounding,
  BlockWeight,
  blockRounding,
  fakeQuantized,
  KeptRows,
  keepRows,
  packedWeights,
  storeWeights,
  Weight,
} from "../../../nn/index.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import { ArgumentError, type HostTensor, Rng, sigmoid, slice, sub } from "../../../tensor/index.ts";
import type { AnsweredPrompt, LogEntry } from "../../../train/index.ts";
import { keepMostImportant, pruneDecoder, structuredImportance } from "../structured/index.ts";
import { answerInputs, commonPrefix, type GuardModel, predictAnswers } from "./answers.ts";
import { type CachedLogits, distillGuard } from "./distill.ts";
import { type GuardMetrics, guardMetrics } from "./metrics.ts";
import { checkVerdictIds, type GuardCodec, type GuardExample } from "./verdicts.ts";

/** How a guard is made small. */
export interface GuardRecipe {
  readonly layers: number;
  /** Neurons of each feed-forward layer, a multiple of `group`. */
  readonly ffn: number;
  /** Neighbours in a row that share a scale; divides the width. Default 256. */
  readonly group?: number;
  /** Steps of training in all. */
  readonly steps: number;
  readonly rate: number;
  readonly batch?: number;
  /** Last share of the steps, in which weights and activations are rounded. Default 0.3. */
  readonly quantizedShare?: number;
  /** Learning rate of those; default a fifth of `rate`. */
  readonly quantizedRate?: number;
  /** Share of the teacher in the loss. Default 0.7. */
  readonly lambda?: number;
  readonly tau?: number;
  /** Prompts that importance is measured on. Default 1000. */
  readonly calibration?: number;
  readonly seed?: number;
}

/** A guard behind one stage. */
export interface StageReport extends GuardMetrics {
  readonly stage: "student" | "pruned" | "distilled" | "rounded at once" | "trained for 4 bits" | "packed";
  readonly parameters: number;
  /** Of the weights as they would be stored. */
  readonly bytes: number;
  /** Time for a conversation, in batches. */
  readonly milliseconds: number;
}

export interface CompressedGuard extends GuardModel {
  readonly stages: readonly StageReport[];
  /** Tokens whose rows the head keeps. */
  readonly ids: readonly number[];
  /** What lies on the way. */
  readonly between: {
    /** What is left of the student, before it learns. */
    readonly pruned: GuardModel;
    readonly distilled: GuardModel;
    /** The distilled model on the grid of 4 bits, without training on it. */
    readonly rounded: GuardModel;
    readonly trained: GuardModel;
    /** Packed, its head still whole. */
    readonly whole: GuardModel;
  };
}

export interface CompressGuardOptions extends DeviceOptions {
  /** Stages that are judged and reported; default all. */
  readonly judge?: readonly StageReport["stage"][];
  readonly onStage?: (stage: StageReport) => void;
  readonly onLog?: (what: string, entry: LogEntry) => void;
  readonly signal?: AbortSignal;
}

export interface GuardData {
  readonly codec: GuardCodec;
  readonly training: readonly GuardExample[];
  readonly test: readonly GuardExample[];
}

/**
 * Llama Guard 3-1B-INT4 (Fedorov et al. 2024, arXiv:2411.17713): layers and neurons that matter least on the guard's own
 * prompts go, what is left learns from a larger guard, the last steps with 4-bit weights and 8-bit activations; then the
 * head keeps the rows of the tokens that verdicts consist of.
 * @param student a guard with a head of its own
 * @param teacher a larger guard of the same tokens, or what it predicts for the training prompts
 * @throws ArgumentError for a recipe that does not fit the student, a tied head, verdicts that the kept rows cannot
 *   express, and vocabularies that differ
 */
export async function compressGuard(
  student: GuardModel,
  teacher: GuardModel | CachedLogits,
  { codec, training, test }: GuardData,
  recipe: GuardRecipe,
  { judge: wanted, onStage, onLog, signal, ...device }: CompressGuardOptions = {},
): Promise<CompressedGuard> {
  checkRecipe(student, recipe);
  const ids = codec.ids();
  checkVerdictIds(codec, ids, [...training, ...test]);
  const { steps, rate, quantizedShare = 0.3, quantizedRate = rate / 5, seed = 0, group = 256 } = recipe;
  const room = student.config.maxPositions;
  const prompts = training.map((example) => codec.example(example, room));
  const stages: StageReport[] = [];
  const judge = async (stage: StageReport["stage"], model: GuardModel): Promise<void> => {
    signal?.throwIfAborted();
    if (wanted && !wanted.includes(stage)) return;
    const report = await judged(stage, model, codec, test, device);
    stages.push(report);
    onStage?.(report);
  };
  const learn = (what: string, model: GuardModel, part: number, at: number): Promise<Weights> => {
    const options = { ...recipe, steps: Math.max(1, Math.round(part * steps)), rate: at, seed };
    const log = onLog && { onLog: (entry: LogEntry) => onLog(what, entry) };
    return distillGuard(model, teacher, prompts, { ...options, ...log, ...(signal && { signal }) });
  };

  await judge("student", student);
  const pruned = await pruneGuard(student, prompts, recipe, device);
  await judge("pruned", pruned);
  const distilled = { ...pruned, weights: await learn("distillation", pruned, 1 - quantizedShare, rate) };
  await judge("distilled", distilled);
  const rounded = { ...pruned, weights: await w4a8(distilled.weights, group, device) };
  await judge("rounded at once", rounded);
  const trained = { ...pruned, weights: await learn("training for 4 bits", rounded, quantizedShare, quantizedRate) };
  await judge("trained for 4 bits", trained);
  const whole = { ...pruned, weights: await deployed(trained.weights, device) };
  const packed = { ...pruned, weights: pruneUnembedding(whole.weights, ids) };
  await judge("packed", packed);
  return { ...packed, stages, ids, between: { pruned, distilled, rounded, trained, whole } };
}

/** @throws ArgumentError for sizes and groups that do not fit the student */
export function checkRecipe({ config }: GuardModel, { layers, ffn, group = 256 }: GuardRecipe): void {
  if (config.tied)
    throw new ArgumentError(
      "the student's head shares the embedding's matrix, so that no rows of it can go; give it a matrix of its own first",
    );
  if (!(Number.isInteger(layers) && layers >= 1 && layers < config.layers))
    throw new ArgumentError(`keep 1 to ${config.layers - 1} of the student's ${config.layers} layers, not ${layers}`);
  if (!(Number.isInteger(ffn) && ffn >= 1 && ffn <= config.ffn))
    throw new ArgumentError(`keep 1 to ${config.ffn} of the student's ${config.ffn} neurons, not ${ffn}`);
  if (ffn % group !== 0)
    throw new ArgumentError(`${ffn} neurons do not make whole groups: round ${ffn} to a multiple of ${group}`);
  if (config.dim % group !== 0)
    throw new ArgumentError(
      `a width of ${config.dim} does not make whole groups of ${group}; choose a group that divides it`,
    );
}

/** Layers by how much they turn the residual stream and neurons by their mean norm, on the guard's own prompts. */
export async function pruneGuard(
  student: GuardModel,
  prompts: readonly AnsweredPrompt[],
  { layers, ffn, calibration = 1000, seed = 0 }: GuardRecipe,
  device: DeviceOptions = {},
): Promise<GuardModel> {
  const windows = calibrationPrompts(prompts, calibration, seed);
  const importance = await structuredImportance(student, windows, device);
  const scores = { layers: importance.layers.influence, neurons: importance.neurons.norm };
  return pruneDecoder(student, keepMostImportant(scores, { layers, ffn }));
}

/** Some of the prompts, cut to the length of the shortest behind the policy: what a user said first is left out. */
function calibrationPrompts(prompts: readonly AnsweredPrompt[], count: number, seed: number): HostTensor {
  const chosen = new Rng(seed)
    .fork("calibration")
    .shuffle([...prompts])
    .slice(0, count);
  const length = Math.min(...chosen.map(({ ids }) => ids.length));
  const prefix = commonPrefix(chosen);
  return answerInputs(
    chosen.map(({ ids }) => ({ ids: [...prefix, ...ids.slice(prefix.length - length - 1)], scored: 1 })),
    length,
  ).ids;
}

/** All matrices, the embedding among them, in training for 4 bits in groups, with 8-bit inputs. */
export function w4a8(weights: Weights, group: number, device: DeviceOptions = {}): Promise<Weights> {
  const weight = blockRounding({ format: "int4", block: group });
  return fakeQuantized(
    weights,
    (name) => (name === "model.embed_tokens.weight" ? { weight } : { weight, input: affineTokenRounding }),
    device,
  );
}

/**
 * What was trained for 4 bits as it is run: codes with half-precision scales; products round their inputs to 8 bits
 * themselves.
 */
export async function deployed(weights: Weights, device: DeviceOptions = {}): Promise<Weights> {
  const packed = await packedWeights(weights, device);
  return Object.fromEntries(
    Object.entries(packed).map(([name, weight]) => {
      const inner = weight instanceof AffineInput ? weight.inner : weight;
      if (!(inner instanceof BlockWeight)) return [name, weight];
      const { codes, scales } = inner;
      return [
        name,
        new BlockWeight({ codes, scales: (scales as HostTensor).cast("f16") }, { ...inner.layout, exact: false }),
      ];
    }),
  );
}

/** The weights with a head of the rows `ids` alone. @throws ArgumentError where the head is the embedding's matrix */
export function pruneUnembedding(weights: Weights, ids: readonly number[]): Weights {
  const head = weights["lm_head.weight"];
  if (!(head instanceof Weight))
    throw new ArgumentError(
      "the head shares the embedding's matrix, so that no rows of it can go; give it a matrix of its own first",
    );
  return { ...weights, "lm_head.weight": keepRows(head, ids) };
}

/** Probabilities of "unsafe" among the two verdicts, for the last turns of conversations. */
export async function guardScores(
  model: GuardModel,
  codec: GuardCodec,
  examples: readonly Pick<GuardExample, "turns" | "judge">[],
  device: DeviceOptions = {},
): Promise<number[]> {
  const { safe, unsafe } = codec.first;
  const prompts = examples.map(({ turns, judge }) => {
    const ids = codec.prompt(turns, judge, model.config.maxPositions);
    return { ids: [...ids, safe], scored: 1 };
  });
  const of = (logits: Parameters<typeof slice>[0], id: number) => slice(logits, -1, id, id + 1);
  const rows = await predictAnswers(model, prompts, {
    select: (logits) => sigmoid(sub(of(logits, unsafe), of(logits, safe))),
    device,
  });
  return rows.map(([score]) => score!);
}

async function judged(
  stage: StageReport["stage"],
  model: GuardModel,
  codec: GuardCodec,
  test: readonly GuardExample[],
  device: DeviceOptions,
): Promise<StageReport> {
  const began = performance.now();
  const scores = await guardScores(model, codec, test, device);
  const milliseconds = (performance.now() - began) / test.length;
  const labels = test.map(({ verdict }) => !verdict.safe);
  return { stage, ...sizeOfWeights(model.weights), ...guardMetrics(scores, labels), milliseconds };
}

/** Numbers that the weights stand for, and bytes that they take. */
export function sizeOfWeights(weights: Weights): { parameters: number; bytes: number } {
  let parameters = 0;
  for (const weight of Object.values(weights)) {
    const { shape } = weight instanceof KeptRows ? weight.inner : weight;
    parameters += shape.reduce<number>((a, b) => a * (b as number), 1);
  }
  const { tensors } = storeWeights(weights);
  return { parameters, bytes: Object.values(tensors).reduce((sum, tensor) => sum + tensor.bytes, 0) };
}
