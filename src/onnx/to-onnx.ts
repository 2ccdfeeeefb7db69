import { type Branch, constantOf, type Node } from "../tensor/index.ts";
import { type Graph, nodesOf, type Port } from "./graph.ts";
import { type LowerOptions, lower } from "./lower.ts";
import { NodeWriter, type OnNode, valueInfo } from "./node-writer.ts";
import type { GraphProto, ModelProto, TensorProto } from "./schema.ts";
import { encodeModel, modelPieces } from "./wire.ts";

/** The operator set that graphs are written in. */
export const OPSET = 21;
const IR_VERSION = 10;

/** Operators that came after the base set, with the set that brought them. */
const NEWER: Readonly<Record<string, number>> = {
  Attention: 23,
  RotaryEmbedding: 23,
  RMSNormalization: 23,
  Swish: 24,
  TensorScatter: 24,
};

export interface ToOnnxOptions extends LowerOptions {
  /** Text pairs kept in the file's metadata. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** The graph is in its final form already. */
  readonly lowered?: boolean;
  /** Told the name that each node gets in the file. */
  readonly onNode?: OnNode;
}

/** The bytes of an ONNX file that computes `graph`. @throws OnnxError above 2 GB; see `toOnnxFiles`. */
export function toOnnx(graph: Graph, options: ToOnnxOptions = {}): Uint8Array {
  return encodeModel(modelOf(graph, options));
}

/** As `toOnnx`, in pieces to be written one behind the other; the constants among them are not copied. @throws as `toOnnx` */
export function toOnnxPieces(graph: Graph, options: ToOnnxOptions = {}): Uint8Array[] {
  return modelPieces(modelOf(graph, options));
}

export interface OnnxFiles {
  /** The `.onnx` file, which refers to the data file by name. */
  readonly model: Uint8Array;
  /** The data file in order; write the pieces one behind the other. */
  readonly data: readonly Uint8Array[];
}

/** Constants at least this large go to the data file; smaller ones stay with the graph. */
const EXTERNAL_BYTES = 1024;
/** Alignment that lets onnxruntime map the data file into memory. */
const ALIGNMENT = 4096;

/** As `toOnnx`, but with large constants in a second file called `dataName` beside the model: for models of any size. */
export function toOnnxFiles(graph: Graph, dataName: string, options: ToOnnxOptions = {}): OnnxFiles {
  const model = modelOf(graph, options);
  const data: Uint8Array[] = [];
  let offset = 0;
  for (const tensor of largeConstants(model)) {
    const gap = (ALIGNMENT - (offset % ALIGNMENT)) % ALIGNMENT;
    if (gap > 0) data.push(new Uint8Array(gap));
    offset += gap;
    const bytes = moveOut(tensor, dataName, offset);
    data.push(bytes);
    offset += bytes.byteLength;
  }
  return { model: encodeModel(model), data };
}

/** A constant's own memory under the name by which a model refers to it. */
export interface ExternalConstant {
  readonly path: string;
  readonly data: Uint8Array;
}

/** As `toOnnx`, but large constants stay where they are in memory: nothing is copied, and the size has no limit. */
export function toOnnxInMemory(
  graph: Graph,
  options: ToOnnxOptions = {},
): { readonly model: Uint8Array; readonly constants: readonly ExternalConstant[] } {
  const model = modelOf(graph, options);
  const constants = largeConstants(model).map((tensor) => ({
    path: tensor.name!,
    data: moveOut(tensor, tensor.name!, 0),
  }));
  return { model: encodeModel(model), constants };
}

const largeConstants = (model: ModelProto): TensorProto[] =>
  model.graph!.initializer!.filter(({ rawData }) => rawData!.byteLength >= EXTERNAL_BYTES);

/** Lets a constant refer to a place outside of the model. @returns its bytes, which belong there */
function moveOut(tensor: TensorProto, location: string, offset: number): Uint8Array {
  const bytes = tensor.rawData!;
  delete tensor.rawData;
  tensor.dataLocation = 1;
  tensor.externalData = [
    { key: "location", value: location },
    { key: "offset", value: `${offset}` },
    { key: "length", value: `${bytes.byteLength}` },
  ];
  return bytes;
}

/** The model message of `graph`, byte fields referring to the constants' own memory. */
export function modelOf(graph: Graph, options: ToOnnxOptions = {}): ModelProto {
  const lowered = options.lowered ? graph : lower(graph, { strict: true, ...options });
  const used = nodesOf(lowered.outputs.map((p) => p.tensor));
  const all = withBranches(used);
  const opset = Math.max(OPSET, ...all.map((n) => NEWER[n.op] ?? 0));
  const contrib = all.some((n) => n.op.startsWith("com.microsoft."));
  return {
    irVersion: IR_VERSION,
    producerName: "pare",
    graph: graphProto(lowered, used, options.onNode),
    opsetImport: [{ domain: "", version: opset }, ...(contrib ? [{ domain: "com.microsoft", version: 1 }] : [])],
    ...(options.metadata
      ? { metadataProps: Object.entries(options.metadata).map(([key, value]) => ({ key, value })) }
      : {}),
  };
}

/** The nodes and those of the branches inside of them. */
function withBranches(nodes: readonly Node[]): Node[] {
  return nodes.flatMap((node) =>
    node.op === "pare.When" ? [node, ...withBranches(nodesOf((node.extra as Branch).outputs))] : [node],
  );
}

function graphProto(graph: Graph, used: readonly Node[], onNode?: ToOnnxOptions["onNode"]): GraphProto {
  const names = new Map(graph.inputs.map(({ name, tensor }) => [tensor, name]));
  const writer = new NodeWriter([...graph.inputs, ...graph.outputs], onNode);
  // A tensor has one name: an output that is an input, a constant, or fetched twice is copied to its further names.
  const copies: Port[] = [];
  for (const output of graph.outputs) {
    if (names.has(output.tensor) || constantOf(output.tensor)) copies.push(output);
    else names.set(output.tensor, output.name);
  }
  const node = writer.write(used, names);
  for (const { name, tensor } of copies) node.push(writer.copy(writer.nameOf(tensor, names), name));
  return {
    name: "graph",
    node,
    initializer: writer.initializer,
    input: graph.inputs.map((p) => valueInfo(p.name, p.tensor)),
    output: graph.outputs.map((p) => valueInfo(p.name, p.tensor)),
  };
}
