import { addDims, type Dim, floorDivideDims, multiplyDims, sizeOf, subtractDims } from "../dims.ts";
import { ArgumentError, ShapeError } from "../errors.ts";
import { HostTensor } from "../host.ts";
import { knownInts, knownNumbers } from "../known.ts";
import {
  asTensor,
  defineOp,
  ints,
  normalizeAxis,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
  within,
} from "../tensor.ts";
import { knownAxes, shapeTensor, zerosLike } from "./fill.ts";
import { reshape, transpose, unsqueeze } from "./shape.ts";

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
