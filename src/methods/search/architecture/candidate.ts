import { type DecoderConfig, decoderLogits, type Weights } from "../../../models/index.ts";
import { crossEntropy, optim } from "../../../nn/index.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import { TokenBatches, train } from "../../../train/index.ts";
import {
  keepMostImportant,
  type PrunedDecoder,
  pruneDecoder,
  type StructuredImportance,
} from "../../weights/structured/index.ts";
import { type Architecture, windowsOf } from "./architecture.ts";

interface Model {
  readonly config: DecoderConfig;
  readonly weights: Weights;
}

/**
 * The backbone pruned to an architecture: the layers that change the stream most, the neurons and channels of most energy;
 * nothing is rescaled. It needs continued pre-training before its loss says anything.
 */
export function inherit(
  backbone: Model,
  { layers, dim, ffn, attention }: Architecture,
  importance: StructuredImportance,
  window: number,
): PrunedDecoder {
  const scores = {
    layers: importance.layers.change,
    neurons: importance.neurons.energy,
    channels: importance.channels,
  };
  const kept = keepMostImportant(scores, { layers, dim, ffn });
  return pruneDecoder(backbone, { ...kept, window: windowsOf(attention, window) });
}

export interface ContinuedPreTraining extends DeviceOptions {
  /** Tokens to train on. */
  readonly training: ArrayLike<number>;
  readonly steps: number;
  /** Windows in a batch, and tokens in a window. */
  readonly batch: number;
  readonly length: number;
  /** Highest learning rate. */
  readonly rate: number;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/** Trains a candidate on; all candidates of a search see the same batches. @throws the signal's reason when aborted */
export async function continuePreTraining(
  { config, weights }: PrunedDecoder,
  { training, steps, batch, length, rate, seed, signal, ...device }: ContinuedPreTraining,
): Promise<Readonly<Record<string, PrunedDecoder["weights"][string]>>> {
  const { params } = await train({
    params: weights,
    data: new TokenBatches(training, { batch, length, seed }),
    steps,
    seed,
    loss: (params, { ids, targets }) => crossEntropy(decoderLogits(config, params as Weights, ids), targets),
    optimizer: optim.adamw({ beta2: 0.95, weightDecay: 0.1 }),
    schedule: optim.warmUp(Math.ceil(steps / 10), optim.cosine(rate, steps, rate / 10)),
    ...(signal && { signal }),
    ...device,
  });
  signal?.throwIfAborted();
  return params as Readonly<Record<string, PrunedDecoder["weights"][string]>>;
}
