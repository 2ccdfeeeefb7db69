import { describe, expect, it } from "vitest";
import { checkModel, fromOnnx, toOnnx } from "../../src/onnx/index.ts";
import { HostTensor } from "../../src/tensor/index.ts";
import { type ForeignAttr, foreignModel, node, noiseTensor, port, runBytes } from "../support/foreign-model.ts";
import { compare } from "../support/onnx-node-tests.ts";

interface Case {
  readonly op: string;
  readonly opset: number;
  readonly attrs?: Readonly<Record<string, ForeignAttr>>;
  /** Shapes of the `f32` inputs that are fed, or the tensors themselves. */
  readonly feeds: readonly (readonly number[] | HostTensor)[];
  /** Inputs behind those, kept in the file. */
  readonly constants?: readonly (HostTensor | null)[];
  readonly outputs?: readonly HostTensor["dtype"][];
  readonly note?: string;
}

const i64 = (...values: number[]): HostTensor => HostTensor.from(values, { dtype: "i64" });
const i32 = (...values: number[]): HostTensor => HostTensor.from(values, { dtype: "i32" });
const f32 = (...values: number[]): HostTensor => HostTensor.from(values);
const float = (value: number): { float: number } => ({ float: value });
const largest = new HostTensor("i64", [1], new BigInt64Array([2n ** 63n - 1n]));

/** A file of one node, and numbers to feed it. */
function build({ op, opset, attrs = {}, feeds, constants = [], outputs = ["f32"] }: Case): {
  bytes: Uint8Array;
  values: Record<string, HostTensor>;
} {
  const given = feeds.map((f, i) => (f instanceof HostTensor ? f : noiseTensor(f as readonly number[], i + 1)));
  const weights = Object.fromEntries(constants.flatMap((c, i) => (c ? [[`c${i}`, c]] : [])));
  const names = [...given.map((_, i) => `x${i}`), ...constants.map((c, i) => (c ? `c${i}` : ""))];
  const bytes = foreignModel({
    opset,
    nodes: [
      node(
        op,
        names,
        outputs.map((_, i) => `y${i}`),
        attrs,
      ),
    ],
    inputs: given.map((t, i) => port(`x${i}`, t.dtype, t.shape)),
    // Outputs without a shape leave it to both readers.
    outputs: outputs.map((dtype, i) => ({
      name: `y${i}`,
      type: { tensorType: { elemType: port("", dtype, []).type!.tensorType!.elemType! } },
    })),
    weights,
  });
  return { bytes, values: Object.fromEntries(given.map((t, i) => [`x${i}`, t])) };
}

/** onnxruntime runs files of every set from 7 on itself: its results on the original are the oracle. */
const cases: readonly Case[] = [
  { op: "Squeeze", opset: 11, attrs: { axes: [0, 2] }, feeds: [[1, 3, 1, 2]] },
  { op: "Squeeze", opset: 11, feeds: [[1, 3, 1]], note: "all axes" },
  { op: "Unsqueeze", opset: 11, attrs: { axes: [0, 3] }, feeds: [[3, 2]] },
  { op: "ReduceSum", opset: 11, attrs: { axes: [1], keepdims: 0 }, feeds: [[2, 3, 4]] },
  { op: "ReduceSum", opset: 11, feeds: [[2, 3]], note: "over everything" },
  { op: "ReduceSum", opset: 13, attrs: { noop_with_empty_axes: 1 }, feeds: [[2, 3]] },
  ...["L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"].map((kind) => ({
    op: `Reduce${kind}`,
    opset: 17,
    attrs: { axes: [-1], keepdims: 1 },
    feeds: [[2, 3, 4]],
  })),
  { op: "ReduceMax", opset: 18, attrs: { keepdims: 0 }, feeds: [[2, 3]], constants: [i64(0)] },
  { op: "Split", opset: 11, attrs: { split: [1, 3], axis: 1 }, feeds: [[2, 4]], outputs: ["f32", "f32"] },
  { op: "Split", opset: 11, attrs: { axis: -1 }, feeds: [[2, 4]], outputs: ["f32", "f32"], note: "evenly" },
  { op: "Split", opset: 13, feeds: [[4, 2]], outputs: ["f32", "f32"], note: "evenly" },
  { op: "Split", opset: 18, attrs: { num_outputs: 2 }, feeds: [[5, 2]], outputs: ["f32", "f32"], note: "unevenly" },
  { op: "Slice", opset: 9, attrs: { starts: [1, -3], ends: [2 ** 62, -1], axes: [0, 1] }, feeds: [[3, 4]] },
  { op: "Slice", opset: 9, attrs: { starts: [1], ends: [3] }, feeds: [[4, 2]] },
  { op: "Slice", opset: 13, feeds: [[3, 4]], constants: [i64(1), largest, i64(1)], note: "to the end" },
  { op: "TopK", opset: 9, attrs: { k: 2, axis: 1 }, feeds: [[2, 5]], outputs: ["f32", "i64"] },
  { op: "TopK", opset: 10, attrs: { axis: 0 }, feeds: [[5, 2]], constants: [i64(3)], outputs: ["f32", "i64"] },
  { op: "Clip", opset: 10, attrs: { min: float(-0.25), max: float(0.5) }, feeds: [[3, 4]] },
  { op: "Clip", opset: 10, attrs: { max: float(0) }, feeds: [[3, 4]] },
  { op: "Pad", opset: 10, attrs: { pads: [0, 1, 2, 0], value: float(0.5) }, feeds: [[2, 3]] },
  { op: "Pad", opset: 10, attrs: { pads: [0, 1, 0, 2], mode: "reflect" }, feeds: [[2, 3]] },
  ...["Softmax", "LogSoftmax", "Hardmax"].flatMap((op) => [
    { op, opset: 11, feeds: [[2, 3, 4]], note: "as a matrix" },
    { op, opset: 11, attrs: { axis: 2 }, feeds: [[2, 3, 4]] },
    { op, opset: 12, attrs: { axis: 0 }, feeds: [[2, 3]] },
    { op, opset: 12, attrs: { axis: -2 }, feeds: [[2, 3, 4]] },
    { op, opset: 13, attrs: { axis: 1 }, feeds: [[2, 3, 4]] },
  ]),
  {
    op: "BatchNormalization",
    opset: 8,
    attrs: { spatial: 1, epsilon: float(1e-3) },
    feeds: [[2, 3, 4]],
    constants: [f32(1, 2, 3), f32(0, 1, 2), f32(0.1, 0.2, 0.3), f32(1, 2, 0.5)],
  },
  {
    op: "BatchNormalization",
    opset: 15,
    attrs: { momentum: float(0.8), training_mode: 0 },
    feeds: [[2, 3, 4]],
    constants: [f32(1, 2, 3), f32(0, 1, 2), f32(0.1, 0.2, 0.3), f32(1, 2, 0.5)],
  },
  { op: "Dropout", opset: 7, attrs: { ratio: float(0.3) }, feeds: [[2, 3]] },
  { op: "Dropout", opset: 11, feeds: [[2, 3]] },
  {
    op: "Dropout",
    opset: 13,
    feeds: [[2, 3]],
    constants: [HostTensor.from(0.5), HostTensor.from(false)],
    outputs: ["f32", "bool"],
  },
  { op: "Upsample", opset: 8, attrs: { mode: "nearest", scales: { floats: [1, 1, 2, 3] } }, feeds: [[1, 2, 2, 3]] },
  { op: "Upsample", opset: 9, attrs: { mode: "linear" }, feeds: [[1, 1, 2, 3]], constants: [f32(1, 1, 2, 2)] },
  { op: "Resize", opset: 10, attrs: { mode: "nearest" }, feeds: [[1, 1, 3, 4]], constants: [f32(1, 1, 2, 2)] },
  {
    op: "Resize",
    opset: 10,
    attrs: { mode: "nearest" },
    feeds: [[1, 1, 4, 6]],
    constants: [f32(1, 1, 0.5, 0.4)],
    note: "smaller",
  },
  {
    op: "Resize",
    opset: 10,
    attrs: { mode: "linear" },
    feeds: [[1, 1, 2, 4]],
    constants: [f32(1, 1, 2, 0.5)].slice(0, 0).concat(f32(1, 1, 2, 1)),
  },
  {
    op: "Resize",
    opset: 11,
    attrs: { mode: "linear", coordinate_transformation_mode: "align_corners" },
    feeds: [[1, 1, 2, 2]],
    constants: [f32(), f32(1, 1, 2, 2)],
  },
  {
    op: "Resize",
    opset: 13,
    attrs: { mode: "nearest" },
    feeds: [[1, 1, 2, 2]],
    constants: [null, null, i64(1, 1, 3, 4)],
  },
  { op: "Cast", opset: 9, attrs: { to: 6 }, feeds: [[2, 3]], outputs: ["i32"] },
  { op: "CastLike", opset: 15, feeds: [[2, 3]], constants: [i64(1)], outputs: ["i64"] },
  { op: "Gemm", opset: 7, attrs: { transB: 1, alpha: float(0.5), beta: float(2) }, feeds: [[2, 3], [4, 3], [4]] },
  { op: "LRN", opset: 13, attrs: { size: 3 }, feeds: [[1, 5, 2, 2]] },
  { op: "PRelu", opset: 9, feeds: [[2, 3, 4]], constants: [HostTensor.from([[0.1], [0.2], [0.3]])] },
  {
    op: "Scatter",
    opset: 9,
    attrs: { axis: 1 },
    feeds: [[2, 3]],
    constants: [HostTensor.from([[1n, 0n]]), HostTensor.from([[5, 6]])],
  },
  {
    op: "GroupNormalization",
    opset: 18,
    attrs: { num_groups: 2 },
    feeds: [[2, 4, 3]],
    constants: [f32(1, 2), f32(0.5, -0.5)],
  },
  { op: "Sum", opset: 8, feeds: [[2, 3], [3], [2, 1]] },
  { op: "Mean", opset: 13, feeds: [[2, 3], [3], [2, 1]] },
  { op: "Max", opset: 8, feeds: [[2, 3], [3], [2, 1]] },
  { op: "Min", opset: 13, feeds: [[2, 3]], note: "of one" },
  {
    op: "Einsum",
    opset: 12,
    attrs: { equation: "...ij, ...jk -> ...ik" },
    feeds: [
      [2, 3, 4],
      [2, 4, 5],
    ],
  },
  {
    op: "ConvTranspose",
    opset: 11,
    attrs: { output_shape: [7, 8], strides: [2, 2], auto_pad: "SAME_LOWER" },
    feeds: [[1, 2, 3, 4]],
    constants: [noiseTensor([2, 1, 3, 3], 9)],
  },
  {
    op: "ConvTranspose",
    opset: 11,
    attrs: { kernel_shape: [3, 3], group: 2, pads: [1, 1, 1, 1] },
    feeds: [[1, 2, 3, 4]],
    constants: [noiseTensor([2, 1, 3, 3], 9)],
  },
  {
    op: "GridSample",
    opset: 16,
    attrs: { mode: "bilinear" },
    feeds: [
      [1, 2, 4, 4],
      [1, 3, 3, 2],
    ],
  },
  {
    op: "GridSample",
    opset: 20,
    attrs: { mode: "cubic", align_corners: 1 },
    feeds: [
      [1, 2, 4, 4],
      [1, 3, 3, 2],
    ],
  },
  {
    op: "RoiAlign",
    opset: 10,
    attrs: { output_height: 2, output_width: 3, sampling_ratio: 2 },
    feeds: [[1, 1, 6, 6]],
    constants: [HostTensor.from([[0, 0, 4, 5]]), i64(0)],
  },
  {
    op: "RoiAlign",
    opset: 16,
    attrs: { output_height: 2, output_width: 3, sampling_ratio: 2 },
    feeds: [[1, 1, 6, 6]],
    constants: [HostTensor.from([[0, 0, 4, 5]]), i64(0)],
  },
  { op: "Constant", opset: 13, attrs: { value: HostTensor.from([[1, 2]]) }, feeds: [] },
  { op: "Constant", opset: 13, attrs: { value_float: float(0.25) }, feeds: [] },
  { op: "Constant", opset: 13, attrs: { value_floats: { floats: [1, 2] } }, feeds: [] },
  { op: "Constant", opset: 13, attrs: { value_int: 7 }, feeds: [], outputs: ["i64"] },
  { op: "Constant", opset: 13, attrs: { value_ints: [7, -8] }, feeds: [], outputs: ["i64"] },
  ...["mean", "sum", "none"].flatMap((reduction) => [
    {
      op: "NegativeLogLikelihoodLoss",
      opset: 13,
      attrs: { reduction },
      feeds: [[2, 3, 2]],
      constants: [
        HostTensor.from(
          [
            [0, 2],
            [1, 1],
          ],
          { dtype: "i64" },
        ),
        f32(1, 2, 3),
      ],
    },
    {
      op: "SoftmaxCrossEntropyLoss",
      opset: 13,
      attrs: { reduction, ignore_index: -1 },
      feeds: [[3, 4]],
      constants: [i32(0, -1, 3)],
      outputs: ["f32", "f32"] as const,
    },
  ]),
];

describe("a file of an older operator set computes the same after import", () => {
  it.each(cases.map((c) => [`${c.op}-${c.opset} ${c.note ?? JSON.stringify(c.attrs ?? {}).slice(0, 60)}`, c] as const))(
    "%s",
    async (_name, c) => {
      const { bytes, values } = build(c);
      const expected = await runBytes(bytes, values);
      const written = toOnnx(fromOnnx(bytes).graph());
      checkModel(written);
      const got = await runBytes(written, values);
      for (const [name, want] of Object.entries(expected))
        expect(compare(got[name]!, want, 1e-5), name).toBeUndefined();
    },
  );
});

/** Sets that onnxruntime no longer runs: the meaning is spelled out with today's operators. */
describe("a file from before set 7", () => {
  const results = async (c: Case): Promise<HostTensor> => {
    const { bytes, values } = build(c);
    return (await runBytes(toOnnx(fromOnnx(bytes).graph()), values))["y0"]!;
  };

  it("aligns the second operand at an axis", async () => {
    const c: Case = {
      op: "Add",
      opset: 6,
      attrs: { broadcast: 1, axis: 1 },
      feeds: [[2, 3, 4]],
      constants: [f32(10, 20, 30)],
    };
    const x = noiseTensor([2, 3, 4], 1);
    const expected = x.toArray().map((v, i) => Math.fround(v + [10, 20, 30][Math.floor(i / 4) % 3]!));
    expect((await results(c)).toArray()).toEqual(expected);
    const last: Case = { ...c, op: "Mul", attrs: { broadcast: 1 }, constants: [f32(1, 2, 3, 4)] };
    expect((await results(last)).toArray()).toEqual(x.toArray().map((v, i) => Math.fround(v * ((i % 4) + 1))));
  });

  it("names element types, gives slopes as vectors, and carries advice about memory", async () => {
    const x = noiseTensor([2, 3, 4], 1);
    const cast = await results({ op: "Cast", opset: 5, attrs: { to: "DOUBLE" }, feeds: [[2, 3, 4]], outputs: ["f64"] });
    expect(cast.toArray()).toEqual(x.toArray());
    const sloped = await results({ op: "PRelu", opset: 6, feeds: [[2, 3, 4]], constants: [f32(2, 3, 4)] });
    expect(sloped.toArray()).toEqual(
      x.toArray().map((v, i) => (v < 0 ? Math.fround(v * ((Math.floor(i / 4) % 3) + 2)) : v)),
    );
    const relu = await results({ op: "Relu", opset: 1, attrs: { consumed_inputs: [0] }, feeds: [[2, 3, 4]] });
    expect(relu.toArray()).toEqual(x.toArray().map((v) => Math.max(0, v)));
    const shaped = await results({ op: "Reshape", opset: 4, attrs: { shape: [4, -1] }, feeds: [[2, 3, 4]] });
    expect(shaped.shape).toEqual([4, 6]);
  });
});

describe("what has no place in a function is refused", () => {
  const refusals: readonly (readonly [Case, RegExp])[] = [
    [
      { op: "Dropout", opset: 13, feeds: [[2]], constants: [HostTensor.from(0.5), HostTensor.from(true)] },
      /Dropout node that produces "y0": it is in training mode; export the model for inference/,
    ],
    [
      {
        op: "BatchNormalization",
        opset: 15,
        attrs: { training_mode: 1 },
        feeds: [[2, 1]],
        constants: [f32(1), f32(1), f32(1), f32(1)],
      },
      /training mode/,
    ],
    [
      {
        op: "BatchNormalization",
        opset: 8,
        attrs: { spatial: 0 },
        feeds: [[2, 1]],
        constants: [f32(1), f32(1), f32(1), f32(1)],
      },
      /spatial = 0/,
    ],
    [{ op: "Resize", opset: 10, feeds: [[2, 2]], constants: [f32(2, 0.5)] }, /enlarges some axes and shrinks others/],
    [
      {
        op: "Resize",
        opset: 11,
        attrs: { coordinate_transformation_mode: "tf_half_pixel_for_nn" },
        feeds: [[2, 2]],
        constants: [f32(), f32(1, 2)],
      },
      /left the format with set 13/,
    ],
    [{ op: "Upsample", opset: 9, feeds: [[2, 2]], constants: [null] }, /it has no scales/],
    [
      { op: "Split", opset: 18, attrs: { num_outputs: 2 ** 40 }, feeds: [[2, 2]] },
      /splits into 1099511627776 parts but has 1 outputs/,
    ],
    [{ op: "Add", opset: 13, feeds: [[2]], constants: [null] }, /leaves out its input 1, which the operator needs/],
    [{ op: "Constant", opset: 13, attrs: { value_int: 1, value_float: float(1) }, feeds: [] }, /it has 2 values/],
    [
      { op: "Softmax", opset: 11, attrs: { axis: 5 }, feeds: [[2, 3]] },
      /axis 5 is outside of a tensor with 2 dimensions/,
    ],
    [
      { op: "Einsum", opset: 12, attrs: { equation: "...i,...i->..." }, feeds: [[2, 3], [3]] },
      /different numbers of axes/,
    ],
    [{ op: "Relu", opset: 13, feeds: [[2]], outputs: ["f32", "f32"] }, /it has 1 outputs, not 2/],
    [
      { op: "Add", opset: 13, feeds: [[2], [3]] },
      /the Add node that produces "y0": Add\(f32 \[2\], f32 \[3\]\): .*do not broadcast/,
    ],
  ];
  it.each(refusals.map(([c, reason]) => [`${c.op}-${c.opset}`, c, reason] as const))("%s", (_name, c, reason) => {
    expect(() => fromOnnx(build(c).bytes).graph()).toThrow(reason);
  });
});

describe("forms that onnxruntime's kernel does not have", () => {
  it("LRN of even size and of other ranks is composed", async () => {
    const { bytes, values } = build({
      op: "LRN",
      opset: 13,
      attrs: { size: 2, alpha: float(1), bias: float(2) },
      feeds: [[1, 4, 2]],
    });
    const got = (await runBytes(toOnnx(fromOnnx(bytes).graph()), values))["y0"]!;
    const x = values["x0"]!;
    // The window of two reaches one channel on.
    const squares = (c: number, i: number): number => (c < 4 ? x.at(c * 2 + i) ** 2 : 0);
    const expected = x.toArray().map((v, k) => {
      const [c, i] = [Math.floor(k / 2), k % 2];
      return v / (2 + (squares(c, i) + squares(c + 1, i)) / 2) ** 0.75;
    });
    expect(compare(got, HostTensor.from(Float32Array.from(expected), { shape: [1, 4, 2] }), 1e-5)).toBeUndefined();
  });
});
