import { join } from "node:path";
import { ggufTokenizerMetadata, ggufTypes, type Tokenizer } from "../../formats/index.ts";
import type { JsonObject } from "../../formats/json.ts";
import { saveGguf } from "../../formats/node.ts";
import {
  asStored,
  checkPacked,
  decoderConfig,
  decoderToGguf,
  ggufStored,
  ggufWeights,
  type StoredWeights,
  type Weights,
  weightsInMemory,
} from "../../models/index.ts";
import { exportOnnx, type OnnxDtype, saveCompressedTensors, saveModel } from "../../models/node.ts";
import { BlockWeight, Weight } from "../../nn/index.ts";
import { children, PareError } from "../../tensor/index.ts";
import { didYouMean } from "../../tensor/suggest.ts";
import { UsageError } from "../errors.ts";

/** What a compressed model can be written as. */
export const outputFormats = ["safetensors", "compressed-tensors", "onnx", "gguf"] as const;
export type OutputFormat = (typeof outputFormats)[number];

/** `onnx,gguf` as a list. @throws UsageError for a format that there is not, or two that take the same files */
export function parseFormats(list: string): OutputFormat[] {
  const names = list.split(",").map((name) => name.trim());
  for (const name of names)
    if (!(outputFormats as readonly string[]).includes(name)) {
      const hint = didYouMean(name, outputFormats);
      throw new UsageError(`there is no format "${name}"${hint}; there are ${outputFormats.join(", ")}`);
    }
  if (names.includes("safetensors") && names.includes("compressed-tensors"))
    throw new UsageError(
      "safetensors and compressed-tensors are the same files in two conventions; ask for one of them",
    );
  return [...new Set(names)] as OutputFormat[];
}

export interface Compressed {
  readonly name: string;
  readonly json: JsonObject;
  /** In memory, or stored and read one by one. */
  readonly weights: Weights | StoredWeights;
  readonly tokenizer: Tokenizer | null;
}

/** Why a format cannot hold weights of these kinds, of which those that come to judge are enough; null where it can. */
export function unfitFor(
  format: OutputFormat,
  { json, weights }: { readonly json: JsonObject; readonly weights: Weights },
): string | null {
  try {
    if (format === "gguf") decoderToGguf(json, ggufWeights(weights), ggufTypes("F32"));
    if (format === "compressed-tensors") checkPacked(decoderConfig(json), weights);
    return null;
  } catch (error) {
    if (!(error instanceof PareError)) throw error;
    return `${format} cannot hold what would be made: ${error.message}`;
  }
}

/**
 * Writes a model into `folder` in several formats. Only ONNX, whose graph refers to all numbers, takes the compressed
 * model into memory, once; of the others one matrix is there at a time.
 * @throws ModelError, ArgumentError for a representation that a format has no place for; FileError
 */
export async function writeFormats(folder: string, model: Compressed, formats: readonly OutputFormat[]): Promise<void> {
  for (const format of formats) {
    if (format === "safetensors") await saveModel(folder, model);
    else if (format === "compressed-tensors") await saveCompressedTensors(folder, model);
    else if (format === "onnx") {
      const weights = await weightsInMemory(asStored(model.weights), "f32");
      await exportOnnx(folder, { ...model, weights }, { dtype: onnxDtype(weights) });
    } else await writeGguf(join(folder, `${model.name}.gguf`), model);
  }
}

/** The name under which transformers.js finds a model with most of its weights in this form. */
function onnxDtype(weights: Weights): OnnxDtype {
  const blocks = Object.values(weights).flatMap(blocksIn);
  if (blocks.some(({ format }) => format !== "int8")) return "q4";
  return blocks.length > 0 ? "q8" : "fp32";
}

/** The packed blocks that a weight is made of. */
function blocksIn(weight: unknown): BlockWeight[] {
  if (weight instanceof BlockWeight) return [weight];
  return weight instanceof Weight ? Object.values(weight[children]()).flatMap(blocksIn) : [];
}

async function writeGguf(path: string, { json, weights, tokenizer }: Compressed): Promise<void> {
  const { metadata, tensors } = decoderToGguf(json, await ggufStored(asStored(weights)), ggufTypes("F32"));
  const vocabulary = tokenizer ? ggufTokenizerMetadata(plain(tokenizer), decoderConfig(json).vocab) : new Map();
  await saveGguf(path, new Map([...metadata, ...vocabulary]), tensors);
}

/** A tokenizer with the one template that a GGUF file has room for. */
function plain({ files: { tokenizerJson, tokenizerConfig, chatTemplate } }: Tokenizer) {
  const template = typeof chatTemplate === "string" ? chatTemplate : chatTemplate?.["default"];
  return { tokenizerJson, tokenizerConfig, ...(template !== undefined && { chatTemplate: template }) };
}
