import { isJsonObject, type JsonObject } from "../formats/json.ts";
import type { TensorFile, TensorInfo } from "../formats/tensor-file.ts";
import type { Tokenizer } from "../formats/tokenizer.ts";
import { Dense, Weight } from "../nn/index.ts";
import { type HostTensor, isHostTensor } from "../tensor/index.ts";
import { type DecoderConfig, decoderConfig } from "./decoder/config.ts";
import { checkWeights, type Weights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";
import { gpt2Tensors } from "./gpt2/tensors.ts";
import { packedWeights } from "./load-packed.ts";
import { describedWeights, descriptionIn, outlinesOf, type StoredWeight, type StoredWeights } from "./load-stored.ts";

export interface LoadOptions {
  /**
   * Element type of dense weights in memory: `f32`, which every device computes in, or `stored`, as they lie in the
   * file (`bf16` and `f16` take half the memory; blocks of GGUF are decoded to `f32` all the same). Default `f32`.
   */
  readonly dtype?: "f32" | "stored";
}

/** A decoder in memory: matrices as they were saved, norms and biases as vectors, under Hugging Face's names. */
export interface LoadedDecoder {
  readonly config: DecoderConfig;
  readonly weights: Readonly<Record<string, Weight | HostTensor>>;
}

/**
 * Reads a decoder's weights, one after the other so that little more than the result is ever in memory: compressed ones
 * exactly as `saveModel` wrote them, and those packed by the `pack-quantized` convention of compressed-tensors. That
 * file and configuration belong together is checked before the first number is read.
 * @param json the content of a `config.json`
 * @param stored tensors under Hugging Face's names; it stays open
 * @throws ModelError for an architecture or quantization that is not supported, or naming the tensor in which
 *   configuration and file disagree, with both shapes; FormatError, FileError while reading
 */
export async function loadDecoder(
  json: JsonObject,
  stored: TensorFile,
  { dtype = "f32" }: LoadOptions = {},
): Promise<LoadedDecoder> {
  const { config, weights } = await decoderOutline(json, stored);
  return { config, weights: await weightsInMemory(weights, dtype) };
}

/** All weights of a decoder, matrices without a representation of their own as dense ones. */
export async function weightsInMemory(
  stored: StoredWeights,
  dtype: NonNullable<LoadOptions["dtype"]>,
): Promise<LoadedDecoder["weights"]> {
  const weights: Record<string, Weight | HostTensor> = {};
  for (const [name, { read }] of stored) {
    const value = await read();
    const plain = value instanceof Dense ? value.values : value;
    if (!isHostTensor(plain)) weights[name] = value;
    else {
      const tensor = dtype === "f32" ? plain.cast("f32") : plain;
      weights[name] = tensor.shape.length === 2 ? new Dense(tensor) : tensor;
    }
  }
  return weights;
}

/**
 * The weights of a decoder in a file, checked against its configuration before a number is read.
 * @throws as `loadDecoder`
 */
export async function decoderOutline(
  json: JsonObject,
  stored: TensorFile,
): Promise<{ config: DecoderConfig; weights: Map<string, StoredWeight> }> {
  const file = decoderTensors(json, stored);
  checkLayers(json, file);
  const config = decoderConfig(json);
  const infos = new Map([...file.tensors].filter(([name]) => !isIgnored(name, config)));
  const weights = await storedWeights(json, file, infos);
  checkWeights(config, outlinesOf(weights));
  return { config, weights };
}

/**
 * The weights in a file, of which the tensors `infos` count, by name: packed as another program's
 * `quantization_config` says, or as the file describes them.
 */
async function storedWeights(
  { quantization_config: quantization }: JsonObject,
  file: TensorFile,
  infos: ReadonlyMap<string, TensorInfo>,
): Promise<Map<string, StoredWeight>> {
  if (!isJsonObject(quantization)) return describedWeights(file, infos);
  if (quantization["quant_method"] === "compressed-tensors") return await packedWeights(quantization, file, infos);
  const method = JSON.stringify(quantization["quant_method"] ?? "unknown");
  throw new ModelError(
    `${file.name}: config.json says that the weights are quantized by ${method}, which pare cannot read; open the model that they were made from`,
  );
}

/**
 * The tensors of a file under the names that a decoder's weights have in memory; only GPT-2's differ. What `saveModel`
 * compressed lies under the names of its parts.
 */
export function decoderTensors({ model_type: type }: JsonObject, file: TensorFile): TensorFile {
  return type === "gpt2" && !descriptionIn(file) ? gpt2Tensors(file) : file;
}

/** The content of a config.json without how the weights lie in the file, which weights in memory say themselves. */
export function withoutQuantization({ quantization_config: _, ...json }: JsonObject): JsonObject {
  return json;
}

/** A damaged count of layers would otherwise fill the memory before a tensor is missed. */
function checkLayers(json: JsonObject, file: TensorFile): void {
  const layers = json["num_hidden_layers"] ?? json["n_layer"];
  if (typeof layers === "number" && layers > file.tensors.size) {
    throw new ModelError(
      `${file.name}: the configuration asks for ${layers} layers, but there are only ${file.tensors.size} tensors`,
    );
  }
}

/** What some checkpoints hold besides weights: a second copy of a tied head, and tables that follow from the configuration. */
function isIgnored(name: string, config: DecoderConfig): boolean {
  return (config.tied && name === "lm_head.weight") || name.endsWith(".rotary_emb.inv_freq");
}

/**
 * The tensors of weights that are all dense, for a writer (`pendingTensors`).
 * @throws ModelError naming the first weight in another representation, or without numbers
 */
export function denseTensors(weights: Weights): Map<string, HostTensor> {
  return new Map(
    Object.entries(weights).map(([name, weight]) => {
      const values = weight instanceof Dense ? weight.values : weight;
      if (isHostTensor(values)) return [name, values];
      const what = values instanceof Weight ? `is represented as ${values.kind}` : "is symbolic";
      throw new ModelError(`"${name}" ${what}; only dense weights with their numbers can be saved in this form`);
    }),
  );
}

/** The tokenizer of an opened model. @throws ModelError where it came without one */
export function requireTokenizer(model: { readonly source: string; readonly tokenizer: Tokenizer | null }): Tokenizer {
  if (model.tokenizer) return model.tokenizer;
  throw new ModelError(
    `${model.source} has no tokenizer; a folder keeps it in tokenizer.json, a GGUF file in its metadata, and llama2.c in tok<vocabulary>.bin or tokenizer.bin beside the checkpoint`,
  );
}
