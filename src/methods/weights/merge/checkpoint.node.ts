import { join } from "node:path";
import { type ModelFiles, type ModelFolder, readModelFiles } from "../../../formats/hf-folder.ts";
import type { JsonObject } from "../../../formats/json.ts";
import {
  localModelFiles,
  openSafetensors,
  openSafetensorsIndex,
  type ResolveOptions,
  resolveModel,
} from "../../../formats/node.ts";
import type { TensorFile } from "../../../formats/tensor-file.ts";
import { ModelError } from "../../../models/errors.ts";

/** A model's folder whose weights have not been read. */
export interface Checkpoint extends AsyncDisposable {
  readonly path: string;
  readonly files: ModelFiles;
  readonly folder: ModelFolder;
  /** The content of config.json. */
  readonly config: JsonObject;
  readonly tensors: TensorFile;
}

/**
 * Opens the safetensors of a model, in a folder or on the hub, whatever its architecture.
 * @throws ModelError for adapters, quantized weights, and folders without safetensors; FileError, HubError, FormatError
 */
export async function openCheckpoint(model: string, hub?: ResolveOptions): Promise<Checkpoint> {
  const path = await resolveModel(model, hub);
  const files = await localModelFiles(path);
  const names = new Set((await files.list()).map((file) => file.path));
  if (names.has("adapter_config.json") && !names.has("config.json"))
    throw new ModelError(
      `${model} is an adapter (LoRA), not a model; merge it into its base first, in Python with peft's merge_and_unload()`,
    );
  const folder = await readModelFiles(files);
  const { config, weights } = folder;
  const { safetensors, shardOf } = weights;
  if (!config || safetensors.length === 0 || (!shardOf && safetensors.length > 1))
    throw new ModelError(
      `${model} holds no model that can be merged: that takes config.json with model.safetensors, or model.safetensors.index.json and its shards`,
    );
  if (config["quantization_config"] !== undefined)
    throw new ModelError(`${model} is quantized; dequantize it first: differences of codes mean nothing`);
  const tensors = shardOf
    ? await openSafetensorsIndex(join(path, SHARD_INDEX))
    : await openSafetensors(join(path, safetensors[0]!));
  return { path, files, folder, config, tensors, [Symbol.asyncDispose]: () => tensors.close() };
}

/** The file that says which shard each tensor is in. */
export const SHARD_INDEX = "model.safetensors.index.json";

/** Entries of config.json that say what the weights mean, beyond their shapes. */
const meaning = [
  "model_type",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "rope_theta",
  "rms_norm_eps",
  "hidden_act",
  "sliding_window",
  "tie_word_embeddings",
];

/** Entries that say how far apart tokens may be, and how positions are stretched for it. */
const reach = ["rope_scaling", "max_position_embeddings"];

/** Where configurations that both say something give the same weights another meaning, in words. */
export function configDifferences(a: Checkpoint, b: Checkpoint): string[] {
  return differing(meaning, a, b)
    .filter(({ key }) => key in a.config && key in b.config)
    .map(told);
}

/**
 * Where checkpoints differ in how far they reach, in words. A base that was trained further for longer texts (Llama 3.1
 * after Llama 3) differs so from the one before, and changes made to that still fit it: the result keeps the reach of
 * the base that it is built on. Models of one base that differ so do not belong together.
 */
export function reachDifferences(a: Checkpoint, b: Checkpoint): string[] {
  return differing(reach, a, b).map(told);
}

interface Difference {
  readonly key: string;
  readonly values: readonly [string, string];
  readonly paths: readonly [string, string];
}

function differing(keys: readonly string[], a: Checkpoint, b: Checkpoint): Difference[] {
  const text = (value: unknown): string => JSON.stringify(value ?? null);
  return keys
    .map((key): Difference => ({ key, values: [text(a.config[key]), text(b.config[key])], paths: [a.path, b.path] }))
    .filter(({ values: [one, other] }) => one !== other);
}

const told = ({ key, values, paths }: Difference): string =>
  `${key} is ${values[0]} in ${paths[0]} and ${values[1]} in ${paths[1]}`;
