import { decoderLogits, isLayerMatrix, type Weights } from "../../../models/index.ts";
import { crossEntropy, optim, roundToBlocks, TransformedWeight, Weight } from "../../../nn/index.ts";
import { ArgumentError, Rng } from "../../../tensor/index.ts";
import {
  type BatchSource,
  IGNORED,
  isLora,
  type TokenBatch,
  type TrainOptions,
  train,
  withLora,
} from "../../../train/index.ts";
import { denseValues } from "../report.ts";
import type { RotationOptions } from "../rotation.ts";
import { type Adapter, adapterOf, mergeAdapter } from "./adapter.ts";
import { clipSearch } from "./quantize.ts";
import { type MaybeRotated, rotateDecoder } from "./rotate.ts";

export interface RoloraOptions<B extends TokenBatch>
  extends Pick<TrainOptions<Weights, B>, "onLog" | "signal" | "threads"> {
  readonly rank: number;
  /** Default: twice the rank. */
  readonly alpha?: number;
  /** Names of the matrices that get adapters. Default: all of the layers'. */
  readonly targets?: (name: string) => boolean;
  /** How the model is turned first; `false` leaves it, which is plain LoRA. Default: in Hadamard blocks. */
  readonly rotate?: (RotationOptions & { readonly downProj?: boolean }) | false;
  /** 4 rounds the matrices below the adapters to 4 bits before training, as QLoRA does. Default 16. */
  readonly baseBits?: 4 | 16;
  readonly steps: number;
  /** Highest learning rate. */
  readonly rate: number;
  readonly seed?: number;
}

export interface Tuned {
  /** What the adapter belongs to: turned, and rounded where that was asked for. */
  readonly base: MaybeRotated;
  readonly adapter: Adapter;
  /** The base with the adapter added, still turned. */
  readonly merged: MaybeRotated;
  readonly losses: readonly number[];
}

/**
 * RoLoRA (Huang et al. 2024, arXiv:2407.08044): turns a model so that its activations have no outliers, trains low-rank
 * adapters on the turned matrices, and adds them there. What comes out survives rounding of weights and activations; see
 * `quantizeBoth`.
 * @param data token batches whose targets are `IGNORED` where a token does not count
 * @throws ArgumentError as `rotateDecoder` and `withLora` do
 */
export async function rolora<B extends TokenBatch>(
  model: MaybeRotated,
  data: BatchSource<B>,
  options: RoloraOptions<B>,
): Promise<Tuned> {
  const { rank, alpha = 2 * rank, targets, rotate = {}, baseBits = 16, steps, rate, seed = 0, ...running } = options;
  const turned = rotate === false ? model : await rotateDecoder(model, rotate);
  const base = baseBits === 16 ? turned : { ...turned, weights: await roundedBase(turned.weights) };
  const rng = new Rng(seed).fork("adapters");
  const params = withLora(base.weights, { rank, alpha, rng, ...(targets && { targets }) }) as Weights;
  const result = await train({
    ...running,
    params,
    data,
    steps,
    seed,
    trainable: isLora,
    loss: (weights, { ids, targets: next }) =>
      crossEntropy(decoderLogits(base.config, weights as Weights, ids), next, { ignore: IGNORED }),
    optimizer: optim.adamw({ weightDecay: 0 }),
    schedule: optim.warmUp(Math.ceil(steps / 100), optim.cosine(rate, steps)),
  });
  options.signal?.throwIfAborted();
  const adapter = await adapterOf(base, result.params);
  const losses = result.log.map(({ values }) => values["loss"]!);
  return { base, adapter, merged: await mergeAdapter(base, adapter), losses };
}

/** The matrices of the layers in 4 bits, behind the transforms that they have. */
async function roundedBase(weights: Weights): Promise<Weights> {
  const result: Record<string, Weights[string]> = {};
  for (const [name, value] of Object.entries(weights)) {
    result[name] = value;
    if (!isLayerMatrix(name)) continue;
    if (!(value instanceof Weight)) throw new ArgumentError(`"${name}" is no matrix`);
    const inner = value instanceof TransformedWeight ? value.inner : value;
    const rounded = roundToBlocks(await denseValues(inner), {
      format: "int4",
      block: "channel",
      search: clipSearch,
      exact: true,
    });
    result[name] = value instanceof TransformedWeight ? value.around(rounded) : rounded;
  }
  return result;
}
