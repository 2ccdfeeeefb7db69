import { addDims, type Dim, divideDims, formatShape, normalizeDim, type Shape, sameShape, sizeOf } from "../dims.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import { knownInts } from "../known.ts";
import {
  applyOp,
  asTensor,
  defineOp,
  ints,
  normalizeAxis,
  op,
  scalar,
  type Tensor,
  type TensorLike,
  within,
} from "../tensor.ts";
import { knownAxes, shapeTensor, zerosLike } from "./fill.ts";

// -------------------------------------------------------------------------------------------------- reshape

defineOp({
  name: "Reshape",
  attrs: { allowzero: "int" },
  arity: [2, 2],
  infer: ({ input, attrs }) => {
    const x = input(0);
    const target = knownInts(input(1));
    if (!target) throw new ShapeError("the shape to give depends on data");
    const dims: Dim[] = target.map((d, i) => {
      if (d !== 0 || attrs.allowzero === 1) return d;
      const kept = x.shape[i];
      if (kept === undefined)
        throw new ShapeError(`entry ${i} asks to keep a dimension that ${formatShape(x.shape)} does not have`);
      return kept;
    });
    const free = dims.indexOf(-1);
    const total = sizeOf(x.shape);
    if (free >= 0) {
      if (dims.lastIndexOf(-1) !== free) throw new ShapeError(`only one dimension of ${formatShape(dims)} may be -1`);
      const rest = divideDims(total, sizeOf(dims.filter((_, i) => i !== free)));
      if (rest === undefined) throw new ShapeError(`${total} elements do not divide into ${formatShape(dims)}`);
      dims[free] = rest;
    } else if (sizeOf(dims) !== total && [sizeOf(dims), total].every((n) => typeof n === "number")) {
      throw new ShapeError(`${formatShape(x.shape)} has ${total} elements, ${formatShape(dims)} ${sizeOf(dims)}`);
    }
    return [{ dtype: x.dtype, shape: dims }];
  },
  vjp: ({ cotangents, input }) => [reshape(cotangents[0]!, input(0).shape, [input(0)])],
});

/**
 * The same elements, row-major, under another shape. One dimension may be -1 (worked out from the rest); names are
 * looked up in `x` and `sources`.
 */
export function reshape(value: TensorLike, shape: Shape, sources: readonly Tensor[] = []): Tensor {
  return within("Reshape", [value], () => {
    const x = asTensor(value);
    const dims = shape.map((d) => (d === -1 ? -1 : normalizeDim(d)));
    if (!dims.includes(-1) && sameShape(dims, x.shape)) return x;
    const target = shapeTensor(withFree(x, dims), [x, ...sources]);
    // Zero would mean "keep"; an empty dimension has to be asked for.
    return op("Reshape", [x, target], dims.includes(0) ? { allowzero: 1 } : {});
  });
}

/** Writes the only dimension that is not a number as -1, so that nothing needs to be looked up at run time. */
function withFree(x: Tensor, dims: readonly Dim[]): readonly Dim[] {
  const named = dims.flatMap((d, i) => (typeof d === "string" ? [i] : []));
  if (named.length !== 1 || dims.includes(-1) || dims.includes(0)) return dims;
  const rest = divideDims(sizeOf(x.shape), sizeOf(dims.filter((_, i) => i !== named[0])));
  return rest === dims[named[0]!] ? dims.map((d, i) => (i === named[0] ? -1 : d)) : dims;
}

defineOp({
  name: "Flatten",
  attrs: { axis: "int" },
  arity: [1, 1],
  infer: ({ input, attrs }) => {
    const { shape } = input(0);
    const axis = (attrs.axis as number | undefined) ?? 1;
    const at = axis === shape.length ? axis : normalizeAxis(axis, shape.length);
    return [{ dtype: input(0).dtype, shape: [sizeOf(shape.slice(0, at)), sizeOf(shape.slice(at))] }];
  },
  vjp: ({ cotangents, input }) => [reshape(cotangents[0]!, input(0).shape, [input(0)])],
});

/** Merges the axes from `start` to `end` (inclusive) into one. */
export function flatten(value: TensorLike, start = 0, end = -1): Tensor {
  return within("Flatten", [value], () => {
    const x = asTensor(value);
    const [from, to] = [normalizeAxis(start, x.rank), normalizeAxis(end, x.rank)];
    if (from > to) throw new ArgumentError(`axes ${start} to ${end} are not in order`);
    return reshape(x, [...x.shape.slice(0, from), sizeOf(x.shape.slice(from, to + 1)), ...x.shape.slice(to + 1)]);
  });
}

defineOp({
  name: "Unsqueeze",
  arity: [2, 2],
  infer: ({ input }) => {
    const axes = knownAxes(input(1))!;
    const rank = input(0).rank + axes.length;
    const at = axes.map((a) => normalizeAxis(a, rank));
    if (new Set(at).size !== at.length) throw new ArgumentError(`axes [${axes.join(", ")}] repeat`);
    const rest = [...input(0).shape];
    return [
      { dtype: input(0).dtype, shape: Array.from({ length: rank }, (_, i) => (at.includes(i) ? 1 : rest.shift()!)) },
    ];
  },
  vjp: ({ cotangents, input }) => [op("Squeeze", [cotangents[0]!, input(1)])],
});

/** `x` with new axes of length 1 at `axes` of the result. */
export function unsqueeze(x: TensorLike, axes: number | readonly number[]): Tensor {
  return op("Unsqueeze", [asTensor(x), ints(typeof axes === "number" ? [axes] : axes)]);
}

defineOp({
  name: "Squeeze",
  arity: [1, 2],
  infer: ({ input, inputs }) => {
    const x = input(0);
    const given = knownAxes(inputs[1]) ?? x.shape.flatMap((d, i) => (d === 1 ? [i] : []));
    const at = given.map((a) => normalizeAxis(a, x.rank));
    const bad = at.find((a) => typeof x.shape[a] === "number" && x.shape[a] !== 1);
    if (bad !== undefined) throw new ShapeError(`axis ${bad} has length ${x.shape[bad]}, only length 1 can be dropped`);
    return [{ dtype: x.dtype, shape: x.shape.filter((_, i) => !at.includes(i)) }];
  },
  vjp: ({ cotangents, input }) => [reshape(cotangents[0]!, input(0).shape, [input(0)])],
});

/** `x` without the given axes, which must have length 1; without all such axes when none are given. */
export function squeeze(x: TensorLike, axes?: number | readonly number[]): Tensor {
  return op(
    "Squeeze",
    axes === undefined ? [asTensor(x)] : [asTensor(x), ints(typeof axes === "number" ? [axes] : axes)],
  );
}

// ------------------------------------------------------------------------------------------------ transpose

defineOp({
  name: "Transpose",
  attrs: { perm: "ints" },
  arity: [1, 1],
  infer: ({ input, attrs }) => {
    const x = input(0);
    const perm = (attrs.perm as readonly number[] | undefined) ?? x.shape.map((_, i) => x.rank - 1 - i);
    if (perm.length !== x.rank || [...perm].sort((a, b) => a - b).some((p, i) => p !== i)) {
      throw new ArgumentError(`[${perm.join(", ")}] is not an order of ${x.rank} axes`);
    }
    return [{ dtype: x.dtype, shape: perm.map((p) => x.shape[p]!) }];
  },
  vjp: ({ cotangents, input, attrs }) => {
    const perm = (attrs.perm as readonly number[] | undefined) ?? input(0).shape.map((_, i) => input(0).rank - 1 - i);
    return [
      transpose(
        cotangents[0]!,
        perm.map((_, i) => perm.indexOf(i)),
      ),
    ];
  },
});

/** `x` with its axes in the order `perm`; without one, the last two are swapped (reversed for a vector). */
export function transpose(value: TensorLike, perm?: readonly number[]): Tensor {
  const x = asTensor(value);
  const order =
    perm?.map((p) => (p < 0 ? p + x.rank : p)) ??
    (x.rank < 2 ? [...x.shape.keys()] : [...x.shape.keys()].slice(0, -2).concat(x.rank - 1, x.rank - 2));
  return order.length === x.rank && order.every((p, i) => p === i) ? x : op("Transpose", [x], { perm: order });
}

// ------------------------------------------------------------------------------------------- concat and split

defineOp({
  name: "Concat",
  attrs: { axis: "int" },
  arity: [1, Infinity],
  infer: ({ inputs, input, attrs }) => {
    const first = input(0);
    if (first.rank === 0) throw new ShapeError("scalars cannot be joined; unsqueeze them first");
    const axis = normalizeAxis(attrs.axis as number, first.rank);
    let total: Dim = 0;
    inputs.forEach((_, i) => {
      const t = input(i);
      if (t.dtype !== first.dtype)
        throw new DTypeError(`its parts differ in element type (${first.dtype} and ${t.dtype}); cast one of them`);
      if (t.rank !== first.rank || t.shape.some((d, k) => k !== axis && d !== first.shape[k])) {
        throw new ShapeError(
          `${formatShape(first.shape)} and ${formatShape(t.shape)} differ elsewhere than along axis ${axis}`,
        );
      }
      total = addDims(total, t.shape[axis]!);
    });
    return [{ dtype: first.dtype, shape: first.shape.map((d, k) => (k === axis ? total : d)) }];
  },
  vjp: ({ cotangents, node, attrs, input }) => {
    const axis = normalizeAxis(attrs.axis as number, input(0).rank);
    if (node.inputs.length === 1) return [cotangents[0]!];
    const parts = node.inputs.map((t) => t as Tensor);
    return split(
      cotangents[0]!,
      parts.map((t) => t.shape[axis]!),
      axis,
      parts,
    );
  },
});

/** Tensors joined along `axis`. */
export function concat(parts: readonly TensorLike[], axis = 0): Tensor {
  const tensors = parts.map((p) => asTensor(p));
  return tensors.length === 1 ? tensors[0]! : op("Concat", tensors, { axis });
}

/** Tensors of one shape laid along a new axis. */
export function stack(parts: readonly TensorLike[], axis = 0): Tensor {
  return concat(
    parts.map((p) => unsqueeze(p, axis)),
    axis,
  );
}

defineOp({
  name: "Split",
  attrs: { axis: "int", num_outputs: "int" },
  arity: [1, 2],
  infer: ({ input, inputs, attrs, outputCount }) => {
    const x = input(0);
    const axis = normalizeAxis((attrs.axis as number | undefined) ?? 0, x.rank);
    const dim = x.shape[axis]!;
    let sizes = inputs[1] ? knownInts(inputs[1]) : undefined;
    if (inputs[1] && !sizes) throw new ShapeError("the sizes to split into depend on data");
    if (!sizes) {
      const count = (attrs.num_outputs as number | undefined) ?? outputCount;
      if (typeof dim !== "number") throw new ShapeError(`dimension "${dim}" cannot be split evenly without its size`);
      const each = Math.ceil(dim / count);
      sizes = Array.from({ length: count }, (_, i) => Math.min(each, dim - each * i));
    }
    const total = sizes.reduce<Dim>(addDims, 0);
    if (total !== dim || sizes.some((size) => typeof size === "number" && size < 0))
      throw new ShapeError(`sizes [${sizes.join(", ")}] add up to ${total}, but axis ${axis} has length ${dim}`);
    return sizes.map((size) => ({ dtype: x.dtype, shape: x.shape.map((d, k) => (k === axis ? size : d)) }));
  },
  vjp: ({ cotangents, outputs, attrs, input }) => {
    const axis = normalizeAxis((attrs.axis as number | undefined) ?? 0, input(0).rank);
    return [
      concat(
        cotangents.map((c, i) => c ?? zerosLike(outputs[i]!)),
        axis,
      ),
    ];
  },
});

/** `x` cut along `axis` into pieces of the given sizes, or into `sizes` equal pieces. */
export function split(
  value: TensorLike,
  sizes: number | readonly Dim[],
  axis = -1,
  sources: readonly Tensor[] = [],
): Tensor[] {
  return within("Split", [value], () => {
    const x = asTensor(value);
    const at = normalizeAxis(axis, x.rank);
    const pieces = typeof sizes === "number" ? equalPieces(x, at, sizes) : sizes.map(normalizeDim);
    if (pieces.length === 1 && pieces[0] === x.shape[at]) return [x];
    return [...applyOp("Split", [x, shapeTensor(pieces, [x, ...sources])], { axis: at }, pieces.length)];
  });
}

function equalPieces(x: Tensor, axis: number, count: number): Dim[] {
  const each = Number.isInteger(count) && count > 0 ? divideDims(x.shape[axis]!, count) : undefined;
  if (each === undefined)
    throw new ShapeError(`axis ${axis} of ${formatShape(x.shape)} does not split into ${count} equal pieces`);
  return Array.from({ length: count }, () => each);
}

defineOp({
  name: "Trilu",
  attrs: { upper: "int" },
  arity: [1, 2],
  infer: ({ input }) => {
    if (input(0).rank < 2) throw new ShapeError(`it takes matrices, not ${formatShape(input(0).shape)}`);
    return [input(0)];
  },
  vjp: ({ cotangents, attrs, node }) => [op("Trilu", [cotangents[0]!, ...node.inputs.slice(1)], attrs)],
});

/** The lower (or upper) triangle of the last two axes, zeros elsewhere; `diagonal` shifts the border to the right. */
export function triangle(x: TensorLike, { upper = false, diagonal = 0 } = {}): Tensor {
  return op("Trilu", [asTensor(x), scalar(diagonal, "i64")], { upper: upper ? 1 : 0 });
}
