import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ByteSink } from "../formats/bytes.ts";
import { explained, writeFilesAtomic } from "../formats/files.node.ts";
import { isJsonObject, type JsonObject } from "../formats/json.ts";
import { writeModelFiles } from "../formats/node.ts";
import { Dense, Weight } from "../nn/index.ts";
import { type Graph, nodesOf, toOnnxFiles, toOnnxPieces } from "../onnx/index.ts";
import type { Device } from "../runtime/index.ts";
import { byteLength, constantOf } from "../tensor/index.ts";
import { decoderConfig } from "./decoder/config.ts";
import type { Weights } from "./decoder/weights.ts";
import { ModelError } from "./errors.ts";
import { type SavedModel, tokenizerContents } from "./load.node.ts";
import { decoderGraph } from "./onnx-export.ts";

/** What transformers.js calls representations of a model, with what their files' names end in. */
const suffixes = {
  fp32: "",
  fp16: "_fp16",
  q8: "_quantized",
  q4: "_q4",
  q4f16: "_q4f16",
  q2: "_q2",
  q2f16: "_q2f16",
  q1: "_q1",
  q1f16: "_q1f16",
} as const;

export type OnnxDtype = keyof typeof suffixes;

export interface ExportOnnxOptions {
  /**
   * What transformers.js is to find the model under. The weights keep the representation that they have: quantize them
   * before exporting as `q4`. With `fp16` and the like, what is floating-point becomes `f16`. Default `fp32`.
   */
  readonly dtype?: OnnxDtype;
  /** What the file is to be fastest on; it runs elsewhere too. Default `cpu`, which suits WebAssembly as well. */
  readonly device?: Device;
  /** Keep the weights in a file of their own beside the graph. Default: where one file cannot hold both (2 GB). */
  readonly external?: boolean;
}

/** Constants beyond this are kept outside of the graph: protobuf ends at 2 GiB, and the nodes need some of it. */
const mostInside = 2 ** 31 - 2 ** 26;

/**
 * Exports a decoder into a folder that transformers.js opens: `onnx/model.onnx` (named by `dtype`), with the weights of
 * large models in `onnx/model.onnx_data`, config.json, generation_config.json, and the tokenizer where there is one.
 * Further representations can be exported into the same folder. Each file is replaced as a whole.
 * @returns the path of the `.onnx` file
 * @throws ModelError where weights and configuration disagree, or dense weights are to be exported as quantized;
 *   FileError
 */
export async function exportOnnx(
  folder: string,
  { json, weights, tokenizer }: SavedModel & { readonly weights: Weights },
  { dtype = "fp32", device = "cpu", external }: ExportOnnxOptions = {},
): Promise<string> {
  checkDtype(dtype, weights);
  const graph = decoderGraph(decoderConfig(json), weights, { dtype: dtype.endsWith("16") ? "f16" : "f32", device });
  const name = `model${suffixes[dtype]}.onnx`;
  const outside = external ?? constantBytes(graph) > mostInside;
  await writeOnnx(join(folder, "onnx"), name, graph, outside);
  await writeModelFiles(folder, {
    ...(tokenizer && tokenizerContents(tokenizer.files)),
    "generation_config.json": generationConfig(json),
    "config.json": { ...json, ...(await loaderConfig(folder, json)) },
  });
  return join(folder, "onnx", name);
}

function checkDtype(dtype: OnnxDtype, weights: Weights): void {
  if (!Object.hasOwn(suffixes, dtype))
    throw new ModelError(`transformers.js has no dtype "${dtype}"; it has ${Object.keys(suffixes).join(", ")}`);
  const dense = Object.values(weights).every((weight) => !(weight instanceof Weight) || weight instanceof Dense);
  if (dtype.startsWith("q") && dense)
    throw new ModelError(`all weights are dense, so that they cannot be exported as ${dtype}; quantize them first`);
}

function constantBytes(graph: Graph): number {
  let bytes = 0;
  for (const { outputs } of nodesOf(graph.outputs.map(({ tensor }) => tensor))) {
    const value = constantOf(outputs[0]);
    if (value) bytes += byteLength(value.dtype, value.size);
  }
  return bytes;
}

async function writeOnnx(folder: string, name: string, graph: Graph, outside: boolean): Promise<void> {
  await explained("make", folder, mkdir(folder, { recursive: true }));
  const [path, dataPath] = [join(folder, name), join(folder, `${name}_data`)];
  const options = { lowered: true };
  if (outside) {
    const { model, data } = toOnnxFiles(graph, `${name}_data`, options);
    await writeFilesAtomic([
      { path: dataPath, write: (sink) => writeAll(sink, data) },
      { path, write: (sink) => sink.write(model) },
    ]);
  } else {
    const pieces = toOnnxPieces(graph, options);
    await writeFilesAtomic([{ path, write: (sink) => writeAll(sink, pieces) }]);
    await explained("remove", dataPath, rm(dataPath, { force: true }));
  }
}

async function writeAll(sink: ByteSink, pieces: readonly Uint8Array[]): Promise<void> {
  for (const piece of pieces) await sink.write(piece);
}

/** The tokens that generation begins and ends with. */
function generationConfig(json: JsonObject): JsonObject {
  const known = ["bos_token_id", "eos_token_id", "pad_token_id"].filter((key) => (json[key] ?? null) !== null);
  return Object.fromEntries(known.map((key) => [key, json[key]]));
}

/** What config.json tells transformers.js in browsers, which cannot look for themselves: models with a data file. */
async function loaderConfig(folder: string, json: JsonObject): Promise<JsonObject> {
  const onnx = join(folder, "onnx");
  const names = (await explained("list", onnx, readdir(onnx))).filter((name) => name.endsWith(".onnx_data"));
  const given = json["transformers.js_config"];
  if (names.length === 0 && !isJsonObject(given)) return {};
  const external = Object.fromEntries(names.sort().map((name) => [name.replace(/_data$/, ""), true]));
  return { "transformers.js_config": { ...(isJsonObject(given) && given), use_external_data_format: external } };
}
