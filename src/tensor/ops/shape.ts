import {
  addDims,
  type Dim,
  divideDims,
  floorDivideDims,
  formatShape,
  multiplyDims,
  normalizeDim,
  type Shape,
  sameShape,
  sizeOf,
  subtractDims,
} from "../dims.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import { HostTensor } from "../host.ts";
import { knownInts, knownNumbers } from "../known.ts";
import {
  applyOp,
  asTensor,
  defineOp,
  ints,
  normalizeAxis,
  op,
  scalar,
  staticDim,
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

// ------------------------------------------------------------------------------------------------ slice, pad

/** Past the end of any axis. */
const BEYOND = 2 ** 31 - 1;

/** Bounds of a slice as ONNX counts them, as `[first, end, step]` clamped to `[0, dim]`; undefined for a named dim. */
function clampSlice(dim: Dim, start: number, end: Dim, step: number): { start: number; count: Dim } | undefined {
  if (typeof dim === "number" && typeof end === "number") {
    const clamp = (v: number, low: number, high: number): number => Math.min(high, Math.max(low, v < 0 ? v + dim : v));
    const first = step > 0 ? clamp(start, 0, dim) : clamp(start, 0, dim - 1);
    const last = step > 0 ? clamp(end, 0, dim) : Math.max(-1, Math.min(dim - 1, end < 0 ? end + dim : end));
    return { start: first, count: Math.max(0, Math.ceil((last - first) / step)) };
  }
  const reversed = step === -1 && start === -1 && typeof end === "number" && end <= -BEYOND;
  if (step < 0) return reversed ? { start, count: dim } : undefined;
  const from = start < 0 ? addDims(dim, start) : start;
  const to = typeof end === "number" ? (end < 0 ? addDims(dim, end) : end >= BEYOND ? dim : end) : end;
  const length = subtractDims(to, from);
  return {
    start: typeof from === "number" ? from : start,
    count: step === 1 ? length : floorDivideDims(addDims(length, step - 1), step),
  };
}

defineOp({
  name: "Slice",
  arity: [3, 5],
  infer: ({ input, inputs }) => {
    const x = input(0);
    const starts = knownNumbers(input(1));
    const ends = knownInts(input(2));
    const axes = knownAxes(inputs[3]) ?? starts?.map((_, i) => i);
    const steps = inputs[4] ? knownNumbers(inputs[4]) : starts?.map(() => 1);
    if (!starts || !ends || !axes || !steps) throw new ShapeError("its bounds depend on data");
    if ([ends, axes, steps].some((list) => list.length !== starts.length))
      throw new ShapeError(
        `its starts, ends, axes and steps are ${[starts, ends, axes, steps].map((l) => l.length).join(", ")} numbers`,
      );
    const shape = [...x.shape];
    axes.forEach((a, i) => {
      const axis = normalizeAxis(a, x.rank);
      if (steps[i] === 0) throw new ArgumentError("its step is 0");
      const cut = clampSlice(x.shape[axis]!, starts[i]!, ends[i]!, steps[i]!);
      if (!cut)
        throw new ShapeError(`axis ${axis} has the unknown length "${x.shape[axis]}" and cannot be cut this way`);
      shape[axis] = cut.count;
    });
    return [{ dtype: x.dtype, shape }];
  },
  vjp: ({ cotangents, input, node }) => {
    const x = input(0);
    const starts = knownNumbers(input(1))!;
    const ends = knownNumbers(input(2));
    const axes = (knownAxes(node.inputs[3]) ?? starts.map((_, i) => i)).map((a) => normalizeAxis(a, x.rank));
    const steps = node.inputs[4] ? knownNumbers(node.inputs[4])! : starts.map(() => 1);
    if (!ends) throw new ShapeError("the gradient of a slice needs its bounds as numbers");
    let dy = cotangents[0]!;
    if (sizeOf(dy.shape) === 0) return [zerosLike(x)];
    const before = x.shape.map(() => 0);
    const behind = x.shape.map(() => 0);
    axes.forEach((axis, i) => {
      const dim = staticDim(x, axis);
      const { start, count } = clampSlice(dim, starts[i]!, ends[i]!, steps[i]!)!;
      const step = steps[i]!;
      const length = count as number;
      if (step < 0) dy = flip(dy, axis);
      const low = step > 0 ? start : start + step * (length - 1);
      const span = Math.abs(step) * (length - 1) + 1;
      if (Math.abs(step) > 1) dy = spread(dy, axis, Math.abs(step), span);
      before[axis] = low;
      behind[axis] = dim - low - span;
    });
    return [pad(dy, before, behind)];
  },
});

/** Puts `step - 1` zeros between neighbours along `axis`, giving `span` entries. */
function spread(x: Tensor, axis: number, step: number, span: number): Tensor {
  const wide = unsqueeze(x, axis + 1);
  const behind = wide.shape.map((_, i) => (i === axis + 1 ? step - 1 : 0));
  const padded = pad(
    wide,
    wide.shape.map(() => 0),
    behind,
  );
  const dims = x.shape.map((d, i) => (i === axis ? multiplyDims(d, step) : d));
  return slice(reshape(padded, dims), axis, 0, span);
}

/** Entries `start` to `end` (exclusive; to the end when absent) along `axis`; negative bounds count from the back. */
export function slice(value: TensorLike, axis: number, start: number, end: Dim = BEYOND, step = 1): Tensor {
  return within("Slice", [value], () => {
    const x = asTensor(value);
    const at = normalizeAxis(axis, x.rank);
    if (start === 0 && step === 1 && (end === x.shape[at] || end === BEYOND)) return x;
    return op("Slice", [x, ints([start]), shapeTensor([end], [x]), ints([at]), ints([step])]);
  });
}

/** `x` with the entries along `axis` in reverse. */
export function flip(value: TensorLike, axis: number): Tensor {
  return slice(value, axis, -1, -BEYOND, -1);
}

const padModes = ["constant", "reflect", "edge", "wrap"] as const;
export type PadMode = (typeof padModes)[number];

function isPadMode(mode: string): mode is PadMode {
  return (padModes as readonly string[]).includes(mode);
}

/** Whether an axis has enough entries to copy `width` of them beyond its end. Only the constant mode cuts. */
function fitsPad(mode: PadMode, width: number, length: Dim): boolean {
  if (mode === "constant" || width === 0) return true;
  if (width < 0 || typeof length === "string") return width > 0;
  return mode === "edge" ? length > 0 : width <= (mode === "wrap" ? length : length - 1);
}

defineOp({
  name: "Pad",
  attrs: { mode: "string" },
  arity: [2, 4],
  infer: ({ input, inputs, attrs }) => {
    const x = input(0);
    const pads = knownNumbers(input(1));
    if (!pads) throw new ShapeError("its widths depend on data");
    const mode = (attrs.mode as string | undefined) ?? "constant";
    if (!isPadMode(mode)) throw new ArgumentError(`it has no mode "${mode}"`);
    const axes = (knownAxes(inputs[3]) ?? x.shape.map((_, i) => i)).map((a) => normalizeAxis(a, x.rank));
    if (pads.length !== 2 * axes.length) throw new ShapeError(`it needs ${2 * axes.length} widths, not ${pads.length}`);
    const shape = [...x.shape];
    axes.forEach((axis, i) => {
      const wrong = [pads[i]!, pads[i + axes.length]!].find((width) => !fitsPad(mode, width, shape[axis]!));
      if (wrong !== undefined)
        throw new ShapeError(`an axis of length ${shape[axis]} cannot be padded by ${wrong} with mode "${mode}"`);
      shape[axis] = addDims(addDims(shape[axis]!, pads[i]!), pads[i + axes.length]!);
    });
    const empty = shape.findIndex((d) => typeof d === "number" && d < 0);
    if (empty >= 0) throw new ShapeError(`cutting axis ${empty} by that much leaves ${shape[empty]} entries`);
    return [{ dtype: x.dtype, shape }];
  },
  vjp: ({ cotangents, input, node, attrs }) => {
    const x = input(0);
    const pads = knownNumbers(input(1))!;
    const axes = (knownAxes(node.inputs[3]) ?? x.shape.map((_, i) => i)).map((a) => normalizeAxis(a, x.rank));
    const before = x.shape.map(() => 0);
    const behind = x.shape.map(() => 0);
    axes.forEach((axis, i) => {
      before[axis] = pads[i]!;
      behind[axis] = pads[i + axes.length]!;
    });
    const mode = (attrs.mode as PadMode | undefined) ?? "constant";
    const dy = cotangents[0]!;
    if (mode === "constant")
      return [
        pad(
          dy,
          before.map((n) => -n),
          behind.map((n) => -n),
        ),
      ];
    return [axes.reduce((g, axis) => foldBack(g, axis, staticDim(x, axis), before[axis]!, behind[axis]!, mode), dy)];
  },
});

/** Adds the padded borders back onto the entries that they were copied from. */
function foldBack(dy: Tensor, axis: number, dim: number, before: number, behind: number, mode: PadMode): Tensor {
  if (before === 0 && behind === 0) return dy;
  const source = Array.from({ length: dim + before + behind }, (_, i) => {
    const at = i - before;
    if (at >= 0 && at < dim) return at;
    if (mode === "edge") return at < 0 ? 0 : dim - 1;
    if (mode === "wrap") return at < 0 ? at + dim : at - dim;
    return at < 0 ? -at : 2 * (dim - 1) - at;
  });
  // A small 0/1 matrix says which border entry belongs to which inner one.
  const matrix = new Float64Array(source.length * dim);
  source.forEach((to, from) => {
    matrix[from * dim + to] = 1;
  });
  const along = transposeLast(dy, axis);
  return transposeLast(op("MatMul", [along, matrixOf(matrix, source.length, dim, dy)]), axis);
}

function transposeLast(x: Tensor, axis: number): Tensor {
  const perm = x.shape.map((_, i) => i);
  [perm[axis], perm[x.rank - 1]] = [perm[x.rank - 1]!, perm[axis]!];
  return transpose(x, perm);
}

function matrixOf(values: Float64Array, rows: number, columns: number, like: Tensor): Tensor {
  return asTensor(HostTensor.from(values, { shape: [rows, columns] }).cast(like.dtype));
}

/**
 * `x` with `before[i]` and `behind[i]` entries added (negative: cut, with the constant mode) at the ends of axis `i`;
 * `edge` repeats the outermost entry, `reflect` mirrors at it, `wrap` goes on from the other end.
 * @throws ShapeError where the axis is too short for its mode.
 */
export function pad(
  value: TensorLike,
  before: readonly number[],
  behind: readonly number[],
  { mode = "constant" as PadMode, value: fillWith = 0 } = {},
): Tensor {
  return within("Pad", [value], () => {
    const x = asTensor(value);
    if (before.length !== x.rank || behind.length !== x.rank)
      throw new ShapeError(`it needs ${x.rank} widths on either side, not ${before.length} and ${behind.length}`);
    if ([...before, ...behind].every((n) => n === 0)) return x;
    const widths = ints([...before, ...behind]);
    return op("Pad", mode === "constant" ? [x, widths, asTensor(fillWith, x)] : [x, widths], { mode });
  });
}

defineOp({
  name: "Tile",
  arity: [2, 2],
  infer: ({ input }) => {
    const repeats = knownInts(input(1));
    if (!repeats) throw new ShapeError("its repeats depend on data");
    if (repeats.length !== input(0).rank)
      throw new ShapeError(`it needs ${input(0).rank} repeats, not ${repeats.length}`);
    return [{ dtype: input(0).dtype, shape: input(0).shape.map((d, i) => multiplyDims(d, repeats[i]!)) }];
  },
  vjp: ({ cotangents, input }) => {
    const x = input(0);
    const repeats = knownNumbers(input(1));
    if (!repeats) throw new ShapeError("the gradient of a tile needs its repeats as numbers");
    const split2 = x.shape.flatMap((d, i) => [repeats[i]!, d]);
    const summed = op("ReduceSum", [reshape(cotangents[0]!, split2, [x]), ints(x.shape.map((_, i) => 2 * i))], {
      keepdims: 0,
    });
    return [summed];
  },
});

/** `x` repeated `repeats[i]` times along axis `i`. */
export function tile(x: TensorLike, repeats: readonly number[]): Tensor {
  return within("Tile", [x], () => op("Tile", [asTensor(x), ints(repeats)]));
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
