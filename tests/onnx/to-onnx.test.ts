import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readOnnxFile } from "../../src/onnx/from-onnx.node.ts";
import { checkModel, lower, makeGraph, modelOf, OPSET, toOnnx, toOnnxFiles } from "../../src/onnx/index.ts";
import type { ModelProto } from "../../src/onnx/schema.ts";
import { decodeModel } from "../../src/onnx/wire.ts";
import {
  ArgumentError,
  add,
  applyOp,
  constant,
  gelu,
  HostTensor,
  input,
  linear,
  matmul,
  mul,
  relu,
  rmsNorm,
  softmax,
  split,
  type Tensor,
  transpose,
} from "../../src/tensor/index.ts";
import { noiseTensor, runBytes } from "../support/foreign-model.ts";

const x = input("x", { dtype: "f32", shape: [2, 3] });
const value = noiseTensor([2, 3], 1);

/** A checked file of the outputs over the single input `x`. */
function file(outputs: Record<string, Tensor>, options = {}): Uint8Array {
  const ports = Object.entries(outputs).map(([name, tensor]) => ({ name, tensor }));
  const bytes = toOnnx(makeGraph([{ name: "x", tensor: x }], ports), options);
  checkModel(bytes);
  return bytes;
}

describe("names", () => {
  it("an output may be an input, a constant, or fetched twice", async () => {
    const y = relu(x);
    const two = constant(HostTensor.from([1, 2]));
    const bytes = file({ same: x, again: x, constant: two, once: y, twice: y, both: add(y, x) });
    const results = await runBytes(bytes, { x: value });
    const positive = value.toArray().map((v) => Math.max(0, v));
    expect(results.same!.toArray()).toEqual(value.toArray());
    expect(results.again!.toArray()).toEqual(value.toArray());
    expect(results.constant!.toArray()).toEqual([1, 2]);
    expect(results.once!.toArray()).toEqual(positive);
    expect(results.twice!.toArray()).toEqual(positive);
    expect(results.both!.toArray()).toEqual(value.toArray().map((v, i) => Math.fround(v + positive[i]!)));
  });

  it("of inputs and outputs are kept, and inner ones keep clear of them", async () => {
    const bytes = file({ t0: relu(x), n0: add(x, 1), c0: mul(relu(x), 3) });
    expect(Object.keys(await runBytes(bytes, { x: value })).sort()).toEqual(["c0", "n0", "t0"]);
  });

  it("must not repeat or be empty", () => {
    const port = (name: string): { name: string; tensor: Tensor } => ({ name, tensor: x });
    expect(() => makeGraph([port("x")], [port("x")])).toThrow(
      new ArgumentError('two inputs or outputs of the graph are called "x"'),
    );
    expect(() => makeGraph([port("x")], [port("")])).toThrow("an input or output of the graph has an empty name");
    expect(() => makeGraph([], [port("y")])).toThrow(/uses the input "x", which is not among its inputs/);
  });

  it("an unused input stays an input", () => {
    const spare = input("spare", { dtype: "i64", shape: ["n"] });
    const graph = makeGraph(
      [
        { name: "x", tensor: x },
        { name: "spare", tensor: spare },
      ],
      [{ name: "y", tensor: relu(x) }],
    );
    const { input: inputs } = decodeModel(toOnnx(graph)).graph!;
    expect(inputs!.map((i) => [i.name, i.type!.tensorType!.shape!.dim])).toEqual([
      ["x", [{ dimValue: 2 }, { dimValue: 3 }]],
      ["spare", [{ dimParam: "n" }]],
    ]);
  });
});

describe("the model says", () => {
  it("its versions, its producer and what it was given to remember", () => {
    const { irVersion, opsetImport, producerName, metadataProps } = decodeModel(
      file({ y: relu(x) }, { metadata: { a: "1", b: "" } }),
    );
    expect({ irVersion, opsetImport, producerName }).toEqual({
      irVersion: 10,
      producerName: "pare",
      opsetImport: [{ domain: "", version: OPSET }],
    });
    expect(metadataProps).toEqual([
      { key: "a", value: "1" },
      { key: "b", value: "" },
    ]);
  });

  it("which domains it uses", () => {
    const wide = input("x", { dtype: "f32", shape: [2, 3, 4] });
    const y = matmul(wide, transpose(wide));
    const graph = makeGraph([{ name: "x", tensor: wide }], [{ name: "y", tensor: y }]);
    expect(modelOf(graph).opsetImport).toEqual([
      { domain: "", version: OPSET },
      { domain: "com.microsoft", version: 1 },
    ]);
    expect(modelOf(graph, { portable: true }).opsetImport).toEqual([{ domain: "", version: OPSET }]);
  });

  it("nothing that only onnxruntime knows, unless the graph was lowered for it", () => {
    const graph = makeGraph([{ name: "x", tensor: x }], [{ name: "y", tensor: rmsNorm(x, noiseTensor([3], 5)) }]);
    const operators = (model: ModelProto): (string | undefined)[] => model.graph!.node!.map((n) => n.opType);
    expect(operators(modelOf(lower(graph), { lowered: true }))).toContain("SimplifiedLayerNormalization");
    expect(operators(modelOf(graph))).not.toContain("SimplifiedLayerNormalization");
  });

  it("every kind of attribute", () => {
    const clipped = applyOp(
      "Conv",
      [input("i", { dtype: "f32", shape: [1, 1, 4, 4] }), constant(noiseTensor([1, 1, 2, 2], 2))],
      {
        auto_pad: "SAME_UPPER",
        strides: [2, 1],
        group: 1,
      },
    )[0]!;
    const model = modelOf(
      makeGraph([{ name: "i", tensor: clipped.node.inputs[0]! }], [{ name: "y", tensor: clipped }]),
    );
    expect(model.graph!.node![0]!.attribute!.map(({ name, type }) => [name, type])).toEqual([
      ["auto_pad", 3],
      ["strides", 7],
      ["group", 2],
    ]);
  });

  it("optional inputs that are left out in the middle by an empty name, at the end not at all", () => {
    const low = applyOp("Clip", [x, constant(HostTensor.from(0)), null])[0]!;
    const high = applyOp("Clip", [x, null, constant(HostTensor.from(0))])[0]!;
    const { node } = decodeModel(file({ low, high })).graph!;
    expect(node!.map((n) => n.input!.map((name) => name.replace(/\d/, "")))).toEqual([
      ["x", "c"],
      ["x", "", "c"],
    ]);
  });

  it("outputs of an operation with several", async () => {
    const [a, b] = split(x, [1, 2], 1) as [Tensor, Tensor];
    const { left, right } = await runBytes(file({ left: a, right: b }), { x: value });
    expect([left!.shape, right!.shape]).toEqual([
      [2, 1],
      [2, 2],
    ]);
  });
});

describe("external data", () => {
  const folder = mkdtempSync(join(tmpdir(), "pare-onnx-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  it("lie aligned beside the model and give the same results", async () => {
    const [w1, w2] = [noiseTensor([500, 3], 3), noiseTensor([500], 4)];
    const h = softmax(gelu(linear(x, w1, w2)));
    const graph = makeGraph([{ name: "x", tensor: x }], [{ name: "y", tensor: h }]);
    const { model, data } = toOnnxFiles(graph, "weights.bin");
    checkModel(model);
    expect(model.length).toBeLessThan(2000);
    writeFileSync(join(folder, "model.onnx"), model);
    writeFileSync(join(folder, "weights.bin"), Buffer.concat(data));
    const offsets = decodeModel(model).graph!.initializer!.flatMap((t) => t.externalData ?? []);
    expect(offsets.filter((e) => e.key === "offset").map((e) => e.value)).toEqual(["0", "8192"]);
    const inside = await runBytes(toOnnx(graph), { x: value });
    const outside = await runBytes(join(folder, "model.onnx"), { x: value });
    expect(outside.y!.toArray()).toEqual(inside.y!.toArray());
    const again = await runBytes(toOnnx(readOnnxFile(join(folder, "model.onnx")).graph()), { x: value });
    expect(again.y!.toArray()).toEqual(inside.y!.toArray());
  });
});
