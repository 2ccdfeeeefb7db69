import { cast, DTypeError, isInteger, type OpDef, op, type Tensor } from "../../tensor/index.ts";

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

/** Arithmetic on quantized numbers as exporters write it: real value = (stored - zero point) * scale. */
export const quantizedOperators: readonly OpDef[] = [
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
