import { HostTensor, spec, type TensorSpec } from "../../tensor/index.ts";
import type { Completion } from "./rollouts.ts";

/** A completion that is learnt from. */
export interface Sample<P> {
  readonly prompt: P;
  readonly completion: Completion;
  /** Of each token of the completion. */
  readonly advantages: readonly number[];
  /** What each of its tokens counts in the loss. */
  readonly weight: number;
}

/** Prompts with their completions, filled up to one length; what is known of each token is 0 elsewhere. All `[batch, length]`. */
export interface PolicyBatch<T> {
  readonly ids: T;
  /** The tokens one position ahead. */
  readonly targets: T;
  readonly advantages: T;
  readonly behaviour: T;
  /** What each token counts in the loss. */
  readonly weights: T;
  /** What each token counts in averages that are logged; the sum is 1. */
  readonly shares: T;
}

/** Types of a batch of any size. */
export function batchSpecs(): PolicyBatch<TensorSpec> {
  const [tokens, numbers] = [spec("i64", ["batch", "length"]), spec("f32", ["batch", "length"])];
  return {
    ids: tokens,
    targets: tokens,
    advantages: numbers,
    behaviour: numbers,
    weights: numbers,
    shares: numbers,
  };
}

/**
 * Samples as `parts` batches of the same size, whose averages have the weights' sums and shares as they would be in one
 * batch. Rows of a batch that samples do not fill repeat the first sample and count nothing.
 */
export function batchesOf<P extends { readonly ids: readonly number[] }>(
  samples: readonly Sample<P>[],
  parts: number,
): { batch: PolicyBatch<HostTensor>; prompts: readonly P[] }[] {
  const rows = Math.ceil(samples.length / parts);
  const length = Math.max(...samples.map(({ prompt, completion }) => prompt.ids.length + completion.tokens.length - 1));
  const total = samples.reduce((sum, { completion }) => sum + completion.tokens.length, 0);
  return Array.from({ length: parts }, (_, part) => {
    const tokens = (): HostTensor => HostTensor.zeros("i64", [rows, length]);
    const numbers = (): HostTensor => HostTensor.zeros("f32", [rows, length]);
    const batch: PolicyBatch<HostTensor> = {
      ids: tokens(),
      targets: tokens(),
      advantages: numbers(),
      behaviour: numbers(),
      weights: numbers(),
      shares: numbers(),
    };
    const prompts = Array.from({ length: rows }, (_, row) => {
      const sample = samples[part * rows + row];
      if (!sample) return samples[0]!.prompt;
      const { prompt, completion, advantages, weight } = sample;
      const text = [...prompt.ids, ...completion.tokens];
      for (let i = 0; i + 1 < text.length; i++) {
        batch.ids.set(row * length + i, text[i]!);
        batch.targets.set(row * length + i, text[i + 1]!);
      }
      completion.tokens.forEach((_, i) => {
        const place = row * length + prompt.ids.length - 1 + i;
        batch.advantages.set(place, advantages[i]!);
        batch.behaviour.set(place, completion.logProbs[i]!);
        batch.weights.set(place, weight * parts);
        batch.shares.set(place, parts / total);
      });
      return prompt;
    });
    return { batch, prompts };
  });
}
