import { type Dim, isStatic, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { DTypeError, ShapeError } from "../errors.ts";
import { stopGradient } from "../grad.ts";
import {
  asTensor,
  defineOp,
  ints,
  normalizeAxis,
  op,
  type Tensor,
  type TensorLike,
  type VjpContext,
} from "../tensor.ts";
import { cast, div, equal, exp, log, mul, sub, where } from "./elementwise.ts";
import { dimOf, expand, knownAxes } from "./fill.ts";

export interface ReduceOptions {
  /** Axes to reduce, counted from the back when negative; all of them when absent. */
  axes?: number | readonly number[];
  /** Keep reduced axes with length 1. */
  keepDims?: boolean;
}

function axesOf(x: Tensor, axes: ReduceOptions["axes"]): number[] {
  const list = axes === undefined ? x.shape.map((_, i) => i) : typeof axes === "number" ? [axes] : axes;
  return list.map((a) => normalizeAxis(a, x.rank)).sort((a, b) => a - b);
}

/** Cotangent of the reduced tensor, with the reduced axes put back as length 1. */
function withDims(dy: Tensor, axes: readonly number[], keepDims: boolean): Tensor {
  return keepDims || axes.length === 0 ? dy : op("Unsqueeze", [dy, ints(axes)]);
}

type ReduceRule = (dy: Tensor, x: Tensor, y: Tensor, axes: readonly number[]) => Tensor;

function defineReduce(name: string, rule: ReduceRule): (x: TensorLike, options?: ReduceOptions) => Tensor {
  const axesFor = (x: Tensor, given: readonly number[] | undefined, noop: boolean): number[] =>
    (given === undefined || given.length === 0) && noop ? [] : axesOf(x, given?.length ? given : undefined);
  defineOp({
    name,
    attrs: { keepdims: "int", noop_with_empty_axes: "int" },
    arity: [1, 2],
    infer: ({ input, inputs, attrs }) => {
      const x = input(0);
      const axes = axesFor(x, knownAxes(inputs[1]), attrs.noop_with_empty_axes === 1);
      const keep = (attrs.keepdims ?? 1) === 1;
      return [{ dtype: x.dtype, shape: x.shape.flatMap((d, i) => (axes.includes(i) ? (keep ? [1] : []) : [d])) }];
    },
    vjp: ({ cotangents, input, outputs, node, attrs }: VjpContext) => {
      const x = input(0);
      const axes = axesFor(x, knownAxes(node.inputs[1]), attrs.noop_with_empty_axes === 1);
      const keep = (attrs.keepdims ?? 1) === 1;
      return [rule(withDims(cotangents[0]!, axes, keep), x, withDims(outputs[0]!, axes, keep), axes)];
    },
  });
  return (value, { axes, keepDims = false } = {}) => {
    const x = asTensor(value);
    const list = axesOf(x, axes);
    if (list.length === 0)
      return name === "ReduceMean" || name === "ReduceSum" || name === "ReduceMax" || name === "ReduceMin"
        ? x
        : op(name, [x, ints([])], { keepdims: 1, noop_with_empty_axes: 1 });
    return op(name, [x, ints(list)], { keepdims: keepDims ? 1 : 0 });
  };
}

const stretch = (g: Tensor, x: Tensor): Tensor => expand(g, x.shape, [x]);

/** Number of elements behind each reduced one, as a tensor of `x`'s type. */
function countOf(x: Tensor, axes: readonly number[]): Tensor | number {
  const dims = axes.map((a) => x.shape[a]!) as Dim[];
  if (isStatic(dims)) return sizeOf(dims) as number;
  const product = axes.map((a) => dimOf(x, a)).reduce((a, b) => op("Mul", [a, b]));
  return cast(op("Squeeze", [product, ints([0])]), x.dtype);
}

/** Ties share the gradient equally. */
const extremeRule: ReduceRule = (dy, x, y, axes) => {
  const hit = cast(equal(x, y), x.dtype);
  return mul(hit, div(dy, sum(hit, { axes, keepDims: true })));
};

/** Sum over `axes`. */
export const sum: (x: TensorLike, options?: ReduceOptions) => Tensor = defineReduce("ReduceSum", (dy, x) =>
  stretch(dy, x),
);
/** Mean over `axes`. */
export const mean: (x: TensorLike, options?: ReduceOptions) => Tensor = defineReduce("ReduceMean", (dy, x, _y, axes) =>
  stretch(div(dy, countOf(x, axes)), x),
);
/** Largest element over `axes`; tied elements share the gradient. */
export const max: (x: TensorLike, options?: ReduceOptions) => Tensor = defineReduce("ReduceMax", extremeRule);
/** Smallest element over `axes`; tied elements share the gradient. */
export const min: (x: TensorLike, options?: ReduceOptions) => Tensor = defineReduce("ReduceMin", extremeRule);
/** Product over `axes`; the gradient divides by the elements and so needs them non-zero. */
export const prod: (x: TensorLike, options?: ReduceOptions) => Tensor = defineReduce("ReduceProd", (dy, x, y) =>
  div(mul(dy, y), x),
);

const reduceL1 = defineReduce("ReduceL1", (dy, x) => mul(dy, op("Sign", [x])));
const reduceL2 = defineReduce("ReduceL2", (dy, x, y) => mul(dy, div(x, y)));
const reduceSquare = defineReduce("ReduceSumSquare", (dy, x) => mul(dy, mul(x, 2)));
defineReduce("ReduceLogSum", (dy, _x, y) => div(dy, exp(y)));
defineReduce("ReduceLogSumExp", (dy, x, y) => mul(dy, exp(sub(x, y))));

/** Sum of absolute values over `axes`. */
export const norm1: typeof reduceL1 = reduceL1;
/** Euclidean norm over `axes`; its gradient at zero is not defined. */
export const norm2: typeof reduceL2 = reduceL2;
/** Sum of squares over `axes`. */
export const sumSquares: typeof reduceSquare = reduceSquare;

/** `log(sum(exp(x)))` over `axes`, without overflow. */
export function logSumExp(value: TensorLike, { axes, keepDims = false }: ReduceOptions = {}): Tensor {
  const x = asTensor(value);
  const list = axesOf(x, axes);
  const top = stopGradient(max(x, { axes: list, keepDims: true }));
  const shift = where(equal(op("Abs", [top]), Infinity), 0, top);
  const result = op("Add", [log(sum(exp(sub(x, shift)), { axes: list, keepDims: true })), shift]);
  return keepDims || list.length === 0 ? result : op("Squeeze", [result, ints(list)]);
}

/** Variance over `axes`, divided by the count (not the count minus one). */
export function variance(value: TensorLike, { axes, keepDims = false }: ReduceOptions = {}): Tensor {
  const x = asTensor(value);
  const centred = sub(x, mean(x, { ...(axes === undefined ? {} : { axes }), keepDims: true }));
  return mean(mul(centred, centred), { ...(axes === undefined ? {} : { axes }), keepDims });
}

function defineArg(
  name: "ArgMax" | "ArgMin",
): (x: TensorLike, axis?: number, options?: { keepDims?: boolean }) => Tensor {
  defineOp({
    name,
    attrs: { axis: "int", keepdims: "int", select_last_index: "int" },
    arity: [1, 1],
    flat: true,
    infer: ({ input, attrs }) => {
      const x = input(0);
      if (x.rank === 0) throw new ShapeError("a scalar has no axis to search");
      const axis = normalizeAxis((attrs.axis as number | undefined) ?? 0, x.rank);
      const keep = (attrs.keepdims ?? 1) === 1;
      return [{ dtype: "i64", shape: x.shape.flatMap((d, i) => (i === axis ? (keep ? [1] : []) : [d])) }];
    },
  });
  return (value, axis = -1, { keepDims = false } = {}) =>
    op(name, [asTensor(value)], { axis, keepdims: keepDims ? 1 : 0 });
}

/** Index (`i64`) of the largest element along `axis`, the first of equals. */
export const argMax: (x: TensorLike, axis?: number, options?: { keepDims?: boolean }) => Tensor = defineArg("ArgMax");
/** Index (`i64`) of the smallest element along `axis`, the first of equals. */
export const argMin: (x: TensorLike, axis?: number, options?: { keepDims?: boolean }) => Tensor = defineArg("ArgMin");

defineOp({
  name: "CumSum",
  attrs: { exclusive: "int", reverse: "int" },
  arity: [2, 2],
  infer: ({ input }) => {
    if (!isFloat(input(0).dtype) && !["i64", "i32", "u32", "u64"].includes(input(0).dtype))
      throw new DTypeError(`it takes numbers, not ${input(0).dtype}`);
    return [input(0)];
  },
  vjp: ({ cotangents, input, attrs }) => [
    op("CumSum", [cotangents[0]!, input(1)], { ...attrs, reverse: attrs.reverse === 1 ? 0 : 1 }),
  ],
});

/** Running sum along `axis`; `exclusive` leaves the element itself out, `reverse` runs from the end. */
export function cumSum(value: TensorLike, axis = -1, { exclusive = false, reverse = false } = {}): Tensor {
  const x = asTensor(value);
  const at = op("Squeeze", [ints([normalizeAxis(axis, x.rank)]), ints([0])]);
  return op("CumSum", [x, at], { exclusive: exclusive ? 1 : 0, reverse: reverse ? 1 : 0 });
}

function softmaxType(x: Tensor, axis: number): readonly [Tensor] {
  if (!isFloat(x.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${x.dtype}`);
  normalizeAxis(axis, x.rank);
  return [x];
}

defineOp({
  name: "Softmax",
  attrs: { axis: "int" },
  arity: [1, 1],
  infer: ({ input, attrs }) => softmaxType(input(0), (attrs.axis as number | undefined) ?? -1),
  vjp: ({ cotangents, outputs, attrs }) => {
    const [dy, y] = [cotangents[0]!, outputs[0]!];
    const weighted = mul(dy, y);
    return [sub(weighted, mul(y, sum(weighted, { axes: (attrs.axis as number | undefined) ?? -1, keepDims: true })))];
  },
});

/** `exp(x) / sum(exp(x))` along `axis`. */
export function softmax(x: TensorLike, axis = -1): Tensor {
  return op("Softmax", [asTensor(x)], { axis });
}

defineOp({
  name: "LogSoftmax",
  attrs: { axis: "int" },
  arity: [1, 1],
  infer: ({ input, attrs }) => softmaxType(input(0), (attrs.axis as number | undefined) ?? -1),
  vjp: ({ cotangents, outputs, attrs }) => {
    const dy = cotangents[0]!;
    return [
      sub(dy, mul(exp(outputs[0]!), sum(dy, { axes: (attrs.axis as number | undefined) ?? -1, keepDims: true }))),
    ];
  },
});

/** Logarithm of the softmax along `axis`, without overflow. */
export function logSoftmax(x: TensorLike, axis = -1): Tensor {
  return op("LogSoftmax", [asTensor(x)], { axis });
}
