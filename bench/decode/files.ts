import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import {
  ggufTokenizerMetadata,
  ggufTypes,
  type LlamaConfig,
  pendingFrom,
  Tokenizer,
  tokenizerJsonFromLlama2c,
} from "../../src/formats/index.ts";
import { saveGguf, writeFileAtomic } from "../../src/formats/node.ts";
import { decoderConfig, decoderShapes, decoderToGguf, requireTokenizer } from "../../src/models/index.ts";
import { openModel, type SavedModel, saveModel } from "../../src/models/node.ts";
import { Dense } from "../../src/nn/index.ts";
import { toOnnxFiles } from "../../src/onnx/index.ts";
import { Rng } from "../../src/tensor/index.ts";
import { transformersGraph } from "../peers/decoder-graph.ts";
import { type Precision, positions, precisions, shapes } from "./shapes.ts";
import { quantized } from "./weights.ts";

/**
 * The folder of a model of the bench under `work`, with all files that its engines read. What is there already is
 * taken as it is; files appear under their names when they are whole.
 */
export async function modelFolder(
  work: string,
  shape: string,
  wanted: readonly Precision[],
  log: (line: string) => void,
): Promise<string> {
  const source = shapes[shape]!;
  const folder = join(work, `${shape}-${await digestOf(source)}`);
  if (!existsSync(join(folder, "config.json"))) {
    log(`making ${folder}`);
    await saveModel(folder, typeof source === "string" ? await trained(source) : randomModel(source));
  }
  for (const precision of wanted) {
    const { gguf, onnx } = filesOf(folder, precision);
    for (const [path, write] of [
      [gguf, writeGgufFile],
      [onnx, writeOnnxFile],
    ] as const) {
      if (existsSync(path)) continue;
      log(`making ${path}`);
      await mkdir(dirname(path), { recursive: true });
      await write(folder, path, precision);
    }
  }
  return folder;
}

/** Where the files of llama.cpp and transformers.js are. */
export function filesOf(folder: string, precision: Precision): { readonly gguf: string; readonly onnx: string } {
  const { gguf, onnx } = precisions[precision];
  return { gguf: join(folder, "gguf", `${gguf}.gguf`), onnx: join(folder, "onnx", `model${onnx.suffix}.onnx`) };
}

/** Changes when the model does. */
async function digestOf(source: string | LlamaConfig): Promise<string> {
  const state = typeof source === "string" ? (await stat(source)).mtimeMs : source;
  return createHash("sha256")
    .update(JSON.stringify([source, state]))
    .digest("hex")
    .slice(0, 8);
}

/** A model with the bench's number of positions, which rotary embeddings have no weights for. */
async function trained(path: string): Promise<SavedModel> {
  await using model = await openModel(path);
  return { ...model, json: { ...model.json, max_position_embeddings: positions } };
}

/** Weights large enough that every part of the model matters, and a tokenizer of bytes. */
function randomModel(config: LlamaConfig): SavedModel {
  const rng = new Rng(3);
  const json = { ...config };
  const weights = Array.from(decoderShapes(decoderConfig(json)), ([name, shape]) => {
    const isVector = shape.length === 1;
    const std = isVector ? 0.1 : 1 / Math.sqrt(shape[1]!);
    const values = rng.fork(name).normalTensor(shape, { mean: isVector ? 1 : 0, std });
    return [name, isVector ? values : new Dense(values)] as const;
  });
  const special = ["<unk>", "\n<s>\n", "\n</s>\n"];
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const pieces = [...special, ...bytes].map((text) => ({ text, score: 0 }));
  return {
    json,
    weights: Object.fromEntries(weights),
    tokenizer: Tokenizer.fromFiles(tokenizerJsonFromLlama2c(pieces)),
  };
}

/** The embedding table is quantized like the other matrices, and a tied head with it. */
async function writeGgufFile(folder: string, path: string, precision: Precision): Promise<void> {
  await using model = await openModel(folder, { dtype: "stored" });
  const { metadata, tensors } = decoderToGguf(
    model.json,
    pendingFrom(model.tensors),
    ggufTypes(precisions[precision].gguf),
  );
  const { tokenizerJson, tokenizerConfig } = requireTokenizer(model).files;
  const tokenizer = ggufTokenizerMetadata({ tokenizerJson, tokenizerConfig }, model.config.vocab);
  await saveGguf(path, new Map([...metadata, ...tokenizer]), tensors);
}

async function writeOnnxFile(folder: string, path: string, precision: Precision): Promise<void> {
  await using model = await openModel(folder);
  const graph = transformersGraph(model.config, quantized(model.weights, precision));
  const { model: bytes, data } = toOnnxFiles(graph, `${basename(path)}_data`, { lowered: true });
  await writeFileAtomic(`${path}_data`, async (sink) => {
    for (const piece of data) await sink.write(piece);
  });
  await writeFileAtomic(path, (sink) => sink.write(bytes));
}
