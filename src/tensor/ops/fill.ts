import {
  broadcastShapes,
  type Dim,
  divideDims,
  formatShape,
  isStatic,
  multiplyDims,
  quotientOf,
  type Shape,
  termsOf,
} from "../dims.ts";
import type { DType } from "../dtype.ts";
import { isInteger } from "../dtype.ts";
import { ArgumentError, callerLine, ShapeError } from "../errors.ts";
import { knownInts, knownNumbers } from "../known.ts";
import { defineOp, ints, op, scalar, type Tensor, type TensorType, within } from "../tensor.ts";

defineOp({
  name: "Shape",
  attrs: { start: "int", end: "int" },
  arity: [1, 1],
  flat: true,
  infer: ({ input, attrs }) => {
    const { start, end } = attrs as { start?: number; end?: number };
    return [{ dtype: "i64", shape: [input(0).shape.slice(start ?? 0, end).length] }];
  },
});

defineOp({
  name: "Size",
  arity: [1, 1],
  flat: true,
  infer: () => [{ dtype: "i64", shape: [] }],
});

/** Dimension `axis` of `x` as a one-element `i64` tensor, computed when the graph runs. */
export function dimOf(x: Tensor, axis: number): Tensor {
  const dim = x.shape[axis]!;
  return typeof dim === "number" ? ints([dim]) : op("Shape", [x], { start: axis, end: axis + 1 });
}

/**
 * A shape as an `i64` vector. Names are looked up in the shapes of `sources`; what is not there as it stands is put
 * together from sums, products and quotients of what is.
 * @throws ShapeError where a name occurs in none of them.
 */
export function shapeTensor(shape: Shape, sources: readonly Tensor[]): Tensor {
  if (isStatic(shape)) return ints(shape);
  const pieces = shape.map((dim) => {
    const found = lookUp(dim, sources);
    if (found) return found;
    const seen = sources.map((s) => formatShape(s.shape)).join(", ") || "none";
    throw new ShapeError(`no tensor at hand has the dimension "${dim}" (seen: ${seen})${callerLine()}`);
  });
  return pieces.length === 1 ? pieces[0]! : op("Concat", pieces, { axis: 0 });
}

function lookUp(dim: Dim, sources: readonly Tensor[]): Tensor | undefined {
  if (typeof dim === "number") return ints([dim]);
  for (const source of sources) {
    const axis = source.shape.indexOf(dim);
    if (axis >= 0) return dimOf(source, axis);
  }
  for (const source of sources) {
    for (const [axis, have] of source.shape.entries()) {
      if (typeof have === "number") continue;
      const multiple = divideDims(have, dim);
      if (typeof multiple === "number") return op("Div", [dimOf(source, axis), ints([multiple])]);
      const factor = divideDims(dim, have);
      const rest = factor === undefined ? undefined : lookUp(factor, sources);
      if (rest) return op("Mul", [dimOf(source, axis), rest]);
    }
  }
  const terms = termsOf(dim);
  if (terms.length > 1) {
    const summands = terms.map(({ coefficient, names }) =>
      lookUp(multiplyDims(coefficient, names.join("*") || 1), sources),
    );
    return combine("Add", summands);
  }
  const { coefficient, names } = terms[0]!;
  if (coefficient !== 1 || names.length > 1)
    return combine(
      "Mul",
      [...(coefficient === 1 ? [] : [coefficient]), ...names].map((factor) => lookUp(factor, sources)),
    );
  const quotient = quotientOf(names[0]!);
  const dividend = quotient && lookUp(quotient.dividend, sources);
  return dividend && op("Div", [dividend, ints([quotient!.divisor])]);
}

function combine(name: "Add" | "Mul", parts: readonly (Tensor | undefined)[]): Tensor | undefined {
  return parts.reduce((a, b) => a && b && op(name, [a, b]));
}

defineOp({
  name: "Expand",
  arity: [2, 2],
  infer: ({ input }) => {
    const target = knownInts(input(1));
    if (!target) throw new ShapeError("the shape to expand to depends on data");
    const shape = broadcastShapes(input(0).shape, target);
    if (!shape) throw new ShapeError(`${formatShape(input(0).shape)} does not broadcast to ${formatShape(target)}`);
    return [{ dtype: input(0).dtype, shape }];
  },
  vjp: ({ input, cotangents }) => [sumToLike(cotangents[0]!, input(0))],
});

/** `x` stretched to `shape` by broadcasting; names in it are looked up in `x` and `sources`. */
export function expand(x: Tensor, shape: Shape, sources: readonly Tensor[] = []): Tensor {
  return within("Expand", [x], () => op("Expand", [x, shapeTensor(shape, [x, ...sources])]));
}

/** A tensor filled with `value`; names in `shape` are looked up in `sources`. */
export function fill(value: number, shape: Shape, dtype: DType = "f32", sources: readonly Tensor[] = []): Tensor {
  const one = scalar(value, dtype);
  return shape.length === 0 ? one : op("Expand", [one, shapeTensor(shape, sources)]);
}

export function zerosLike(x: Tensor): Tensor {
  return fill(0, x.shape, x.dtype, [x]);
}

export function onesLike(x: Tensor): Tensor {
  return fill(1, x.shape, x.dtype, [x]);
}

/** Sums `g` over the dimensions that broadcasting `like` had stretched: the transpose of broadcasting. */
export function sumToLike(g: Tensor, like: Tensor): Tensor {
  const extra = g.rank - like.rank;
  const axes = g.shape.flatMap((d, i) => (i < extra || (like.shape[i - extra] === 1 && d !== 1) ? [i] : []));
  if (axes.length === 0) return g;
  const summed = op("ReduceSum", [g, ints(axes)], { keepdims: 1 });
  return extra === 0 ? summed : op("Squeeze", [summed, ints(Array.from({ length: extra }, (_, i) => i))]);
}

defineOp({
  name: "Range",
  arity: [3, 3],
  flat: true,
  infer: ({ input }) => {
    const [start, limit, delta] = [0, 1, 2].map((i) => knownInts(input(i))?.[0]);
    if (delta === 0) throw new ArgumentError("its step is 0");
    if (
      typeof start === "number" &&
      typeof limit === "number" &&
      typeof delta === "number" &&
      isInteger(input(0).dtype)
    ) {
      return [{ dtype: input(0).dtype, shape: [Math.max(0, Math.ceil((limit - start) / delta))] }];
    }
    if (start === 0 && delta === 1 && limit !== undefined) return [{ dtype: input(0).dtype, shape: [limit] }];
    throw new ShapeError("the length of this range depends on data");
  },
});

/** `[0, 1, ..., length - 1]` as `i64`; a name is looked up in `sources`. */
export function iota(length: Dim, sources: readonly Tensor[] = []): Tensor {
  const limit = shapeTensor([length], sources);
  return op("Range", [scalar(0, "i64"), op("Squeeze", [limit, ints([0])]), scalar(1, "i64")]);
}

defineOp({
  name: "ConstantOfShape",
  attrs: { value: "tensor" },
  arity: [1, 1],
  flat: true,
  infer: ({ input, attrs }) => {
    const shape = knownInts(input(0));
    if (!shape) throw new ShapeError("the shape to fill depends on data");
    return [{ dtype: (attrs.value as TensorType | undefined)?.dtype ?? "f32", shape }];
  },
});

/** The numbers of an axes-like input that must be known while tracing. @throws ShapeError */
export function knownAxes(t: Tensor | null | undefined): readonly number[] | undefined {
  if (!t) return undefined;
  const axes = knownNumbers(t);
  if (!axes) throw new ShapeError("its axes must be known while tracing");
  return axes;
}
