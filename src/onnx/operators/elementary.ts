import {
  ArgumentError,
  type Attrs,
  add,
  type DType,
  div,
  dtypeFromOnnx,
  formatShape,
  greater,
  type InferContext,
  mean,
  mul,
  neg,
  type OpDef,
  op,
  pad,
  pow,
  ShapeError,
  slice,
  sqrt,
  square,
  sub,
  type Tensor,
  type TensorType,
  where,
} from "../../tensor/index.ts";

/** The rule of operations whose result is like their first input. */
export const likeInput = ({ input }: InferContext): readonly TensorType[] => [input(0)];

type Slope = (x: Tensor) => Tensor;

const inverse = (name: string, slope: Slope): OpDef => ({
  name,
  arity: [1, 1],
  infer: likeInput,
  vjp: ({ cotangents, input }) => [mul(cotangents[0]!, slope(input(0)))],
});

const numberOf = (attrs: Attrs, name: string, byDefault: number): number =>
  (attrs[name] as number | undefined) ?? byDefault;

/** Sums of `size` neighbours along the channel axis, more of them behind than in front where it is even. */
function channelSums(x: Tensor, size: number): Tensor {
  const before = Math.floor((size - 1) / 2);
  const widths = (n: number): number[] => x.shape.map((_, i) => (i === 1 ? n : 0));
  const padded = pad(x, widths(before), widths(size - 1 - before));
  const end = (i: number): number => -(size - 1 - i);
  return Array.from({ length: size }, (_, i) => slice(padded, 1, i, i === size - 1 ? undefined : end(i))).reduce(
    (a, b) => add(a, b),
  );
}

/** Operations on numbers that pare's own functions do without and imported models use. */
export const elementaryOperators: readonly OpDef[] = [
  inverse("Acosh", (x) => div(1, sqrt(sub(square(x), 1)))),
  inverse("Asinh", (x) => div(1, sqrt(add(square(x), 1)))),
  inverse("Atanh", (x) => div(1, sub(1, square(x)))),
  {
    name: "Shrink",
    attrs: { bias: "float", lambd: "float" },
    arity: [1, 1],
    infer: likeInput,
    expand: ([x], attrs) => {
      const [bias, threshold] = [numberOf(attrs, "bias", 0), numberOf(attrs, "lambd", 0.5)];
      return [where(greater(x!, threshold), sub(x!, bias), where(greater(neg(x!), threshold), add(x!, bias), 0))];
    },
  },
  { name: "Hardmax", attrs: { axis: "int" }, arity: [1, 1], flat: true, infer: likeInput },
  {
    // Krizhevsky et al. 2012, section 3.3.
    name: "LRN",
    attrs: { alpha: "float", beta: "float", bias: "float", size: "int" },
    arity: [1, 1],
    infer: ({ input, attrs }) => {
      const size = attrs.size as number | undefined;
      if (size === undefined || size < 1) throw new ArgumentError("its size must be at least 1");
      if (input(0).rank < 2)
        throw new ShapeError(`it takes [batch, channels, ...], not ${formatShape(input(0).shape)}`);
      return [input(0)];
    },
    expand: ([x], attrs) => {
      const size = attrs.size as number;
      const scale = mul(channelSums(square(x!), size), numberOf(attrs, "alpha", 1e-4) / size);
      return [div(x!, pow(add(scale, numberOf(attrs, "bias", 1)), numberOf(attrs, "beta", 0.75)))];
    },
  },
  {
    name: "MeanVarianceNormalization",
    attrs: { axes: "ints" },
    arity: [1, 1],
    infer: likeInput,
    expand: ([x], attrs) => {
      const over = { axes: (attrs.axes as readonly number[] | undefined) ?? [0, 2, 3], keepDims: true };
      const centred = sub(x!, mean(x!, over));
      return [div(centred, add(sqrt(mean(square(centred), over)), 1e-9))];
    },
  },
  {
    name: "EyeLike",
    attrs: { dtype: "int", k: "int" },
    arity: [1, 1],
    flat: true,
    infer: ({ input, attrs }) => {
      const dtype: DType | undefined =
        attrs.dtype === undefined ? input(0).dtype : dtypeFromOnnx(attrs.dtype as number);
      if (!dtype || input(0).rank !== 2) throw new ShapeError(`it makes a matrix, not ${formatShape(input(0).shape)}`);
      return [{ dtype, shape: input(0).shape }];
    },
  },
  {
    name: "ReverseSequence",
    attrs: { batch_axis: "int", time_axis: "int" },
    arity: [2, 2],
    infer: likeInput,
    // Reversing twice gives back what was there.
    vjp: ({ cotangents, input, attrs }) => [op("ReverseSequence", [cotangents[0]!, input(1)], attrs)],
  },
  {
    name: "Det",
    arity: [1, 1],
    infer: ({ input }) => {
      const { shape, dtype } = input(0);
      if (shape.length < 2 || shape.at(-1) !== shape.at(-2))
        throw new ShapeError(`it takes square matrices, not ${formatShape(shape)}`);
      return [{ dtype, shape: shape.slice(0, -2) }];
    },
  },
];
