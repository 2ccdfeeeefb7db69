import { describe, expect, it } from "vitest";
import { fromOnnx, toOnnx } from "../../src/onnx/index.ts";
import { applyOp, constant, findOp, HostTensor, input, op, type Tensor } from "../../src/tensor/index.ts";
import { foreignModel, node, noiseTensor, port, runBytes } from "../support/foreign-model.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { compare } from "../support/onnx-node-tests.ts";
import { run } from "../support/run.ts";

describe("gradients", () => {
  // onnxruntime has these kernels in single precision.
  const single = { dtype: "f32" as const };

  it.each<[string, number, number]>([
    ["Acosh", 1.5, 1],
    ["Asinh", -0.5, 1],
    ["Atanh", -0.6, 0.5],
  ])("of %s", async (name, shift, scale) => {
    const x = HostTensor.from(
      noiseTensor([5], 3)
        .toArray()
        .map((v) => shift + scale * Math.abs(v)),
    );
    await checkGradient((t) => op(name, [t]), [x], single);
  });

  it("of Shrink, within and beyond the threshold", async () => {
    await checkGradient(
      (t) => op("Shrink", [t], { lambd: 0.5, bias: 0.25 }),
      [HostTensor.from([-1, -0.2, 0.3, 0.9])],
      single,
    );
  });

  it.each([1, 3, 5])("of LRN over %i channels", async (size) => {
    await checkGradient((t) => op("LRN", [t], { size, alpha: 0.1 }), [noiseTensor([2, 6, 2, 1], 4)], single);
  });

  it("of MeanVarianceNormalization", async () => {
    await checkGradient((t) => op("MeanVarianceNormalization", [t]), [noiseTensor([2, 2, 3, 2], 5)], single);
  });

  it("of ReverseSequence", async () => {
    const lengths = constant(HostTensor.from([1, 3, 2], { dtype: "i64" }));
    const attrs = { batch_axis: 1, time_axis: 0 };
    await checkGradient((t) => op("ReverseSequence", [t, lengths], attrs), [noiseTensor([3, 3, 2], 6)], single);
  });

  it("of Compress", async () => {
    const kept = constant(HostTensor.from([false, true, true]));
    const padded = (t: Tensor, axis: number): Tensor =>
      op("ReduceSum", [op("Compress", [t, kept], { axis })], { keepdims: 0 });
    await checkGradient((t) => padded(t, 1), [noiseTensor([2, 3], 7)], single);
  });

  const sizes = { length: 3, batch: 2, inputs: 2, hidden: 2 };
  const layers: [string, number, Record<string, string | number>, number][] = [
    ["RNN", 1, {}, 6],
    ["RNN", 1, { direction: "reverse" }, 4],
    ["GRU", 3, {}, 6],
    ["GRU", 3, { linear_before_reset: 1, direction: "bidirectional" }, 4],
    ["LSTM", 4, {}, 7],
    ["LSTM", 4, { direction: "bidirectional" }, 4],
    ["LSTM", 4, { direction: "reverse" }, 8],
  ];
  it.each(layers)("of %s", async (name, gates, attrs, count) => {
    const { length, batch, inputs, hidden } = sizes;
    const directions = attrs.direction === "bidirectional" ? 2 : 1;
    const shapes = [
      [length, batch, inputs],
      [directions, gates * hidden, inputs],
      [directions, gates * hidden, hidden],
      [directions, 2 * gates * hidden],
      null,
      [directions, batch, hidden],
      [directions, batch, hidden],
      [directions, 3 * hidden],
    ].slice(0, count);
    const given = shapes.flatMap((s, i) => (s ? [noiseTensor(s, i + 1)] : []));
    const states = name === "LSTM" ? 3 : 2;
    const layer = (...tensors: Tensor[]): readonly Tensor[] => {
      const rest = [...tensors];
      const all = shapes.map((s) => (s ? rest.shift()! : null));
      return applyOp(name, all, { hidden_size: hidden, ...attrs }, states);
    };
    // The unrolled form, which is what is differentiated, computes what the kernel computes.
    const unrolled = (...tensors: Tensor[]): readonly Tensor[] => {
      const [first] = layer(...tensors);
      return findOp(name)!.expand!(first!.node.inputs, first!.node.attrs, states);
    };
    const [kernel, composed] = [await run(layer, ...given), await run(unrolled, ...given)];
    kernel.forEach((want, i) => {
      expect(compare(composed[i]!, want, 1e-5)).toBeUndefined();
    });
    await checkGradient(layer, given, single);
  });
});

describe("recurrent layers", () => {
  it("with the batch first compute what they compute with the length first", async () => {
    const x = noiseTensor([3, 2, 2], 1);
    const swapped = HostTensor.from(
      Float32Array.from(x.toArray(), (_, i) => x.at((Math.floor(i / 2) % 3) * 4 + Math.floor(i / 6) * 2 + (i % 2))),
      { shape: [2, 3, 2] },
    );
    const weights = { w: noiseTensor([1, 8, 2], 2), r: noiseTensor([1, 8, 2], 3), b: noiseTensor([1, 16], 4) };
    const h = { h: noiseTensor([1, 2, 2], 5), c: noiseTensor([1, 2, 2], 6) };
    const batchFirst = Object.fromEntries(Object.entries(h).map(([name, t]) => [name, t.reshape([2, 1, 2])]));
    const file = (layout: number, input: HostTensor, states: Record<string, HostTensor>): Uint8Array =>
      foreignModel({
        opset: 14,
        nodes: [node("LSTM", ["x", "w", "r", "b", "", "h", "c"], ["y", "last", "cell"], { layout, hidden_size: 2 })],
        inputs: [port("x", "f32", input.shape)],
        outputs: ["y", "last", "cell"].map((name) => ({ name, type: { tensorType: { elemType: 1 } } })),
        weights: { ...weights, ...states },
      });
    const first = await runBytes(toOnnx(fromOnnx(file(1, swapped, batchFirst)).graph()), { x: swapped });
    const second = await runBytes(file(0, x, h), { x });
    expect([first.y!.shape, first.last!.shape]).toEqual([
      [2, 3, 1, 2],
      [2, 1, 2],
    ]);
    expect(first.last!.toArray()).toEqual(second.last!.toArray());
    expect(first.cell!.toArray()).toEqual(second.cell!.toArray());
    for (let t = 0; t < 3; t++)
      for (let n = 0; n < 2; n++)
        for (let k = 0; k < 2; k++) expect(first.y!.at(n * 6 + t * 2 + k)).toBe(second.y!.at(t * 4 + n * 2 + k));
  });

  it("say what they cannot differentiate", () => {
    const [x, w, r] = [
      [3, 2, 2],
      [1, 2, 2],
      [1, 2, 2],
    ].map((shape, i) => input(`i${i}`, { dtype: "f32", shape }));
    const expandWith = (attrs: Record<string, string[] | number>, lengths: Tensor | null = null): unknown =>
      findOp("RNN")!.expand!([x!, w!, r!, null, lengths], attrs, 1);
    expect(() => expandWith({ clip: 1 })).toThrow("RNN with clipping has no gradient here");
    expect(() => expandWith({ activations: ["Relu"] })).toThrow("RNN with the activations Relu has no gradient here");
    expect(() => expandWith({}, input("l", { dtype: "i32", shape: [2] }))).toThrow(
      "RNN with sequence lengths has no gradient",
    );
    expect(() => applyOp("RNN", [x!, w!, input("r", { dtype: "f32", shape: [1, 3, 3] })])).toThrow(
      /weights \[1, 2, 2\] and \[1, 3, 3\] do not fit/,
    );
  });
});

describe("quantized arithmetic", () => {
  const u8 = (values: number[][] | number[] | number): HostTensor => HostTensor.from(values, { dtype: "u8" });

  it("is what the file says, in whole numbers", async () => {
    const [a, b] = [
      u8([
        [10, 20],
        [30, 40],
      ]),
      u8([
        [1, 2],
        [3, 4],
      ]),
    ];
    const [product] = await run((x, y) => op("MatMulInteger", [x, y, constant(u8(10))]), a, b);
    expect(product!.dtype).toBe("i32");
    expect(product!.toArray()).toEqual([30, 40, 110, 160]);
    const one = constant(HostTensor.from(1));
    const zero = constant(u8(0));
    const [scaled] = await run(
      (x, y) => op("QLinearMatMul", [x, one, zero, y, one, zero, constant(HostTensor.from(2)), zero]),
      a,
      b,
    );
    expect(scaled!.toArray()).toEqual([35, 50, 75, 110]);
    const image = u8([1, 2, 3, 4]).reshape([1, 1, 2, 2]);
    const kernel = u8([1, 1, 1, 1]).reshape([1, 1, 2, 2]);
    const [sums] = await run((x, w) => op("ConvInteger", [x, w], { pads: [1, 1, 0, 0] }), image, kernel);
    expect(sums!.toArray()).toEqual([1, 3, 4, 10]);
    const [halves] = await run(
      (x, w) => op("QLinearConv", [x, one, zero, w, one, zero, constant(HostTensor.from(2)), zero]),
      image,
      kernel,
    );
    expect(halves!.toArray()).toEqual([5]);
  });

  it("goes from real numbers and back", async () => {
    const x = HostTensor.from([-1, 0, 0.5, 1]);
    const back = (t: Tensor): Tensor => {
      const [y, scale, zero] = applyOp("DynamicQuantizeLinear", [t], {}, 3) as [Tensor, Tensor, Tensor];
      return op("DequantizeLinear", [y, scale, zero]);
    };
    const [near] = await run(back, x);
    expect(compare(near!, x, 2 / 255)).toBeUndefined();
    const scale = constant(HostTensor.from(0.25));
    const [steps] = await run(
      (t) => op("QuantizeLinear", [t, scale, constant(HostTensor.from(0, { dtype: "i8" }))]),
      x,
    );
    expect([steps!.dtype, ...steps!.toArray()]).toEqual(["i8", -4, 0, 2, 4]);
    expect(op("QuantizeLinear", [input("x", { dtype: "f32", shape: [2] }), scale]).dtype).toBe("u8");
  });

  it("takes integers only", () => {
    const x = input("x", { dtype: "f32", shape: [2, 2] });
    expect(() => op("MatMulInteger", [x, x])).toThrow("it takes integers, not f32");
  });
});

describe("operations whose result is as long as the data say", () => {
  it("name its length", async () => {
    const x = HostTensor.from([
      [1, 0],
      [0, 2],
    ]);
    const [where] = await run((t) => op("NonZero", [t]), x);
    expect([where!.shape, where!.toArray()]).toEqual([
      [2, 2],
      [0, 1, 0, 1],
    ]);
    const [kept] = await run((t) => op("Compress", [t, constant(HostTensor.from([true, false, true, true]))]), x);
    expect(kept!.toArray()).toEqual([1, 0, 2]);
    const unique = await run((t) => applyOp("Unique", [t], {}, 4), HostTensor.from([3, 1, 3]));
    expect(unique.map((t) => t.toArray())).toEqual([
      [1, 3],
      [1, 0],
      [1, 0, 1],
      [1, 2],
    ]);
    const rows = op("NonZero", [input("x", { dtype: "f32", shape: [2, 2] })]);
    const other = op("NonZero", [input("x", { dtype: "f32", shape: [2, 2] })]);
    expect(rows.shape[0]).toBe(2);
    expect(rows.shape[1]).not.toBe(other.shape[1]);
  });

  it("select boxes", async () => {
    const boxes = HostTensor.from([
      [
        [0, 0, 1, 1],
        [0, 0, 1, 1.05],
        [2, 2, 3, 3],
      ],
    ]);
    const scores = HostTensor.from([[[0.9, 0.8, 0.7]]]);
    const limits = [constant(HostTensor.from([9n])), constant(HostTensor.from([0.5]))];
    const [selected] = await run((b, s) => op("NonMaxSuppression", [b, s, ...limits]), boxes, scores);
    expect([selected!.shape, selected!.toArray()]).toEqual([
      [2, 3],
      [0, 0, 0, 0, 0, 2],
    ]);
    const flat = input("b", { dtype: "f32", shape: [3, 4] });
    expect(() => op("NonMaxSuppression", [flat, flat])).toThrow(/takes boxes \[batch, boxes, 4\] and scores/);
  });
});

describe("shape rules refuse", () => {
  const image = input("x", { dtype: "f32", shape: [2, 3, 4, 5] });
  const row = input("r", { dtype: "f32", shape: [3] });
  it.each<[string, () => unknown, RegExp]>([
    ["LRN without a size", () => op("LRN", [image]), /its size must be at least 1/],
    ["LRN of a vector", () => op("LRN", [row], { size: 1 }), /takes \[batch, channels, ...\], not \[3\]/],
    ["EyeLike of an image", () => op("EyeLike", [image]), /it makes a matrix, not \[2, 3, 4, 5\]/],
    ["Det of a vector", () => op("Det", [row]), /takes square matrices, not \[3\]/],
    ["GridSample with other places", () => op("GridSample", [image, row]), /places \[3\] do not fit/],
    ["RoiAlign with other boxes", () => op("RoiAlign", [image, row, row]), /takes images and boxes/],
    ["Compress by numbers", () => op("Compress", [image, row]), /must be a bool vector, not f32 \[3\]/],
  ])("%s", (_name, build, reason) => {
    expect(build).toThrow(reason);
  });
});
