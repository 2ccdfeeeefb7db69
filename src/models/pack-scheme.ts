import { BlockWeight, Dense, HalfWeight, packQuantizedConfig, Weight } from "../nn/index.ts";
import type { DecoderConfig } from "./decoder/config.ts";
import type { Weights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";

/** How a model is packed under the `pack-quantized` convention: what its `quantization_config` says. */
export type PackedConfig = Record<string, unknown>;

/**
 * Whether weights can be packed by the `pack-quantized` convention of compressed-tensors, numbers or not.
 * @throws ModelError naming the first weight that the format has no place for
 */
export function checkPacked(config: DecoderConfig, weights: Weights): PackedConfig {
  if (config.type === "gpt2")
    throw new ModelError(
      "compressed-tensors packs linear layers; the layers of Hugging Face's GPT-2 are of another kind",
    );
  const scheme = new Scheme();
  const ignore: string[] = [];
  for (const [name, weight] of Object.entries(weights)) {
    if (weight instanceof BlockWeight) {
      if (name === "model.embed_tokens.weight")
        throw new ModelError(
          `"${name}" is a table of blocks, but compressed-tensors packs linear layers only; keep it dense`,
        );
      scheme.add(name, weight);
    } else if (weight instanceof Weight && !(weight instanceof Dense || weight instanceof HalfWeight))
      throw new ModelError(
        `"${name}" is represented as ${weight.kind}; compressed-tensors holds int4 and int8 blocks, and dense weights`,
      );
    else if (/(_proj|lm_head)\.weight$/.test(name)) ignore.push(name.replace(/\.weight$/, ""));
  }
  return scheme.config(ignore);
}

/** The layout that all packed matrices of a model share. */
class Scheme {
  #first: readonly [name: string, weight: BlockWeight] | undefined;

  /** @throws ModelError for a layout that the format lacks, or that is not that of the weights before */
  add(name: string, weight: BlockWeight): void {
    const { format, block, shape } = weight;
    if ((format !== "int4" && format !== "int8") || (block < shape[1] && shape[1] % block !== 0))
      throw new ModelError(
        `"${name}", whose rows have ${shape[1]} entries, is of ${layoutOf(weight)}; compressed-tensors packs int4 and int8 into whole blocks`,
      );
    this.#first ??= [name, weight];
    const [other, first] = this.#first;
    if (layoutOf(weight) !== layoutOf(first))
      throw new ModelError(
        `"${name}" is of ${layoutOf(weight)}, but "${other}" of ${layoutOf(first)}; compressed-tensors models are packed in one layout`,
      );
  }

  config(ignore: readonly string[]): PackedConfig {
    if (!this.#first)
      throw new ModelError(
        "no weight of the model consists of int4 or int8 blocks; compress it, or save it with saveModel",
      );
    return packQuantizedConfig(this.#first[1], ignore);
  }
}

function layoutOf({ format, block, shape, zeroPoints }: BlockWeight): string {
  const group = block >= shape[1] ? "whole rows" : `blocks of ${block}`;
  return `${format} in ${group}${zeroPoints ? " with zero points" : ""}`;
}
