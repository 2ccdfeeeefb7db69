import * as ort from "onnxruntime-node";
import { tensorProto } from "../../src/onnx/index.ts";
import {
  type AttributeProto,
  attributeType,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type ValueInfoProto,
} from "../../src/onnx/schema.ts";
import { encodeModel } from "../../src/onnx/wire.ts";
import { type Dim, type DType, dtypes, HostTensor } from "../../src/tensor/index.ts";

/** An attribute as exporters write it: floats are marked by `{ float: 0.5 }`, all other numbers are ints. */
export type ForeignAttr =
  | number
  | string
  | readonly number[]
  | HostTensor
  | { float: number }
  | { floats: readonly number[] };

const utf8 = new TextEncoder();

function attribute(name: string, value: ForeignAttr): AttributeProto {
  if (typeof value === "number") return { name, type: attributeType.int, i: value };
  if (typeof value === "string") return { name, type: attributeType.string, s: utf8.encode(value) };
  if (value instanceof HostTensor) return { name, type: attributeType.tensor, t: tensorProto(value, "") };
  if ("float" in value) return { name, type: attributeType.float, f: value.float };
  if ("floats" in value) return { name, type: attributeType.floats, floats: [...value.floats] };
  return { name, type: attributeType.ints, ints: [...(value as readonly number[])] };
}

/** A node as a foreign exporter would write it; `op` may carry its domain. */
export function node(
  op: string,
  input: readonly string[],
  output: readonly string[],
  attrs: Readonly<Record<string, ForeignAttr>> = {},
): NodeProto {
  const dot = op.lastIndexOf(".");
  return {
    opType: op.slice(dot + 1),
    input: [...input],
    output: [...output],
    attribute: Object.entries(attrs).map(([name, value]) => attribute(name, value)),
    ...(dot > 0 ? { domain: op.slice(0, dot) } : {}),
  };
}

/** The declared type of an input or output. */
export function port(name: string, dtype: DType, dims: readonly Dim[]): ValueInfoProto {
  const dim = dims.map((d) => (typeof d === "number" ? { dimValue: d } : { dimParam: d }));
  return { name, type: { tensorType: { elemType: dtypes[dtype].onnx, shape: { dim } } } };
}

export interface ForeignModel {
  readonly nodes: readonly NodeProto[];
  readonly inputs: readonly ValueInfoProto[];
  readonly outputs: readonly ValueInfoProto[];
  readonly weights?: Readonly<Record<string, HostTensor>>;
  readonly opset?: number;
  readonly ir?: number;
}

/** A model message in the manner of other exporters. */
export function foreignProto({ nodes, inputs, outputs, weights = {}, opset = 21, ir = 8 }: ForeignModel): ModelProto {
  const graph: GraphProto = {
    name: "foreign",
    node: [...nodes],
    input: [...inputs],
    output: [...outputs],
    initializer: Object.entries(weights).map(([name, value]) => tensorProto(value, name)),
  };
  return { irVersion: ir, producerName: "a test", graph, opsetImport: [{ domain: "", version: opset }] };
}

export const foreignModel = (model: ForeignModel): Uint8Array => encodeModel(foreignProto(model));

const ortTypes: Partial<Record<DType, ort.Tensor.Type>> = {
  f32: "float32",
  f64: "float64",
  f16: "float16",
  i64: "int64",
  i32: "int32",
  i8: "int8",
  u8: "uint8",
  bool: "bool",
};

/** What onnxruntime itself computes from the bytes of a model, or the path of one. */
export async function runBytes(
  model: Uint8Array | string,
  feeds: Readonly<Record<string, HostTensor>>,
): Promise<Record<string, HostTensor>> {
  const options: ort.InferenceSession.SessionOptions = { logSeverityLevel: 4, intraOpNumThreads: 1 };
  const session = await (typeof model === "string"
    ? ort.InferenceSession.create(model, options)
    : ort.InferenceSession.create(model, options));
  try {
    const given = Object.entries(feeds).map(
      ([name, t]) => [name, new ort.Tensor(ortTypes[t.dtype]!, t.data as never, [...t.shape])] as const,
    );
    const results = await session.run(Object.fromEntries(given));
    return Object.fromEntries(Object.entries(results).map(([name, t]) => [name, hostOf(t)]));
  } finally {
    await session.release();
  }
}

function hostOf(t: ort.Tensor): HostTensor {
  const dtype = (Object.keys(ortTypes) as DType[]).find((d) => ortTypes[d] === t.type)!;
  const data = t.data as unknown as HostTensor["data"];
  const { array } = dtypes[dtype];
  return new HostTensor(dtype, t.dims, new array(data.buffer, data.byteOffset, data.length));
}

/** Numbers between -1 and 1 that depend on `seed` alone. */
export function noiseTensor(shape: readonly number[], seed: number): HostTensor {
  let state = (seed * 2654435761 + 12345) >>> 0;
  const host = HostTensor.zeros("f32", shape);
  for (let i = 0, n = host.size; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    host.set(i, state / 2 ** 31 - 1);
  }
  return host;
}
