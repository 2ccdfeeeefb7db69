import { mkdir } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { closeOnError } from "../formats/bytes.ts";
import { FileError } from "../formats/errors.ts";
import { explained } from "../formats/files.node.ts";
import { statOf } from "../formats/hub-cache.node.ts";
import {
  type GgufFile,
  openLlama2c,
  type PendingTensor,
  pendingTensors,
  readLlama2cPieces,
  readModelFiles,
  type TensorFile,
  Tokenizer,
  type TokenizerFiles,
  tokenizerJsonFromGguf,
  tokenizerJsonFromLlama2c,
  tokenizerOf,
} from "../formats/index.ts";
import type { JsonObject } from "../formats/json.ts";
import {
  localModelFiles,
  openFile,
  openGguf,
  openSafetensors,
  openSafetensorsIndex,
  type ResolveOptions,
  resolveModel,
  saveSafetensorsFolder,
  writeModelFiles,
} from "../formats/node.ts";
import { Dense, restoreWeights, takeApart, Weight } from "../nn/index.ts";
import type { DType, HostTensor, Leaf } from "../tensor/index.ts";
import { decoderConfig } from "./decoder/config.ts";
import { checkWeights, type Weights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";
import { decoderFromGguf } from "./gguf/read.ts";
import { gpt2Stored } from "./gpt2/tensors.ts";
import {
  decoderOutline,
  decoderTensors,
  type LoadedDecoder,
  type LoadOptions,
  weightsInMemory,
  withoutQuantization,
} from "./load.ts";
import {
  asStored,
  descriptionIn,
  descriptionKey,
  numbersIn,
  outlinesOf,
  type StoredWeight,
  type StoredWeights,
} from "./load-stored.ts";

export interface OpenOptions extends LoadOptions {
  /** For names on the hub: revision, files, cache, progress. */
  readonly hub?: ResolveOptions | undefined;
}

/** A model with everything that came with it. */
export interface OpenModel extends LoadedDecoder, AsyncDisposable {
  /**
   * The content of config.json, less its `quantization_config`; of formats that have none, what their header says in the
   * same terms.
   */
  readonly json: JsonObject;
  /** Null where none lies beside the weights; `requireTokenizer` explains that to users. */
  readonly tokenizer: Tokenizer | null;
  /** Path of the folder or file. */
  readonly source: string;
  /**
   * The tensors as stored, readable until the model is closed: under the names of `weights`, or of the parts that a
   * compressed one consists of.
   */
  readonly tensors: TensorFile;
  /** Closes the files; what is in memory stays usable. */
  close(): Promise<void>;
}

/** A model whose weights have been looked at, but not read. */
export interface OutlinedModel extends Omit<OpenModel, "weights"> {
  /** By name, each to be read when its turn comes; checked against the configuration. */
  readonly stored: StoredWeights;
}

/** A model whose weights have not been read yet. */
type Unread = Pick<OpenModel, "json" | "tokenizer" | "tensors">;

/**
 * Opens a model from wherever it lies: a folder as Hugging Face lays it out (or with a single GGUF file in it), a
 * name on the hub (`owner/name`, `owner/name@revision`), a `.gguf` file, or a checkpoint of llama2.c
 * (`.bin`) with its `tok<vocabulary>.bin` or `tokenizer.bin` beside it.
 * @throws ModelError for an architecture that is not supported, weights that disagree with the configuration, or a
 *   place that holds no model; FileError, HubError, FormatError, LimitError from reading it
 */
export async function openModel(model: string, { hub, dtype = "f32" }: OpenOptions = {}): Promise<OpenModel> {
  const { stored, ...outlined } = await outlineModel(model, { hub });
  return await closeOnError(outlined, async () => ({ ...outlined, weights: await weightsInMemory(stored, dtype) }));
}

/** As `openModel`, without reading the weights: for models larger than memory. @throws as `openModel` */
export async function outlineModel(model: string, { hub }: Pick<OpenOptions, "hub"> = {}): Promise<OutlinedModel> {
  const source = await locate(model, hub);
  const { json, tokenizer, tensors: stored } = await openUnread(source);
  return await closeOnError(stored, async () => {
    const tensors = decoderTensors(json, stored);
    const close = (): Promise<void> => tensors.close();
    const { config, weights } = await decoderOutline(json, tensors);
    return {
      config,
      stored: weights,
      json: withoutQuantization(json),
      tokenizer,
      source,
      tensors,
      close,
      [Symbol.asyncDispose]: close,
    };
  });
}

/** A model's tensors at rest, whatever its architecture. */
export interface OpenTensors extends AsyncDisposable {
  /** The content of config.json, or what the header of another format says in the same terms. */
  readonly json: JsonObject;
  /** Under Hugging Face's names. */
  readonly tensors: TensorFile;
  /** Whether some of the weights lie in the representation that `saveModel` gave them. */
  readonly description: boolean;
}

/**
 * Opens the tensors of a model from wherever it lies, as `openModel` does, without reading them.
 * @throws ModelError for a place that holds no model; FileError, HubError, FormatError, LimitError from reading it
 */
export async function openTensors(model: string, hub?: ResolveOptions): Promise<OpenTensors> {
  const { json, tensors: stored } = await openUnread(await locate(model, hub));
  const tensors = decoderTensors(json, stored);
  return {
    json,
    tensors,
    description: descriptionIn(stored) !== undefined,
    [Symbol.asyncDispose]: () => tensors.close(),
  };
}

async function locate(model: string, hub: ResolveOptions | undefined): Promise<string> {
  const path = resolve(model.replace(/^~(?=$|[/\\])/, homedir()));
  const found = await statOf(path);
  if (found?.isFile()) return path;
  // Without this, a misspelt file would be looked for on the hub.
  if (!found && /\.(gguf|bin|safetensors)$/i.test(model)) throw new FileError(`there is no file ${model}`);
  return await resolveModel(model, hub);
}

async function openUnread(path: string): Promise<Unread> {
  if ((await statOf(path))?.isDirectory()) return await openFolder(path);
  if (/\.gguf$/i.test(path)) return await openGgufModel(path);
  if (/\.bin$/i.test(path)) return await openLlama2cModel(path);
  throw new ModelError(
    `${path} is no file that holds a whole model; give the folder of a model, a .gguf file, or a llama2.c checkpoint (.bin)`,
  );
}

async function openFolder(path: string): Promise<Unread> {
  const files = await localModelFiles(path);
  const names = (await files.list()).map(({ path: name }) => name).sort();
  const holds = (pattern: RegExp): boolean => names.some((name) => pattern.test(name));
  if (!holds(/^config\.json$|\.safetensors$|\.gguf$/)) throw noModel(path, names);
  if (holds(/^adapter_config\.json$/) && !holds(/^config\.json$/))
    throw new ModelError(
      `${path} is an adapter (LoRA), not a model; merge it into its base first, in Python with peft's merge_and_unload()`,
    );
  const folder = await readModelFiles(files);
  const { safetensors, shardOf, gguf } = folder.weights;
  if (!folder.config || safetensors.length === 0) {
    if (gguf.length === 1) return await openGgufModel(join(path, gguf[0]!));
    if (gguf.length > 1)
      throw new ModelError(`${path} holds several models; give the path of one of ${gguf.join(", ")}`);
    throw noModel(path, names);
  }
  if (!shardOf && safetensors.length > 1) {
    throw new ModelError(
      `${path} lacks model.safetensors.index.json, which would say what each of ${safetensors.join(", ")} holds`,
    );
  }
  const tokenizer = folder.tokenizerJson ? Tokenizer.fromFiles(tokenizerOf(folder)) : null;
  const tensors = shardOf
    ? await openSafetensorsIndex(join(path, "model.safetensors.index.json"))
    : await openSafetensors(join(path, safetensors[0]!));
  return { json: folder.config, tokenizer, tensors };
}

function noModel(path: string, names: readonly string[]): ModelError {
  const some = names.length === 0 ? "nothing" : names.slice(0, 8).join(", ") + (names.length > 8 ? ", ..." : "");
  return new ModelError(
    `${path} holds no model: looked for config.json with model.safetensors (or model.safetensors.index.json and its shards), and for a .gguf file; it holds ${some}. A llama2.c checkpoint is opened by its own path`,
  );
}

async function openGgufModel(path: string): Promise<Unread> {
  const file = await openGguf(path);
  return await closeOnError(file, async () => {
    return { ...(await decoderFromGguf(file)), tokenizer: ggufTokenizer(file) };
  });
}

function ggufTokenizer({ metadata }: GgufFile): Tokenizer | null {
  if (!metadata.has("tokenizer.ggml.model")) return null;
  const { tokenizerJson, tokenizerConfig } = tokenizerJsonFromGguf(metadata);
  const { chat_template: chatTemplate } = tokenizerConfig;
  return Tokenizer.fromFiles({
    tokenizerJson,
    tokenizerConfig,
    ...(typeof chatTemplate === "string" && { chatTemplate }),
  });
}

async function openLlama2cModel(path: string): Promise<Unread> {
  const source = await openFile(path);
  return await closeOnError(source, async () => {
    const { config, tensors } = await openLlama2c(source);
    return { json: { ...config }, tokenizer: await llama2cTokenizer(dirname(path), config.vocab_size), tensors };
  });
}

async function llama2cTokenizer(folder: string, vocabulary: number): Promise<Tokenizer | null> {
  for (const name of [`tok${vocabulary}.bin`, "tokenizer.bin"]) {
    const path = join(folder, name);
    if (!(await statOf(path))?.isFile()) continue;
    const file = await openFile(path);
    try {
      const pieces = readLlama2cPieces(await file.read(0, file.size), vocabulary, path);
      return Tokenizer.fromFiles(tokenizerJsonFromLlama2c(pieces));
    } finally {
      await file.close();
    }
  }
  return null;
}

/** What `saveModel` writes; an opened model is one, `{ ...model, weights }` another with other weights. */
export interface SavedModel {
  /** The content of config.json. */
  readonly json: JsonObject;
  /** In memory, or stored elsewhere and read one by one as they are written. */
  readonly weights: Weights | StoredWeights;
  readonly tokenizer?: Tokenizer | null;
}

/**
 * Saves a model into a folder as Hugging Face lays it out: safetensors, config.json, and the tokenizer where there is
 * one. Weights that are not dense are saved bit by bit as the tensors that they consist of, `<weight>.<part>`, which only
 * pare puts together again, by a description in the files' metadata (`pare.weights`). Each file is replaced as a whole,
 * and config.json after the weights, so that a folder that was new holds a whole model or none.
 * @throws ModelError where weights and configuration disagree; ArgumentError for weights without numbers, or in a
 *   representation that cannot be read back; FileError
 */
export async function saveModel(folder: string, model: SavedModel): Promise<void> {
  const { json } = model;
  const stored = asStored(model.weights);
  const outlines = outlinesOf(stored);
  checkWeights(decoderConfig(json), outlines);
  const { tensors, description } = takeApart(outlines);
  const compressed = Object.keys(description).length > 0;
  const text = JSON.stringify(description);
  // What could not be opened again is not written.
  restoreWeights(JSON.parse(text), tensors);
  const pending = Array.from(stored).flatMap(([name, weight]) => pendingParts(name, weight));
  const written =
    json["model_type"] === "gpt2" && !compressed ? pendingTensors(gpt2Stored(await loaded(pending))) : pending;
  await writeModel(folder, model, written, { metadata: compressed ? [[descriptionKey, text]] : [] });
}

/** The tensors that a weight is saved as. */
function pendingParts(name: string, weight: StoredWeight): PendingTensor[] {
  return Object.entries(takeApart({ [name]: weight.outline }).tensors).map(([part, leaf]) => ({
    name: part,
    dtype: leaf.dtype,
    shape: leaf.shape as readonly number[],
    load: () => numbersIn(weight, leaf),
  }));
}

async function loaded(pending: readonly PendingTensor[]): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const { name, load } of pending) tensors.set(name, await load());
  return tensors;
}

/** Writes the files of a model whose weights lie in `tensors`. @throws FileError */
export async function writeModel(
  folder: string,
  { json, weights, tokenizer }: SavedModel,
  tensors: readonly PendingTensor[],
  extra: { readonly metadata?: Iterable<readonly [string, string]>; readonly config?: JsonObject },
): Promise<void> {
  await explained("make", folder, mkdir(folder, { recursive: true }));
  // Other libraries refuse files that do not name the framework whose conventions they follow.
  const metadata = new Map([["format", "pt"], ...(extra.metadata ?? [])]);
  await saveSafetensorsFolder(folder, tensors, { metadata });
  const dtype = elementType(outlinesOf(asStored(weights)));
  await writeModelFiles(folder, {
    ...(tokenizer && tokenizerContents(tokenizer.files)),
    "config.json": {
      ...withoutQuantization(json),
      ["dtype" in json ? "dtype" : "torch_dtype"]: torchNames[dtype] ?? dtype,
      ...extra.config,
    },
  });
}

/** The type of a model's numbers: of its embedding, or where that is compressed of its last norm. */
function elementType(weights: Weights): DType {
  const embedding = weights["model.embed_tokens.weight"]!;
  const values = embedding instanceof Dense ? embedding.values : embedding;
  return (values instanceof Weight ? (weights["model.norm.weight"] as Leaf) : values).dtype;
}

/** What config.json calls the element types that weights have. */
const torchNames: Readonly<Record<string, string>> = {
  f64: "float64",
  f32: "float32",
  f16: "float16",
  bf16: "bfloat16",
};

/** The files of a tokenizer as parsed JSON, by name. */
export function tokenizerContents({
  tokenizerJson,
  tokenizerConfig,
  chatTemplate,
}: TokenizerFiles): Record<string, JsonObject> {
  const templates = typeof chatTemplate === "string" ? { default: chatTemplate } : chatTemplate;
  const listed = Object.entries(templates ?? {}).map(([name, template]) => ({ name, template }));
  const isUsual = listed.length === 1 && listed[0]!.name === "default";
  return {
    "tokenizer.json": tokenizerJson as JsonObject,
    "tokenizer_config.json": {
      ...tokenizerConfig,
      ...(listed.length > 0 && { chat_template: isUsual ? listed[0]!.template : listed }),
    },
  };
}
