import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkModel, fromOnnx, OnnxError, toOnnx } from "../../src/onnx/index.ts";
import type { GraphProto, ModelProto } from "../../src/onnx/schema.ts";
import { decodeModel, encodeModel } from "../../src/onnx/wire.ts";
import { HostTensor, PareError } from "../../src/tensor/index.ts";
import { foreignModel, foreignProto, node, noiseTensor, port } from "../support/foreign-model.ts";

const bytes = (...values: (number | readonly number[])[]): Uint8Array => Uint8Array.from(values.flat());

/** A varint of `n`. */
function varint(n: bigint): number[] {
  const out: number[] = [];
  for (; n > 127n; n >>= 7n) out.push(Number(n & 127n) | 128);
  return [...out, Number(n)];
}

/** A model of every kind of field, with `depth` graphs nested in its node's attributes. */
function everyField(depth = 1): ModelProto {
  const inner: GraphProto[] = depth > 0 ? [everyField(depth - 1).graph!] : [];
  return {
    irVersion: 9,
    producerName: "täst",
    producerVersion: "1.2",
    metadataProps: [{ key: "k", value: "" }],
    opsetImport: [
      { domain: "", version: 21 },
      { domain: "com.microsoft", version: 1 },
    ],
    functions: [{}],
    graph: {
      name: "g",
      input: [
        { name: "x", type: { tensorType: { elemType: 1, shape: { dim: [{ dimValue: 2 }, { dimParam: "n" }, {}] } } } },
        { name: "s", type: { sequenceType: {} } },
        { name: "m", type: { mapType: {} } },
        { name: "p", type: { sparseTensorType: {} } },
        { name: "o", type: { optionalType: {} } },
      ],
      output: [{ name: "y" }],
      valueInfo: [{ name: "v", type: { tensorType: { elemType: 7 } } }],
      sparseInitializer: [{}],
      initializer: [
        { name: "raw", dims: [2, 3], dataType: 2, rawData: bytes(1, 2, 3, 4, 5, 6) },
        { name: "large", dims: [5000], dataType: 2, rawData: new Uint8Array(5000).fill(7) },
        { name: "floats", dims: [2], dataType: 1, floatData: [0.5, Number.NEGATIVE_INFINITY] },
        { name: "ints", dims: [2], dataType: 6, int32Data: [-1, 2 ** 31 - 1] },
        { name: "longs", dims: [2], dataType: 7, int64Data: [-(2n ** 63n), 2n ** 63n - 1n] },
        { name: "ulongs", dims: [1], dataType: 13, uint64Data: [2n ** 64n - 1n] },
        { name: "doubles", dims: [1], dataType: 11, doubleData: [1e300] },
        { name: "strings", dims: [2], dataType: 8, stringData: [bytes(255), bytes()] },
        { name: "far", dims: [1], dataType: 1, dataLocation: 1, externalData: [{ key: "location", value: "w.bin" }] },
        { name: "part", segment: {} },
      ],
      node: [
        {
          name: "n0",
          opType: "Op",
          domain: "com.microsoft",
          input: ["x", "", "raw"],
          output: ["y"],
          attribute: [
            { name: "f", type: 1, f: 0.25 },
            { name: "i", type: 2, i: -(2 ** 40) },
            { name: "s", type: 3, s: bytes(1, 2) },
            { name: "t", type: 4, t: { dims: [1], dataType: 1, floatData: [1] } },
            ...inner.map((g) => ({ name: "g", type: 5, g })),
            { name: "floats", type: 6, floats: [1, 2] },
            { name: "ints", type: 7, ints: [0, -1, 2 ** 53 - 1] },
            { name: "strings", type: 8, strings: [bytes(65), bytes()] },
            { name: "tensors", type: 9, tensors: [{}] },
            { name: "graphs", type: 10, graphs: [{}] },
            { name: "sparse", type: 11, sparseTensor: {} },
            { name: "sparses", type: 12, sparseTensors: [{}] },
            { name: "type", type: 13, typeProto: {} },
            { name: "types", type: 14, typeProtos: [{}] },
            { name: "ref", refAttrName: "outer" },
          ],
        },
      ],
    },
  };
}

const small = foreignModel({
  nodes: [node("Gemm", ["x", "w", "b"], ["h"], { transB: 1 }), node("Relu", ["h"], ["y"])],
  inputs: [port("x", "f32", ["n", 3])],
  outputs: [port("y", "f32", ["n", 4])],
  weights: { w: noiseTensor([4, 3], 1), b: noiseTensor([4], 2) },
});

describe("round trip", () => {
  it("gives back every field", () => {
    const model = everyField();
    expect(decodeModel(encodeModel(model))).toEqual(model);
  });

  it("leaves out empty lists of numbers, which are the same as absent ones", () => {
    const model: ModelProto = { graph: { initializer: [{ name: "scalar", dims: [], dataType: 1, floatData: [1] }] } };
    expect(decodeModel(encodeModel(model))).toEqual({
      graph: { initializer: [{ name: "scalar", dataType: 1, floatData: [1] }] },
    });
  });

  it("reads lists whether they are packed or not, or both", () => {
    const unpacked = bytes(0x3a, 8, 0x2a, 6, 0x08, 3, 0x0a, 2, 4, 5);
    expect(decodeModel(unpacked).graph!.initializer![0]!.dims).toEqual([3, 4, 5]);
  });

  it("skips fields that it does not know", () => {
    const unknown = [0x32, 3, 1, 2, 3, 0xe8, 7, 1, 0xe1, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0xe5, 7, 1, 2, 3, 4];
    expect(decodeModel(bytes(0x08, 9, unknown, 0x08 + 0x20, 1))).toEqual({ irVersion: 9 });
  });

  it("keeps large bytes as views of the file", () => {
    const file = encodeModel(everyField());
    expect(decodeModel(file).graph!.initializer![1]!.rawData!.buffer).toBe(file.buffer);
  });
});

describe("writing refuses", () => {
  it("more than 2 GB", () => {
    const half = { byteLength: 2 ** 30, length: 2 ** 30 } as Uint8Array;
    const initializer = [{ rawData: half }, { rawData: half }];
    expect(() => encodeModel({ graph: { initializer } })).toThrow(/ends at 2 GB; write its weights as external data/);
  });

  it("numbers beyond single precision", () => {
    const model = foreignProto({
      nodes: [node("Elu", ["x"], ["y"], { alpha: { float: 1e300 } })],
      inputs: [],
      outputs: [],
    });
    expect(() => encodeModel(model)).toThrow(new OnnxError("f: 1e+300 is too large for a 32-bit float"));
  });
});

describe("reading refuses", () => {
  const refuse = (file: Uint8Array, reason: RegExp): void => {
    expect(() => decodeModel(file)).toThrow(OnnxError);
    expect(() => decodeModel(file)).toThrow(reason);
  };

  it("lengths beyond the file without allocating them", () => {
    refuse(bytes(0x3a, varint(2n ** 40n)), /graph claims 1099511627776 bytes, but 0 are left/);
    refuse(bytes(0x12, varint(2n ** 63n)), /producerName claims/);
    refuse(bytes(0x3a, 4, 0x2a, varint(2n ** 35n).slice(0, 3)), /./);
    refuse(bytes(0x3a, 8, 0x2a, 6, 0x22, varint(2n ** 31n)), /floatData claims 2147483648 bytes/);
  });

  it("a field that reaches beyond the message around it", () => {
    refuse(bytes(0x3a, 2, 0x12, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9), /name claims 9 bytes, but 0 are left/);
    refuse(bytes(0x3a, 1, 0x12, 1, 65), /reaches beyond its message|claims/);
    refuse(bytes(0x3a, 4, 0x2a, 2, 0x22, 3, 0, 0, 0), /claims 3 bytes/);
    refuse(bytes(0x3a, 7, 0x2a, 5, 0x22, 3, 0, 0, 0, 0x08, 9), /floatData reaches beyond/);
  });

  it("varints of more than ten bytes, and tags of more than five", () => {
    refuse(bytes(0x08, new Array(11).fill(0x80), 0), /invalid varint/);
    refuse(bytes(0x88, 0x80, 0x80, 0x80, 0x80, 0x80, 0), /illegal tag/);
  });

  it("fields of the wrong wire type, groups, and a singular field given twice", () => {
    refuse(bytes(0x0d, 1, 0, 0, 0), /irVersion has wire type 5 instead of 0/);
    refuse(bytes(0x0b, 0x0c), /protobuf groups/);
    refuse(bytes(0x3a, 0, 0x3a, 0), /graph of Model occurs twice/);
  });

  it("text that is not UTF-8", () => refuse(bytes(0x12, 1, 0xff), /not a readable ONNX file/));

  it("messages nested without end", () => {
    // A graph in an attribute of a node in a graph, a thousand times over.
    let nested: number[] = [];
    for (let i = 0; i < 1000; i++)
      for (const tag of [0x32, 0x2a, 0x0a]) nested = [tag, ...varint(BigInt(nested.length)), ...nested];
    refuse(bytes(0x3a, varint(BigInt(nested.length)), nested), /messages are nested more than 64 deep/);
    expect(() => decodeModel(encodeModel(everyField(30)))).toThrow("messages are nested more than 64 deep");
    expect(decodeModel(encodeModel(everyField(18)))).toEqual(everyField(18));
  });
});

describe("damaged files", () => {
  it("every prefix of a model is refused", () => {
    expect(() => checkModel(small)).not.toThrow();
    for (let length = 0; length < small.length; length++) {
      expect(() => fromOnnx(small.subarray(0, length)), `${length} bytes`).toThrow(PareError);
    }
  });

  it("changed bytes are refused with a reason, or load", () => {
    const changes = fc.array(fc.tuple(fc.nat(small.length - 1), fc.integer({ min: 0, max: 255 })), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(changes, (list) => {
        const changed = new Uint8Array(small);
        for (const [at, value] of list) changed[at] = value;
        try {
          toOnnx(fromOnnx(changed).graph());
        } catch (error) {
          if (!(error instanceof PareError)) throw error;
        }
      }),
      { seed: 20, numRuns: 3000 },
    );
  });

  it("take no more memory than the file is long", () => {
    const { heapUsed, external } = process.memoryUsage();
    const dims = [2 ** 30, 2 ** 30];
    const model = foreignProto({
      nodes: [node("Identity", ["w"], ["y"])],
      inputs: [],
      outputs: [port("y", "f32", [1])],
      weights: { w: HostTensor.zeros("f32", [1]) },
    });
    model.graph!.initializer![0]!.dims = dims;
    for (let i = 0; i < 100; i++)
      expect(() => fromOnnx(encodeModel(model))).toThrow(/more than the 4294967296 elements/);
    const after = process.memoryUsage();
    expect(after.heapUsed + after.external - heapUsed - external).toBeLessThan(100e6);
  });
});
