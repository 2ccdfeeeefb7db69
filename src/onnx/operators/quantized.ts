import {
  cast,
  DTypeError,
  dtypeFromOnnx,
  expand,
  isInteger,
  mul,
  normalizeAxis,
  type OpDef,
  op,
  reshape,
  staticDim,
  sub,
  type Tensor,
  unsqueeze,
} from "../../tensor/index.ts";

/** A scale or zero point `[]`, `[channels]` or `[..., blocks, ...]` in a shape that broadcasts to `x`. */
function spreadLike(t: Tensor, x: Tensor, axis: number, block: number): Tensor {
  if (t.rank === 0 || x.rank === 0) return t;
  const at = normalizeAxis(axis, x.rank);
  if (block === 0)
    return reshape(
      t,
      x.shape.map((_, i) => (i === at ? -1 : 1)),
    );
  const blocks = staticDim(t, at);
  const wide = expand(
    unsqueeze(t, at + 1),
    t.shape.flatMap((d, i) => (i === at ? [d, block] : [d])),
  );
  return reshape(
    wide,
    t.shape.map((d, i) => (i === at ? blocks * block : d)),
  );
}

const integersOnly = (t: Tensor): void => {
  if (!isInteger(t.dtype)) throw new DTypeError(`it takes integers, not ${t.dtype}`);
};

const convAttrs = {
  auto_pad: "string",
  dilations: "ints",
  group: "int",
  kernel_shape: "ints",
  pads: "ints",
  strides: "ints",
} as const;

/** Quantized storage and arithmetic as exporters write them: real value = (stored - zero point) * scale. */
export const quantizedOperators: readonly OpDef[] = [
  {
    name: "DequantizeLinear",
    attrs: { axis: "int", block_size: "int" },
    arity: [2, 3],
    infer: ({ input }) => {
      integersOnly(input(0));
      return [{ dtype: input(1).dtype, shape: input(0).shape }];
    },
    expand: ([x, scale, zero], attrs) => {
      const axis = (attrs.axis as number | undefined) ?? 1;
      const block = (attrs.block_size as number | undefined) ?? 0;
      const { dtype } = scale!;
      const stored = cast(x!, dtype);
      const centred = zero ? sub(stored, cast(spreadLike(zero, x!, axis, block), dtype)) : stored;
      return [mul(centred, spreadLike(scale!, x!, axis, block))];
    },
  },
  {
    name: "QuantizeLinear",
    attrs: { axis: "int", block_size: "int", output_dtype: "int", saturate: "int" },
    arity: [2, 3],
    flat: true,
    infer: ({ input, inputs, attrs }) => {
      const asked = attrs.output_dtype ? dtypeFromOnnx(attrs.output_dtype as number) : "u8";
      const dtype = inputs[2]?.dtype ?? asked;
      if (!dtype || !isInteger(dtype)) throw new DTypeError("it gives integers");
      return [{ dtype, shape: input(0).shape }];
    },
  },
  {
    name: "DynamicQuantizeLinear",
    arity: [1, 1],
    flat: true,
    infer: ({ input }) => [
      { dtype: "u8", shape: input(0).shape },
      { dtype: "f32", shape: [] },
      { dtype: "u8", shape: [] },
    ],
  },
  {
    name: "MatMulInteger",
    arity: [2, 4],
    flat: true,
    infer: ({ input }) => {
      integersOnly(input(0));
      return [{ dtype: "i32", shape: productShape(input(0), input(1)) }];
    },
  },
  {
    name: "ConvInteger",
    attrs: convAttrs,
    arity: [2, 4],
    flat: true,
    infer: ({ input, attrs }) => {
      integersOnly(input(0));
      return [{ dtype: "i32", shape: op("Conv", [cast(input(0), "f32"), cast(input(1), "f32")], attrs).shape }];
    },
  },
  {
    name: "QLinearMatMul",
    arity: [8, 8],
    flat: true,
    infer: ({ input }) => [{ dtype: input(7).dtype, shape: productShape(input(0), input(3)) }],
  },
  {
    name: "QLinearConv",
    attrs: convAttrs,
    arity: [8, 9],
    flat: true,
    infer: ({ input, attrs }) => {
      const { shape } = op("Conv", [cast(input(0), "f32"), cast(input(3), "f32")], attrs);
      return [{ dtype: input(7).dtype, shape }];
    },
  },
];

/** The shape of a matrix product, whatever the element types of its operands. */
const productShape = (a: Tensor, b: Tensor): Tensor["shape"] => op("MatMul", [cast(a, "f32"), cast(b, "f32")]).shape;
