import { linkSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { readOnnxFile } from "../../src/onnx/from-onnx.node.ts";
import { fromOnnx, OnnxError, toOnnx } from "../../src/onnx/index.ts";
import { readTensor } from "../../src/onnx/read-tensor.ts";
import type { NodeProto, TensorProto } from "../../src/onnx/schema.ts";
import { encodeModel } from "../../src/onnx/wire.ts";
import { compile } from "../../src/runtime/index.ts";
import {
  ArgumentError,
  DTypeError,
  grad,
  HostTensor,
  input,
  mean,
  mul,
  ShapeError,
  spec,
  type Tensor,
} from "../../src/tensor/index.ts";
import {
  type ForeignModel,
  foreignModel,
  foreignProto,
  node,
  noiseTensor,
  port,
  runBytes,
} from "../support/foreign-model.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { compare } from "../support/onnx-node-tests.ts";

const weights = {
  "fc.weight": noiseTensor([4, 3], 1),
  "fc.bias": noiseTensor([4], 2),
  shape: HostTensor.from([-1n, 2n, 2n]),
};

/** A classifier in the manner of exporters: names of its own, a reshape by a constant, a dynamic batch. */
const classifier: ForeignModel = {
  opset: 13,
  nodes: [
    node("Gemm", ["image", "fc.weight", "fc.bias"], ["h"], { transB: 1 }),
    node("Relu", ["h"], ["a"]),
    node("Constant", [], ["two"], { value_float: { float: 2 } }),
    node("Mul", ["a", "two"], ["scaled"]),
    node("Reshape", ["scaled", "shape"], ["grid"]),
  ],
  inputs: [port("image", "f32", ["batch", 3])],
  outputs: [port("grid", "f32", ["batch", 2, 2]), port("h", "f32", ["batch", 4])],
  weights,
};

describe("a model", () => {
  const model = fromOnnx(foreignModel(classifier));

  it("says what it takes, gives and holds", () => {
    expect(model.inputs).toEqual([{ name: "image", dtype: "f32", shape: ["batch", 3] }]);
    expect(model.outputs).toEqual([
      { name: "grid", dtype: "f32", shape: ["batch", 2, 2] },
      { name: "h", dtype: "f32", shape: ["batch", 4] },
    ]);
    expect(Object.keys(model.weights)).toEqual(["fc.weight", "fc.bias"]);
    expect(Object.keys(model.constants)).toEqual(["shape"]);
    expect(model.weights["fc.weight"]!.toArray()).toEqual(weights["fc.weight"].toArray());
    expect({ opset: model.opset, producer: model.producer, metadata: model.metadata }).toEqual({
      opset: 13,
      producer: "a test",
      metadata: {},
    });
  });

  it("computes what onnxruntime computes from its file, at any batch", async () => {
    const written = toOnnx(model.graph());
    for (const batch of [1, 5]) {
      const image = noiseTensor([batch, 3], batch);
      const [got, want] = [await runBytes(written, { image }), await runBytes(foreignModel(classifier), { image })];
      for (const name of ["grid", "h"]) expect(compare(got[name]!, want[name]!, 1e-6)).toBeUndefined();
    }
  });

  it("takes numbers for its named dimensions", () => {
    const graph = model.graph({ batch: 7 });
    expect(graph.inputs[0]!.tensor.shape).toEqual([7, 3]);
    expect(graph.outputs.map((p) => p.tensor.shape)).toEqual([
      [7, 2, 2],
      [7, 4],
    ]);
    expect(() => model.graph({ bach: 7 })).toThrow(new ArgumentError('no input has the dimension "bach"'));
  });

  it("can be differentiated with respect to its weights", async () => {
    const { shape: _, ...learned } = weights;
    const image = noiseTensor([2, 3], 5);
    await checkGradient(
      (w, b) => model.call({ image }, { "fc.weight": w, "fc.bias": b })["grid"]!,
      Object.values(learned),
      { dtype: "f32" },
    );
  });

  it("can be trained in one program", async () => {
    const step = await compile(
      (image: Tensor, w: Record<string, Tensor>) => {
        const { grid } = model.call({ image }, w);
        const loss = mean(mul(grid!, grid!));
        return { loss, grads: grad(loss, w) };
      },
      [spec("f32", [2, 3]), model.weights],
      { threads: 1 },
    );
    const { loss, grads } = await step(noiseTensor([2, 3], 5), model.weights);
    expect(loss.item()).toBeGreaterThan(0);
    expect(Object.keys(grads)).toEqual(["fc.weight", "fc.bias"]);
    await step.dispose();
  });

  it("takes other weights in place of its own", async () => {
    const zeros = HostTensor.zeros("f32", [4]);
    const program = await compile(
      (image: Tensor) => model.call({ image }, { "fc.bias": zeros })["h"]!,
      [spec("f32", [1, 3])],
      { threads: 1 },
    );
    expect((await program(HostTensor.zeros("f32", [1, 3]))).toArray()).toEqual([0, 0, 0, 0]);
    await program.dispose();
  });

  it("checks what it is called with", () => {
    const image = input("i", { dtype: "f32", shape: [2, 3] });
    expect(() => model.call({})).toThrow(new ArgumentError('the input "image" was not given; the model takes image'));
    expect(() => model.call({ image, mask: image })).toThrow(
      new ArgumentError('the model has no input "mask"; it takes image'),
    );
    expect(() => model.call({ image }, { "fc.wait": image })).toThrow(
      new ArgumentError('the model has no weight "fc.wait"'),
    );
    expect(() => model.call({ image: input("i", { dtype: "i32", shape: [2, 3] }) })).toThrow(
      new DTypeError('the input "image" takes f32, not i32'),
    );
    expect(() => model.call({ image: input("i", { dtype: "f32", shape: [2, 4] }) })).toThrow(
      new ShapeError('the input "image" takes [batch, 3], but [2, 4] was given (with batch = 2)'),
    );
    expect(() => model.call({ image: input("i", { dtype: "f32", shape: [3] }) })).toThrow(ShapeError);
  });
});

describe("inputs and outputs", () => {
  const echo = (change: Partial<ForeignModel>): Uint8Array =>
    foreignModel({
      nodes: [node("Add", ["a", "b"], ["y"])],
      inputs: [],
      outputs: [port("y", "f32", ["?"])],
      ...change,
    });

  it("dimensions without a usable name get one of their own", () => {
    const shape = { dim: [{ dimParam: "?" }, {}, { dimParam: "" }, { dimParam: "past + 2*new" }, { dimParam: "-1" }] };
    const inputs = ["a", "b"].map((name) => ({ name, type: { tensorType: { elemType: 1, shape } } }));
    const { inputs: ports } = fromOnnx(echo({ inputs }));
    expect(ports.map((p) => p.shape)).toEqual([
      ["a_dim0", "a_dim1", "a_dim2", "past+2*new", "a_dim4"],
      ["b_dim0", "b_dim1", "b_dim2", "past+2*new", "b_dim4"],
    ]);
  });

  it("a dimension of one name is one number", () => {
    const model = fromOnnx(echo({ inputs: [port("a", "f32", ["n"]), port("b", "f32", ["n"])] }));
    const [two, three] = [2, 3].map((n) => input("i", { dtype: "f32", shape: [n] }));
    expect(model.call({ a: two!, b: two! })["y"]!.shape).toEqual([2]);
    expect(() => model.call({ a: two!, b: three! })).toThrow('the input "b" takes [n], but [3] was given (with n = 2)');
  });

  it("names inside of sums are bound, too", () => {
    const model = fromOnnx(echo({ inputs: [port("a", "f32", ["past+new"]), port("b", "f32", [1])] }));
    expect(model.graph({ past: 3, new: 2 }).outputs[0]!.tensor.shape).toEqual([5]);
    expect(model.graph({ new: 2 }).outputs[0]!.tensor.shape).toEqual(["past+new"]);
  });

  it("an input of unknown rank takes any tensor in a call, but makes no graph", () => {
    const untyped = ["a", "b"].map((name) => ({ name, type: { tensorType: { elemType: 1 } } }));
    const model = fromOnnx(echo({ inputs: untyped }));
    const x = input("i", { dtype: "f32", shape: [2, 1] });
    expect(model.call({ a: x, b: 3 })["y"]!.shape).toEqual([2, 1]);
    expect(() => model.graph()).toThrow('the file does not say the shape of the input "a"; build the graph with call');
  });

  it("initializers listed as inputs are weights", () => {
    const model = fromOnnx(
      echo({ ir: 3, inputs: [port("a", "f32", [2]), port("b", "f32", [2])], weights: { b: HostTensor.from([1, 2]) } }),
    );
    expect(model.inputs.map((p) => p.name)).toEqual(["a"]);
    expect(Object.keys(model.weights)).toEqual(["b"]);
  });

  it("an output may be an input or an initializer", async () => {
    const bytes = foreignModel({
      nodes: [],
      inputs: [port("x", "f32", [2])],
      outputs: [port("x", "f32", [2]), port("w", "f32", [1])],
      weights: { w: HostTensor.from([7]) },
    });
    const results = await runBytes(toOnnx(fromOnnx(bytes).graph()), { x: HostTensor.from([1, 2]) });
    expect(Object.entries(results).map(([name, t]) => [name, t.toArray()])).toEqual([
      ["x_out", [1, 2]],
      ["w", [7]],
    ]);
  });

  it("names are plain data, whatever they spell", () => {
    const bytes = foreignModel({
      nodes: [node("Add", ["__proto__", "constructor"], ["toString"])],
      inputs: [port("__proto__", "f32", [1])],
      outputs: [port("toString", "f32", [1])],
      weights: { constructor: HostTensor.from([1]) },
    });
    const model = fromOnnx(bytes);
    expect(Object.keys(model.weights)).toEqual(["constructor"]);
    expect(() => model.call({})).toThrow('the input "__proto__" was not given');
    const given = Object.fromEntries([["__proto__", HostTensor.from([2])]]);
    expect(Object.keys(model.call(given))).toEqual(["toString"]);
  });

  it("a declared output type is held to", () => {
    const bytes = echo({ inputs: [port("a", "f32", [2]), port("b", "f32", [2])], outputs: [port("y", "f16", [2])] });
    expect(() => fromOnnx(bytes).graph()).toThrow(
      new OnnxError('the output "y" is declared as f16 but computed as f32'),
    );
  });
});

describe("nodes", () => {
  const chain = (nodes: NodeProto[]): Uint8Array =>
    foreignModel({ nodes, inputs: [port("x", "f32", [2])], outputs: [port("y", "f32", [2])] });

  it("may come in any order", () => {
    const nodes = [node("Neg", ["b"], ["y"]), node("Exp", ["a"], ["b"]), node("Relu", ["x"], ["a"])];
    const { outputs } = fromOnnx(chain(nodes)).graph();
    const operators: string[] = [];
    for (let t: Tensor | null | undefined = outputs[0]!.tensor; t; t = t.node.inputs[0]) operators.push(t.node.op);
    expect(operators).toEqual(["Neg", "Exp", "Relu", "pare.Input"]);
  });

  it("a long chain in reverse is no trouble", () => {
    const count = 20_000;
    const nodes = Array.from({ length: count }, (_, i) =>
      node("Neg", [i === 0 ? "x" : `t${i}`], [i === count - 1 ? "y" : `t${i + 1}`]),
    );
    expect(() => fromOnnx(chain(nodes.reverse())).graph()).not.toThrow();
  });

  it("a long chain of arithmetic on shapes is no trouble", () => {
    const count = 20_000;
    const steps = Array.from({ length: count }, (_, i) =>
      node("Add", [i === 0 ? "s" : `s${i}`, "zero"], [`s${i + 1}`]),
    );
    const bytes = foreignModel({
      nodes: [node("Shape", ["x"], ["s"]), ...steps, node("Reshape", ["x", `s${count}`], ["y"])],
      inputs: [port("x", "f32", [2])],
      outputs: [port("y", "f32", [2])],
      weights: { zero: HostTensor.from([0n]) },
    });
    expect(fromOnnx(bytes).graph().outputs[0]!.tensor.shape).toEqual([2]);
  });

  it("not even by way of floats", () => {
    const count = 20_000;
    const steps = Array.from({ length: count }, (_, i) => node("Mul", [`s${i}`, "one"], [`s${i + 1}`]));
    const bytes = foreignModel({
      nodes: [
        node("Shape", ["x"], ["s"]),
        node("Cast", ["s"], ["s0"], { to: 1 }),
        ...steps,
        node("Cast", [`s${count}`], ["n"], { to: 7 }),
        node("Reshape", ["x", "n"], ["y"]),
      ],
      inputs: [port("x", "f32", [2])],
      outputs: [port("y", "f32", [2])],
      weights: { one: HostTensor.from([1]) },
    });
    expect(fromOnnx(bytes).graph().outputs[0]!.tensor.shape).toEqual([2]);
  });

  it("what no output needs is not read", () => {
    const bytes = chain([node("Relu", ["x"], ["y"]), node("NotAnOperator", ["x"], ["z"])]);
    expect(() => fromOnnx(bytes).graph()).not.toThrow();
  });

  const broken: [string, NodeProto[], string][] = [
    [
      "a cycle",
      [node("Add", ["x", "b"], ["a"]), { ...node("Exp", ["a"], ["b"]), name: "e" }, node("Neg", ["b"], ["y"])],
      "the graph has a cycle through ",
    ],
    [
      "a node that reads itself",
      [node("Add", ["x", "y"], ["y"])],
      'the graph has a cycle through the Add node that produces "y"',
    ],
    [
      "a missing producer",
      [node("Add", ["x", "z"], ["y"])],
      'the Add node that produces "y" reads "z", which nothing produces',
    ],
    [
      "two producers",
      [node("Exp", ["x"], ["y"]), node("Neg", ["x"], ["y"])],
      '"y" is produced twice: by the Exp node that produces "y" and by the Neg node that produces "y"',
    ],
    ["a node that overwrites an input", [node("Exp", ["x"], ["x"])], 'produces "x", which is an input or initializer'],
    ["an output without a producer", [node("Exp", ["x"], ["z"])], 'nothing produces the output "y"'],
    [
      "an unknown operator",
      [{ ...node("Reluu", ["x"], ["y"]), name: "act" }],
      'the model uses operators that pare does not know: Reluu, first used by node "act" (Reluu) (did you mean "Relu"?)',
    ],
    [
      "several",
      [node("Foo", ["x"], ["a"]), node("If", ["a"], ["y"])],
      'Foo, first used by the Foo node that produces "a"; If, first used by the If node that produces "y" (control flow is not supported; export the model with fixed sizes, or simplify it first)',
    ],
    ["sequences", [node("SequenceConstruct", ["x"], ["y"])], "(sequences and optionals are not supported)"],
    ["random numbers", [node("RandomNormalLike", ["x"], ["y"])], "(random numbers come in as inputs)"],
    [
      "the library's own operations",
      [{ ...node("Input", ["x"], ["y"]), domain: "pare" }],
      'is of the domain "pare", whose operator set the model does not declare',
    ],
    [
      "a text constant",
      [node("Constant", [], ["c"], { value_string: "a" }), node("Add", ["x", "c"], ["y"])],
      'the attribute "value_string" of the Constant node that produces "c" is unknown to the operator',
    ],
  ];
  it.each(broken)("%s is refused", (_name, nodes, reason) => {
    expect(() => fromOnnx(chain(nodes))).toThrow(OnnxError);
    expect(() => fromOnnx(chain(nodes))).toThrow(reason);
  });

  it("the library's own operations stay out even where their domain is declared", () => {
    const proto = foreignProto({
      nodes: [{ ...node("Input", ["x"], ["y"]), domain: "pare" }],
      inputs: [port("x", "f32", [2])],
      outputs: [port("y", "f32", [2])],
    });
    proto.opsetImport!.push({ domain: "pare", version: 1 });
    expect(() => fromOnnx(encodeModel(proto))).toThrow("operators that pare does not know: pare.Input");
  });

  const growing: [string, NodeProto[], RegExp][] = [
    [
      "sizes",
      Array.from({ length: 40 }, (_, i) => node("Concat", [`t${i}`, `t${i}`], [`t${i + 1}`], { axis: 0 })),
      /more than the 4294967296 elements/,
    ],
    ["a claimed size", [node("ConstantOfShape", ["huge"], ["t40"])], /has shape \[1099511627776\], more than/],
    [
      "dimensions",
      Array.from({ length: 100 }, (_, i) => node("Unsqueeze", [`t${i}`, "zero"], [`t${i + 1}`])),
      /has 65 dimensions/,
    ],
  ];
  it.each(growing)("%s that grow without end are refused", (_name, nodes, reason) => {
    const last = nodes.at(-1)!.output![0]!;
    const bytes = foreignModel({
      nodes: [node("Identity", ["x"], ["t0"]), ...nodes],
      inputs: [port("x", "f32", [2])],
      outputs: [{ name: last, type: { tensorType: { elemType: 1 } } }],
      weights: { zero: HostTensor.from([0n]), huge: HostTensor.from([2n ** 40n]) },
    });
    expect(() => fromOnnx(bytes).graph()).toThrow(reason);
  });

  it("names of dimensions that grow without end are refused", () => {
    const products = Array.from({ length: 40 }, (_, i) =>
      node("Einsum", [`t${i}`, `t${i}`], [`p${i}`], { equation: "a,b->ab" }),
    );
    const flat = Array.from({ length: 40 }, (_, i) => node("Reshape", [`p${i}`, "all"], [`t${i + 1}`]));
    const bytes = foreignModel({
      nodes: [node("Identity", ["x"], ["t0"]), ...products.flatMap((p, i) => [p, flat[i]!])],
      inputs: [port("x", "f32", ["n"])],
      outputs: [port("t40", "f32", ["m"])],
      weights: { all: HostTensor.from([-1n]) },
    });
    expect(() => fromOnnx(bytes).graph()).toThrow(/has a dimension without a readable name/);
  });

  it("constants that double each other stay small", () => {
    const doubling = Array.from({ length: 60 }, (_, i) =>
      node("Concat", [`c${i}`, `c${i}`], [`c${i + 1}`], { axis: 0 }),
    );
    const bytes = foreignModel({
      nodes: [...doubling, node("Reshape", ["x", "c60"], ["y"])],
      inputs: [port("x", "f32", [1])],
      outputs: [port("y", "f32", [1])],
      weights: { c0: HostTensor.from([1n]) },
    });
    expect(() => fromOnnx(bytes).graph()).toThrow(OnnxError);
  });
});

describe("tensors", () => {
  const read = (proto: TensorProto): HostTensor => readTensor(proto, { what: "t", limit: 100 });
  const lists: [string, TensorProto, number[]][] = [
    ["f32", { dataType: 1, floatData: [0.5, -2] }, [0.5, -2]],
    ["f64", { dataType: 11, doubleData: [1e300, -2] }, [1e300, -2]],
    ["i64", { dataType: 7, int64Data: [-5n, 2n ** 40n] }, [-5, 2 ** 40]],
    ["u64", { dataType: 13, uint64Data: [5n, 2n ** 40n] }, [5, 2 ** 40]],
    ["u32", { dataType: 12, uint64Data: [5n, 2n ** 32n - 1n] }, [5, 2 ** 32 - 1]],
    ["i32", { dataType: 6, int32Data: [-5, 7] }, [-5, 7]],
    ["i16", { dataType: 5, int32Data: [-5, 7] }, [-5, 7]],
    ["i8", { dataType: 3, int32Data: [-128, 127] }, [-128, 127]],
    ["u16", { dataType: 4, int32Data: [0, 65535] }, [0, 65535]],
    ["u8", { dataType: 2, int32Data: [0, 255] }, [0, 255]],
    ["bool", { dataType: 9, int32Data: [0, 1] }, [0, 1]],
    ["f16", { dataType: 10, int32Data: [0x3c00, 0xc000] }, [1, -2]],
    ["bf16", { dataType: 16, int32Data: [0x3f80, 0xc000] }, [1, -2]],
    ["i4", { dataType: 22, int32Data: [0xe5] }, [5, -2]],
    ["u4", { dataType: 21, int32Data: [0xe5] }, [5, 14]],
  ];
  it.each(lists)("%s come as lists", (dtype, proto, values) => {
    const t = read({ dims: [2], ...proto });
    expect([t.dtype, ...t.toArray()]).toEqual([dtype, ...values]);
    const raw = read({ dims: [2], dataType: proto.dataType!, rawData: t.rawBytes() });
    expect(raw.toArray()).toEqual(values);
  });

  it("raw bytes that lie crooked in a file are copied, a Buffer's too", () => {
    const file = Buffer.alloc(64);
    file.writeFloatLE(1.5, 13);
    file.writeFloatLE(-2.5, 17);
    const t = read({ dims: [2], dataType: 1, rawData: file.subarray(13, 21) });
    expect(t.toArray()).toEqual([1.5, -2.5]);
  });

  it.each<[string, TensorProto, string]>([
    [
      "entries beyond the type",
      { dims: [1], dataType: 3, int32Data: [200] },
      "t: entry 0 is 200, which does not fit i8",
    ],
    [
      "negative unsigned entries",
      { dims: [1], dataType: 2, int32Data: [-1] },
      "t: entry 0 is -1, which does not fit u8",
    ],
    [
      "large u32",
      { dims: [1], dataType: 12, uint64Data: [2n ** 32n] },
      "t: entry 0 is 4294967296, which does not fit u32",
    ],
    [
      "truth values beyond 1",
      { dims: [1], dataType: 9, int32Data: [2] },
      "t is bool but holds other values than 0 and 1",
    ],
    [
      "raw truth values beyond 1",
      { dims: [1], dataType: 9, rawData: Uint8Array.of(2) },
      "t is bool but holds other values than 0 and 1",
    ],
    [
      "too few entries",
      { dims: [3], dataType: 1, floatData: [1, 2] },
      "t takes 3 entries (3 elements of f32), but 2 are there",
    ],
    [
      "an odd half byte too many",
      { dims: [2], dataType: 22, int32Data: [1, 2] },
      "t takes 1 entries (2 elements of i4), but 2 are there",
    ],
  ])("%s are refused", (_name, proto, reason) => {
    expect(() => read(proto)).toThrow(new OnnxError(reason));
  });

  it("without elements or dimensions are what they are", () => {
    expect(read({ dims: [0, 3], dataType: 1 }).shape).toEqual([0, 3]);
    expect(read({ dataType: 1, floatData: [4] }).item()).toBe(4);
  });
});

describe("readOnnxFile", () => {
  const folder = mkdtempSync(join(tmpdir(), "pare-onnx-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const values = HostTensor.from([1, 2, 3]);

  /** A model whose weight lies at `location`, four bytes in. */
  const file = (name: string, location: string, change: Record<string, string> = {}): string => {
    const proto = foreignProto({
      nodes: [node("Add", ["x", "w"], ["y"])],
      inputs: [port("x", "f32", [3])],
      outputs: [port("y", "f32", [3])],
      weights: { w: values },
    });
    const w = proto.graph!.initializer![0]!;
    delete w.rawData;
    w.dataLocation = 1;
    w.externalData = Object.entries({ location, offset: "4", length: "12", ...change }).map(([key, value]) => ({
      key,
      value,
    }));
    const path = join(folder, name);
    writeFileSync(path, encodeModel(proto));
    return path;
  };
  const bytes = new Uint8Array(16);
  bytes.set(values.rawBytes(), 4);
  writeFileSync(join(folder, "w.bin"), bytes);

  it("reads weights beside the model and in folders below", () => {
    mkdirSync(join(folder, "data"));
    writeFileSync(join(folder, "data", "w.bin"), bytes);
    for (const location of ["w.bin", "data/w.bin"])
      expect(readOnnxFile(file("good.onnx", location)).weights["w"]!.toArray()).toEqual([1, 2, 3]);
  });

  it("says that a model without a folder needs its data", () => {
    const bare = encodeModel(foreignProto({ nodes: [], inputs: [], outputs: [] }));
    expect(() => fromOnnx(bare)).not.toThrow();
    const path = file("bare.onnx", "w.bin");
    const read = (options = {}): unknown => fromOnnx(new Uint8Array(readFileSync(path)), options);
    expect(() => read()).toThrow(
      'the initializer "w" keeps its data in the file "w.bin"; read the model with readOnnxFile, or pass externalData',
    );
    expect(() => read({ externalData: () => new Uint8Array(3) })).toThrow(
      'takes 12 bytes of "w.bin", but externalData gave 3',
    );
    const asked: unknown[] = [];
    read({
      externalData: (range: unknown) => {
        asked.push(range);
        return values.rawBytes();
      },
    });
    expect(asked).toEqual([{ location: "w.bin", offset: 4, length: 12 }]);
  });

  it("refuses links, files that end early, and what is no file", () => {
    symlinkSync(join(folder, "w.bin"), join(folder, "soft.bin"));
    writeFileSync(join(folder, "twin.bin"), bytes);
    linkSync(join(folder, "twin.bin"), join(folder, "hard.bin"));
    mkdirSync(join(folder, "real"));
    writeFileSync(join(folder, "real", "w.bin"), bytes);
    symlinkSync(join(folder, "real"), join(folder, "alias"));
    const refused: [string, Record<string, string>, string][] = [
      ["soft.bin", {}, 'the model\'s data file "soft.bin" is reached through a link'],
      ["alias/w.bin", {}, 'the model\'s data file "alias/w.bin" is reached through a link'],
      ["hard.bin", {}, 'the model\'s data file "hard.bin" has 2 names; copy it'],
      ["absent.bin", {}, 'the model\'s data file "absent.bin" cannot be found'],
      ["real", {}, "is not a regular file"],
      ["w.bin", { offset: "5" }, '"w.bin" has 16 bytes, but a tensor is said to lie at 5 to 17'],
      ["w.bin", { offset: `${2 ** 49}` }, '"w.bin" has 16 bytes'],
      ["../w.bin", {}, "leads out of the model's folder"],
    ];
    for (const [location, change, reason] of refused)
      expect(() => readOnnxFile(file("bad.onnx", location, change)), location).toThrow(reason);
    expect(() => readOnnxFile(join(folder, "no.onnx"))).toThrow(OnnxError);
    expect(() => readOnnxFile(folder)).toThrow("is not a regular file");
  });

  it("does not allocate what a model claims of a small file", () => {
    const proto = foreignProto({
      nodes: [node("Identity", ["w"], ["y"])],
      inputs: [],
      outputs: [port("y", "f32", ["n"])],
      weights: { w: values },
    });
    Object.assign(proto.graph!.initializer![0]!, {
      rawData: undefined,
      dims: [2 ** 31],
      dataLocation: 1,
      externalData: [{ key: "location", value: "w.bin" }],
    });
    const path = join(folder, "greedy.onnx");
    writeFileSync(path, encodeModel(proto));
    expect(() => readOnnxFile(path)).toThrow(`"w.bin" has 16 bytes, but a tensor is said to lie at 0 to ${2 ** 33}`);
  });
});
