import { type DecoderConfig, decoderLogits, type Weights } from "../../models/index.ts";
import type { DeviceOptions, Hosted, Traced } from "../../runtime/index.ts";
import type { Tensor } from "../../tensor/index.ts";
import { type DecoderRolloutOptions, DecoderRollouts, type Prompt, type Rollouts } from "./rollouts.ts";

/** A model that completes prompts, as the trainer needs it: how it draws completions, and what it thinks of given ones. */
export interface Policy<W, P extends Prompt, I = unknown> {
  /** The weights that it starts from, a tree of host tensors. */
  readonly weights: W;
  /** Logits `[batch, length, vocab]` of the tokens behind each of `ids i64 [batch, length]`. */
  logits(weights: Traced<W>, ids: Tensor, inputs: Traced<I>): Tensor;
  /** What the forward pass takes beside tokens, such as images: types with `batch` as first dimension, and the values for rows of prompts. */
  readonly inputs?: { readonly specs: I; of(prompts: readonly P[]): Hosted<I> };
  /** Opens what draws completions, for changing values of the trained parameters. */
  rollouts(trained: (path: string) => boolean, device: DeviceOptions): Promise<Rollouts<P>>;
}

/** A decoder as a policy, its weights in any representation: whole, or frozen with adapters on top. */
export function decoderPolicy(
  config: DecoderConfig,
  weights: Weights,
  options: Pick<DecoderRolloutOptions, "texts" | "cache"> = {},
): Policy<Weights, Prompt> {
  return {
    weights,
    logits: (traced, ids) => decoderLogits(config, traced as Weights, ids),
    rollouts: (trained, device) =>
      DecoderRollouts.open(config, weights, { ...options, ...device, replaceable: trained }),
  };
}
