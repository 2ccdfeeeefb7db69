import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { closeOnError } from "../../formats/bytes.ts";
import {
  FileError,
  FormatError,
  type ModelFolder,
  openLlama2c,
  type TensorFile,
  Tokenizer,
  tokenizerOf,
} from "../../formats/index.ts";
import { decodeUtf8, type JsonObject, parseJson } from "../../formats/json.ts";
import { openFile, openGguf, openSafetensors, openSafetensorsIndex, readModelFolder } from "../../formats/node.ts";
import {
  type DecoderConfig,
  decoderConfig,
  decoderFromGguf,
  decoderOutline,
  ModelError,
  type StoredWeight,
} from "../../models/index.ts";
import { readOnnxFile } from "../../onnx/from-onnx.node.ts";
import { formatShape } from "../../tensor/index.ts";
import { UsageError } from "../errors.ts";
import { type Contents, describedItems, type Item, tensorItems, weightItems } from "./contents.ts";

type Facts = Record<string, string | number | boolean>;

const indexName = "model.safetensors.index.json";
/** A tokenizer.json of a quarter of a million tokens has about 20 MB. */
const tokenizerLimit = 200_000_000;

/**
 * Opens a folder or file of any format that pare reads.
 * @throws UsageError for a file of another kind; FileError; FormatError, OnnxError for one that is malformed
 */
export async function openContents(path: string): Promise<Contents> {
  const found = await stat(path).catch(() => undefined);
  if (!found) throw new FileError(`there is no file or folder ${path}`);
  if (found.isDirectory()) return await openFolder(path);
  const name = basename(path);
  const open = Object.entries(byEnding).find(([ending]) => name.toLowerCase().endsWith(ending))?.[1];
  if (!open)
    throw new UsageError(
      `cannot tell from its name what ${path} is; give a model's folder, or a file that ends in ${Object.keys(byEnding).join(", ")}`,
    );
  return await open(path);
}

const byEnding: Readonly<Record<string, (path: string) => Promise<Contents>>> = {
  ".safetensors": openTensors,
  ".safetensors.index.json": openTensors,
  ".gguf": openGgufFile,
  ".onnx": openOnnx,
  ".bin": openCheckpoint,
  "tokenizer.json": openTokenizer,
};

function contents(
  format: string,
  facts: Facts,
  items: readonly Item[],
  file: TensorFile | null,
  { notes = [], problems = [] }: { notes?: readonly string[]; problems?: readonly string[] } = {},
): Contents {
  return { format, facts, items, notes, problems, [Symbol.asyncDispose]: async () => file?.close() };
}

async function openTensors(path: string): Promise<Contents> {
  const file = path.endsWith(".json") ? await openSafetensorsIndex(path) : await openSafetensors(path);
  return await closeOnError(file, async () =>
    contents("safetensors", metadataFacts(file.metadata), describedItems(file), file),
  );
}

/** Short texts of a file's own metadata. */
function metadataFacts(metadata: ReadonlyMap<string, string>): Facts {
  return Object.fromEntries([...metadata].filter(([, text]) => text.length <= 80));
}

/** A decoder's weights and numbers as far as they go together. */
async function decoderIn(
  json: JsonObject,
  file: TensorFile,
): Promise<{ facts: Facts; weights?: ReadonlyMap<string, StoredWeight>; notes: string[]; problems: string[] }> {
  let config: DecoderConfig;
  try {
    config = decoderConfig(json);
  } catch (error) {
    if (!(error instanceof ModelError)) throw error;
    const { model_type: type } = json;
    return { facts: typeof type === "string" ? { architecture: type } : {}, notes: [error.message], problems: [] };
  }
  const facts = decoderFacts(config);
  try {
    return { facts, weights: (await decoderOutline(json, file)).weights, notes: [], problems: [] };
  } catch (error) {
    if (!(error instanceof ModelError || error instanceof FormatError)) throw error;
    return { facts, notes: [], problems: [error.message] };
  }
}

function decoderFacts(config: DecoderConfig): Facts {
  return {
    architecture: config.type,
    layers: config.layers,
    width: config.dim,
    heads: config.heads,
    "heads of keys and values": config.kvHeads,
    "width of a head": config.headDim,
    "width of the feed-forward layer": config.ffn,
    vocabulary: config.vocab,
    positions: config.maxPositions,
    "tied embeddings": config.tied,
  };
}

async function openFolder(path: string): Promise<Contents> {
  const folder = await readModelFolder(path);
  const { config, weights } = folder;
  const { safetensors, shardOf, gguf, onnx } = weights;
  if (config && safetensors.length > 0) return await openModelFolder(path, folder, config);
  const files = [...gguf, ...onnx];
  if (files.length === 1) return await openContents(join(path, files[0]!));
  if (files.length === 0 && !shardOf) throw new FileError(`${path} holds no weights that pare reads`);
  throw new UsageError(`${path} holds several models; give the path of one of ${files.join(", ")}`);
}

async function openModelFolder(path: string, folder: ModelFolder, config: JsonObject): Promise<Contents> {
  const { shardOf, safetensors, gguf, onnx } = folder.weights;
  const file = shardOf
    ? await openSafetensorsIndex(join(path, indexName))
    : await openSafetensors(join(path, safetensors[0]!));
  return await closeOnError(file, async () => {
    const { facts, weights, notes, problems } = await decoderIn(config, file);
    const tokenizer = folder.tokenizerJson ? tokenizerFacts(Tokenizer.fromFiles(tokenizerOf(folder))) : {};
    const others = [...(shardOf ? [] : safetensors.slice(1)), ...gguf, ...onnx];
    // GPT-2's weights are made of parts of the tensors in the file.
    const whole = weights && [...weights.values()].every(({ parts }) => parts.every((part) => file.tensors.has(part)));
    return contents(
      "folder of Hugging Face's",
      { ...facts, ...tokenizer },
      whole ? weightItems(file, weights) : tensorItems(file),
      file,
      {
        notes: [...notes, ...others.map((other) => `it also holds ${other}, which is inspected by its own path`)],
        problems,
      },
    );
  });
}

async function openGgufFile(path: string): Promise<Contents> {
  const file = await openGguf(path);
  return await closeOnError(file, async () => {
    const named = { "GGUF version": file.version };
    try {
      const { json, tensors } = await decoderFromGguf(file);
      const { facts, notes, problems } = await decoderIn(json, tensors);
      return contents("GGUF", { ...facts, ...named }, tensorItems(file), file, { notes, problems });
    } catch (error) {
      if (!(error instanceof ModelError)) throw error;
      return contents("GGUF", named, tensorItems(file), file, { notes: [error.message] });
    }
  });
}

async function openOnnx(path: string): Promise<Contents> {
  const model = readOnnxFile(path);
  const ports = (list: typeof model.inputs): string =>
    list.map(({ name, dtype, shape }) => `${name} ${dtype} ${shape ? formatShape(shape) : "[...]"}`).join(", ");
  const facts = {
    producer: model.producer,
    "operator set": model.opset,
    inputs: ports(model.inputs),
    outputs: ports(model.outputs),
  };
  const items = Object.entries(model.weights).map(([name, tensor]) => ({
    name,
    type: tensor.dtype,
    shape: tensor.shape,
    bytes: tensor.bytes,
    read: async () => tensor,
  }));
  const packed = items.some(({ type }) => type === "u8");
  const notes = packed ? ["packed codes are counted as the bytes that they are, not as the parameters in them"] : [];
  return contents("ONNX", facts, items, null, { notes });
}

async function openCheckpoint(path: string): Promise<Contents> {
  const source = await openFile(path);
  return await closeOnError(source, async () => {
    const { config, tensors } = await openLlama2c(source);
    const { facts, notes, problems } = await decoderIn({ ...config }, tensors);
    return contents("llama2.c", facts, tensorItems(tensors), tensors, { notes, problems });
  });
}

async function openTokenizer(path: string): Promise<Contents> {
  const source = await openFile(path);
  try {
    if (source.size > tokenizerLimit)
      throw new FormatError(`${path}: its ${source.size} bytes are over the limit of ${tokenizerLimit}`);
    const json = parseJson(decodeUtf8(await source.read(0, source.size), path), path);
    return contents("tokenizer", tokenizerFacts(Tokenizer.fromFiles({ tokenizerJson: json })), [], null);
  } finally {
    await source.close();
  }
}

function tokenizerFacts(tokenizer: Tokenizer): Facts {
  return {
    "tokens of the tokenizer": tokenizer.vocabSize,
    "special tokens": [...tokenizer.specialTokens.keys()].slice(0, 8).join(" "),
    "chat template": tokenizer.chatTemplate !== undefined,
  };
}
