import { type Dim, isStatic, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import { stopGradient } from "../grad.ts";
import {
  asTensor,
  defineOp,
  ints,
  normalizeAxis,
  op,
  scalar,
  type Tensor,
  type TensorLike,
  type VjpContext,
  within,
} from "../tensor.ts";
import { abs, add, cast, div, equal, exp, isInf, log, mul, sign, square, sub, where } from "./elementwise.ts";
import { dimOf, expand, knownAxes } from "./fill.ts";
import { squeeze } from "./shape.ts";

export interface ReduceOptions {
  /** Axes to reduce, counted from the back when negative; all of them when absent. */
  axes?: number | readonly number[];
  /** Keep reduced axes with length 1. */
  keepDims?: boolean;
}

function axesOf(x: Tensor, axes: ReduceOptions["axes"]): number[] {
  const list = axes === undefined ? x.shape.map((_, i) => i) : typeof axes === "number" ? [axes] : axes;
  const sorted = list.map((a) => normalizeAxis(a, x.rank)).sort((a, b) => a - b);
  if (new Set(sorted).size !== sorted.length) throw new ArgumentError(`axes [${list.join(", ")}] repeat`);
  return sorted;
}

/** Cotangent of the reduced tensor, with the reduced axes put back as length 1. */
function withDims(dy: Tensor, axes: readonly number[], keepDims: boolean): Tensor {
  return keepDims || axes.length === 0 ? dy : op("Unsqueeze", [dy, ints(axes)]);
}

/** @throws ShapeError where there is no element to pick. */
function refuseEmpty(x: Tensor, axes: readonly number[]): void {
  const empty = axes.find((a) => x.shape[a] === 0);
  if (empty !== undefined) throw new ShapeError(`axis ${empty} has no elements to pick from`);
}

type Reduce = (x: TensorLike, options?: ReduceOptions) => Tensor;
type ReduceRule = (dy: Tensor, x: Tensor, y: Tensor, axes: readonly number[]) => Tensor;

/** `ofOne` is what the reduction makes of single elements, where there is no axis to reduce. */
function defineReduce(name: string, rule: ReduceRule, ofOne: (x: Tensor) => Tensor = (x) => x): Reduce {
  const picks = name === "ReduceMax" || name === "ReduceMin";
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
      if (x.dtype === "bool" && !picks) throw new DTypeError("it takes numbers, not bool; cast it");
      if (picks) refuseEmpty(x, axes);
      return [{ dtype: x.dtype, shape: x.shape.flatMap((d, i) => (axes.includes(i) ? (keep ? [1] : []) : [d])) }];
    },
    vjp: ({ cotangents, input, outputs, node, attrs }: VjpContext) => {
      const x = input(0);
      const axes = axesFor(x, knownAxes(node.inputs[1]), attrs.noop_with_empty_axes === 1);
      const keep = (attrs.keepdims ?? 1) === 1;
      return [rule(withDims(cotangents[0]!, axes, keep), x, withDims(outputs[0]!, axes, keep), axes)];
    },
  });
  return (value, { axes, keepDims = false } = {}) =>
    within(name, [value], () => {
      const x = asTensor(value);
      const list = axesOf(x, axes);
      if (list.length === 0) return ofOne(x);
      return op(name, [x, ints(list)], { keepdims: keepDims ? 1 : 0 });
    });
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
export const sum: Reduce = defineReduce("ReduceSum", (dy, x) => stretch(dy, x));
/** Mean over `axes`. */
export const mean: Reduce = defineReduce("ReduceMean", (dy, x, _y, axes) => stretch(div(dy, countOf(x, axes)), x));
/** Largest element over `axes`; tied elements share the gradient. */
export const max: Reduce = defineReduce("ReduceMax", extremeRule);
/** Smallest element over `axes`; tied elements share the gradient. */
export const min: Reduce = defineReduce("ReduceMin", extremeRule);
/** Product over `axes`; the gradient divides by the elements and so needs them non-zero. */
export const prod: Reduce = defineReduce("ReduceProd", (dy, x, y) => div(mul(dy, y), x));
/** Sum of absolute values over `axes`. */
export const norm1: Reduce = defineReduce("ReduceL1", (dy, x) => mul(dy, sign(x)), abs);
/** Euclidean norm over `axes`; its gradient at zero is taken to be zero. */
export const norm2: Reduce = defineReduce("ReduceL2", (dy, x, y) => mul(dy, div(x, where(equal(y, 0), 1, y))), abs);
/** Sum of squares over `axes`. */
export const sumSquares: Reduce = defineReduce("ReduceSumSquare", (dy, x) => mul(dy, mul(x, 2)), square);
defineReduce("ReduceLogSum", (dy, x, y) => stretch(div(dy, exp(y)), x));
defineReduce("ReduceLogSumExp", (dy, x, y) => mul(dy, exp(sub(x, y))));

/** `log(sum(exp(x)))` over `axes`, without overflow; where all elements are -Infinity it has no gradient. */
export function logSumExp(value: TensorLike, { axes, keepDims = false }: ReduceOptions = {}): Tensor {
  return within("logSumExp", [value], () => {
    const x = asTensor(value);
    const list = axesOf(x, axes);
    const top = stopGradient(max(x, { axes: list, keepDims: true }));
    const shift = where(isInf(top), 0, top);
    const total = sum(exp(sub(x, shift)), { axes: list, keepDims: true });
    const nothing = equal(total, 0);
    const result = add(where(nothing, -Infinity, log(where(nothing, 1, total))), shift);
    return keepDims || list.length === 0 ? result : squeeze(result, list);
  });
}

/** Variance over `axes`, divided by the count (not the count minus one). */
export function variance(value: TensorLike, { axes, keepDims = false }: ReduceOptions = {}): Tensor {
  const x = asTensor(value);
  const list = within("variance", [x], () => axesOf(x, axes));
  return mean(square(sub(x, mean(x, { axes: list, keepDims: true }))), { axes: list, keepDims });
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
      refuseEmpty(x, [axis]);
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
  return within("CumSum", [value], () => {
    const x = asTensor(value);
    const at = scalar(normalizeAxis(axis, x.rank), "i64");
    return op("CumSum", [x, at], { exclusive: exclusive ? 1 : 0, reverse: reverse ? 1 : 0 });
  });
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
  expand: ([x], attrs) => {
    const along = { axes: (attrs.axis as number | undefined) ?? -1, keepDims: true };
    const shifted = sub(x!, max(x!, along));
    return [sub(shifted, log(sum(exp(shifted), along)))];
  },
});

/** Logarithm of the softmax along `axis`, without overflow. */
export function logSoftmax(x: TensorLike, axis = -1): Tensor {
  return op("LogSoftmax", [asTensor(x)], { axis });
}
