import { BlockWeight, Dense, HalfWeight, packQuantizedConfig, toPackQuantized, Weight } from "../nn/index.ts";
import { type HostTensor, isHostTensor } from "../tensor/index.ts";
import { decoderConfig } from "./decoder/config.ts";
import { checkWeights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";
import { type SavedModel, writeModel } from "./load.node.ts";

/**
 * Saves a model in the `pack-quantized` format of compressed-tensors, which vLLM and transformers run, and `openModel`
 * reads. The linear layers must be int4 or int8 blocks of one layout, or dense (in any precision); the embedding is dense.
 * Codes, scales and zero points are kept bit by bit; whether products round activations (`exact`) is not in the format.
 * @throws ModelError naming the first weight that the format has no place for; FileError
 */
export async function saveCompressedTensors(folder: string, model: SavedModel): Promise<void> {
  const { json, weights } = model;
  const config = decoderConfig(json);
  checkWeights(config, weights);
  if (config.type === "gpt2")
    throw new ModelError(
      "compressed-tensors packs linear layers; the layers of Hugging Face's GPT-2 are of another kind",
    );
  const scheme = new Scheme();
  const tensors = new Map<string, HostTensor>();
  const ignore: string[] = [];
  for (const [name, weight] of Object.entries(weights)) {
    const module = name.replace(/\.weight$/, "");
    if (weight instanceof BlockWeight) {
      if (name === "model.embed_tokens.weight")
        throw new ModelError(
          `"${name}" is a table of blocks, but compressed-tensors packs linear layers only; keep it dense`,
        );
      scheme.add(name, weight);
      for (const [part, tensor] of Object.entries(toPackQuantized(weight))) tensors.set(`${module}.${part}`, tensor);
      continue;
    }
    const values = weight instanceof Dense || weight instanceof HalfWeight ? weight.values : weight;
    if (!isHostTensor(values)) {
      const what = values instanceof Weight ? `is represented as ${values.kind}` : "is symbolic";
      throw new ModelError(`"${name}" ${what}; compressed-tensors holds int4 and int8 blocks, and dense weights`);
    }
    tensors.set(name, values);
    if (/(_proj|lm_head)\.weight$/.test(name)) ignore.push(module);
  }
  await writeModel(folder, model, tensors, { config: { quantization_config: scheme.config(ignore) } });
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

  config(ignore: readonly string[]): Record<string, unknown> {
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
