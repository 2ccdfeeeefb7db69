import { isJsonObject, type JsonObject } from "../formats/json.ts";
import type { TensorFile, TensorInfo } from "../formats/tensor-file.ts";
import type { Tokenizer } from "../formats/tokenizer.ts";
import { Dense, Weight } from "../nn/index.ts";
import { type HostTensor, input, isFloat, isHostTensor } from "../tensor/index.ts";
import { type DecoderConfig, decoderConfig } from "./decoder/config.ts";
import { checkWeights, type Weights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";
import { gpt2Tensors } from "./gpt2/tensors.ts";

export interface LoadOptions {
  /**
   * Element type of the weights in memory: `f32`, which every device computes in, or `stored`, as they lie in the file
   * (`bf16` and `f16` take half the memory; blocks of GGUF are decoded to `f32` all the same). Default `f32`.
   */
  readonly dtype?: "f32" | "stored";
}

/** A decoder in memory: matrices as `Dense`, norms and biases as vectors, under Hugging Face's names. */
export interface LoadedDecoder {
  readonly config: DecoderConfig;
  readonly weights: Readonly<Record<string, Dense | HostTensor>>;
}

/**
 * Reads a decoder's weights, one tensor after the other so that little more than the result is ever in memory. That
 * file and configuration belong together is checked before the first number is read.
 * @param json the content of a `config.json`
 * @param stored tensors under Hugging Face's names; it stays open
 * @throws ModelError for an architecture that is not supported, or naming the tensor in which configuration and file
 *   disagree, with both shapes; FormatError, FileError while reading
 */
export async function loadDecoder(
  json: JsonObject,
  stored: TensorFile,
  { dtype = "f32" }: LoadOptions = {},
): Promise<LoadedDecoder> {
  const file = decoderTensors(json, stored);
  checkPlain(json, file);
  checkLayers(json, file);
  const config = decoderConfig(json);
  const infos = new Map([...file.tensors].filter(([name]) => !isIgnored(name, config)));
  checkWeights(
    config,
    Object.fromEntries(Array.from(infos, ([name, info]) => [name, input(name, typeOf(info, file))])),
  );
  const weights: Record<string, Dense | HostTensor> = {};
  for (const name of infos.keys()) {
    const values = await file.read(name);
    const tensor = dtype === "f32" ? values.cast("f32") : values;
    weights[name] = tensor.shape.length === 2 ? new Dense(tensor) : tensor;
  }
  return { config, weights };
}

/** The tensors of a file under the names that a decoder's weights have in memory; only GPT-2's differ. */
export function decoderTensors({ model_type: type }: JsonObject, file: TensorFile): TensorFile {
  return type === "gpt2" ? gpt2Tensors(file) : file;
}

/** Weights that another program quantized lie in tensors of its own making. */
function checkPlain({ quantization_config: quantization }: JsonObject, file: TensorFile): void {
  if (!isJsonObject(quantization)) return;
  const method = JSON.stringify(quantization["quant_method"] ?? "unknown");
  throw new ModelError(
    `${file.name}: config.json says that the weights are quantized by ${method}, which pare cannot read; open the model that they were made from`,
  );
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

function typeOf({ name, type, dtype, shape }: TensorInfo, file: TensorFile) {
  if (dtype && isFloat(dtype)) return { dtype, shape };
  throw new ModelError(`${file.name}: "${name}" is of type ${type}; weights of floating point can be used`);
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
