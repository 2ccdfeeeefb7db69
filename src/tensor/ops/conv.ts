import { addDims, type Dim, formatShape, multiplyDims, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import {
  type Attrs,
  asTensor,
  defineOp,
  type InferContext,
  ints,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
} from "../tensor.ts";
import { matmul } from "./linalg.ts";
import { sum } from "./reduce.ts";
import { reshape, stack, transpose } from "./shape.ts";
import { pad } from "./slice.ts";
import {
  attrsOfWindow,
  extent,
  outputDims,
  type Padding,
  type PerAxis,
  perAxis,
  type Steps,
  type Window,
  type WindowOptions,
  windowAttrs,
  windowOf,
  windowOver,
} from "./window.ts";

// Both operations tie three tensors together by one sum. `big [n, g I, ...]`, `small [n, g O, ...]` and
// `w [g O, I, ...kernel]` (g groups) meet at
//   small[p] * w[k] * big[p * stride + k * dilation - before],
// and each of the three tensors is linear in the other two: Conv makes `small`, ConvTranspose makes `big`.

const groupsOf = (attrs: Attrs): number => (attrs.group as number | undefined) ?? 1;
const kernelOf = (w: Tensor): number[] => w.shape.slice(2).map((_, i) => staticDim(w, i + 2));
const spatialAxes = (x: Tensor): number[] => x.shape.slice(2).map((_, i) => i + 2);

/** Refuses what neither direction can work with. `w` is laid out `[inputs or outputs, per group, ...kernel]`. */
function checkConv({ input, inputs, attrs }: InferContext, outputs: (w: Tensor) => Dim): void {
  const [x, w, bias] = [input(0), input(1), inputs[2]];
  for (const t of inputs)
    if (t && t.dtype !== x.dtype)
      throw new DTypeError(`its inputs differ in element type (${x.dtype} and ${t.dtype}); cast one of them`);
  if (!isFloat(x.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${x.dtype}`);
  if (x.rank < 3 || x.rank > 5)
    throw new ShapeError(`it takes [batch, channels, ...1 to 3 spatial axes], not ${formatShape(x.shape)}`);
  if (w.rank !== x.rank)
    throw new ShapeError(`its weight ${formatShape(w.shape)} needs ${x.rank - 2} kernel axes behind the first two`);
  const groups = groupsOf(attrs);
  if (groups < 1) throw new ArgumentError(`it needs at least one group, not ${groups}`);
  if (staticDim(w, 0) % groups !== 0)
    throw new ShapeError(`the first axis of its weight ${formatShape(w.shape)} does not split into ${groups} groups`);
  const kernel = attrs.kernel_shape as readonly number[] | undefined;
  if (kernel && formatShape(kernel) !== formatShape(kernelOf(w)))
    throw new ShapeError(`its kernel_shape ${formatShape(kernel)} is not that of its weight ${formatShape(w.shape)}`);
  if (bias && (bias.rank !== 1 || bias.shape[0] !== outputs(w)))
    throw new ShapeError(
      `its bias must be [${outputs(w)}], one number per output channel, not ${formatShape(bias.shape)}`,
    );
}

defineOp({
  name: "Conv",
  attrs: { ...windowAttrs, group: "int" },
  arity: [2, 3],
  infer: (context) => {
    checkConv(context, (w) => w.shape[0]!);
    const [x, w] = [context.input(0), context.input(1)];
    const groups = groupsOf(context.attrs);
    if (multiplyDims(w.shape[1]!, groups) !== x.shape[1])
      throw new ShapeError(
        `its input has ${x.shape[1]} channels, its weight takes ${multiplyDims(w.shape[1]!, groups)} (${groups} groups of ${w.shape[1]})`,
      );
    const spatial = outputDims(x, context.attrs, kernelOf(w));
    return [{ dtype: x.dtype, shape: [x.shape[0]!, w.shape[0]!, ...spatial] }];
  },
  vjp: ({ attrs, cotangents, input, needs }) => {
    const [x, w, dy, groups] = [input(0), input(1), cotangents[0]!, groupsOf(attrs)];
    const window = windowOver(x, attrs, kernelOf(w));
    return [
      needs[0] ? bigFrom(dy, w, window, groups, lengths(x)) : null,
      needs[1] ? weightFrom(x, dy, window, groups) : null,
      needs[2] ? biasFrom(dy) : null,
    ];
  },
});

defineOp({
  name: "ConvTranspose",
  attrs: { ...windowAttrs, group: "int", output_padding: "ints" },
  arity: [2, 3],
  infer: (context) => {
    const { attrs, input } = context;
    const outputs = (w: Tensor): Dim => multiplyDims(w.shape[1]!, groupsOf(attrs));
    checkConv(context, outputs);
    const [x, w] = [input(0), input(1)];
    if (w.shape[0] !== x.shape[1])
      throw new ShapeError(`its input has ${x.shape[1]} channels, its weight takes ${w.shape[0]}`);
    const window = transposedWindow(attrs, kernelOf(w));
    const extra = outputPadding(attrs, window);
    const spatial = x.shape.slice(2).map((length, i): Dim => {
      const spread = multiplyDims(addDims(length, -1), window.strides[i]!);
      const dim = addDims(
        spread,
        extent(window.kernel[i]!, window.dilations[i]!) + extra[i]! - window.before[i]! - window.behind[i]!,
      );
      if (typeof dim === "number" && dim < 1)
        throw new ShapeError(`padding leaves ${dim} entries of spatial axis ${i} of its result`);
      return dim;
    });
    return [{ dtype: x.dtype, shape: [x.shape[0]!, outputs(w), ...spatial] }];
  },
  vjp: ({ attrs, cotangents, input, needs }) => {
    const [x, w, dy, groups] = [input(0), input(1), cotangents[0]!, groupsOf(attrs)];
    const window = transposedWindow(attrs, kernelOf(w));
    return [
      needs[0] ? smallFrom(dy, w, window, groups, lengths(x)) : null,
      needs[1] ? weightFrom(dy, x, window, groups) : null,
      needs[2] ? biasFrom(dy) : null,
    ];
  },
});

/** `auto_pad` of a transposed convolution makes the result `stride` times as long as the input. */
function transposedWindow(attrs: Attrs, kernel: readonly number[]): Window {
  const extra = attrs.output_padding as readonly number[] | undefined;
  return windowOf(attrs, kernel, (i, stride, extent) => {
    const total = extent - stride + (extra?.[i] ?? 0);
    if (total < 0)
      throw new ArgumentError(`auto_pad cannot fill strides of ${stride} from a window of ${extent}; give its pads`);
    return total;
  });
}

function outputPadding(attrs: Attrs, { kernel, strides, dilations }: Window): readonly number[] {
  const extra = (attrs.output_padding as readonly number[] | undefined) ?? kernel.map(() => 0);
  const fits = extra.every((n, i) => n >= 0 && n < Math.max(strides[i]!, dilations[i]!));
  if (extra.length !== kernel.length || !fits)
    throw new ArgumentError(
      `its output_padding [${extra.join(", ")}] must be, for each spatial axis, below the stride or the dilation`,
    );
  return extra;
}

// ---------------------------------------------------------------------------------------------- the three sums

const lengths = (x: Tensor): number[] => spatialAxes(x).map((axis) => staticDim(x, axis));

/** Padding behind `big` with which the window fits exactly as often as `small` is long; negative cuts entries off. */
const exactBehind = (big: readonly number[], small: readonly number[], steps: Steps): number[] =>
  small.map((n, i) => {
    const reach = (n - 1) * steps.strides[i]! + extent(steps.kernel[i]!, steps.dilations[i]!);
    return reach - big[i]! - steps.before[i]!;
  });

/** `x` with entries added (negative: cut, after that) at the ends of its spatial axes. */
function padSpatial(x: Tensor, before: readonly number[], behind: readonly number[]): Tensor {
  const none = before.map(() => 0);
  const added = behind.map((n) => Math.max(0, n));
  const cut = behind.map((n) => Math.min(0, n));
  return pad(pad(x, [0, 0, ...before], [0, 0, ...added]), [0, 0, ...none], [0, 0, ...cut]);
}

/** `small`, `size` long, from the other two. */
function smallFrom(big: Tensor, w: Tensor, steps: Steps, groups: number, size: readonly number[]): Tensor {
  const { strides, dilations, before } = steps;
  const behind = exactBehind(lengths(big), size, steps);
  const attrs = { strides, dilations, group: groups };
  if (behind.every((n) => n >= 0)) return op("Conv", [big, w], { ...attrs, pads: [...before, ...behind] });
  return op("Conv", [padSpatial(big, before, behind), w], attrs);
}

/** `big`, `size` long, from the other two. */
function bigFrom(small: Tensor, w: Tensor, steps: Steps, groups: number, size: readonly number[]): Tensor {
  const { strides, dilations, before } = steps;
  const behind = exactBehind(size, lengths(small), steps);
  const pads = [...before, ...behind.map((n) => Math.max(0, n))];
  const output_padding = behind.map((n) => Math.max(0, -n));
  return op("ConvTranspose", [small, w], { strides, dilations, pads, output_padding, group: groups });
}

/** `w` from the other two. */
function weightFrom(big: Tensor, small: Tensor, steps: Steps, groups: number): Tensor {
  const inner = staticDim(big, 1) / groups;
  const taps = steps.kernel.reduce((a, b) => a * b, 1);
  return (inner < taps ? weightByConv : weightByProducts)(big, small, steps, groups);
}

/** The channels of `x` in groups: `[batch, groups, channels of a group, ...spatial]`. */
const grouped = (x: Tensor, groups: number): Tensor =>
  reshape(x, [x.shape[0]!, groups, staticDim(x, 1) / groups, ...x.shape.slice(2)]);

/**
 * One convolution with `small` for its kernel: the channels of a group and the batch change places, and so do strides
 * and dilations. The quicker way for few channels and a large kernel, as in first layers and depthwise convolutions.
 */
function weightByConv(
  big: Tensor,
  small: Tensor,
  { kernel, strides, dilations, before }: Steps,
  groups: number,
): Tensor {
  const swap = (x: Tensor): Tensor => transpose(x, [1, 0, ...spatialAxes(x)]);
  const parts = grouped(big, groups);
  const [batch, , inner] = parts.shape;
  const images = reshape(transpose(parts, [2, 1, 0, ...spatialAxes(big).map((axis) => axis + 1)]), [
    inner!,
    multiplyDims(batch!, groups),
    ...big.shape.slice(2),
  ]);
  const steps = { kernel: lengths(small), strides: dilations, dilations: strides, before };
  return swap(smallFrom(images, swap(small), steps, groups, kernel));
}

/** One matrix product for each entry of the kernel, with what that entry sees of `big`. */
function weightByProducts(big: Tensor, small: Tensor, steps: Steps, groups: number): Tensor {
  const { kernel, strides, dilations, before } = steps;
  const size = lengths(small);
  const axes = spatialAxes(big).map((axis) => axis + 1);
  // [groups, channels of a group, batch, ...spatial]
  const split = (x: Tensor): Tensor => transpose(grouped(x, groups), [1, 2, 0, ...axes]);
  const rows = (x: Tensor): Tensor => reshape(x, [x.shape[0]!, x.shape[1]!, sizeOf(x.shape.slice(2))]);
  const seen = split(padSpatial(big, before, exactBehind(lengths(big), size, steps)));
  const left = rows(split(small));
  const products = offsetsOf(kernel).map((offset) => {
    const starts = offset.map((k, i) => k * dilations[i]!);
    const ends = starts.map((start, i) => start + (size[i]! - 1) * strides[i]! + 1);
    const right = rows(op("Slice", [seen, ints(starts), ints(ends), ints(axes), ints(strides)]));
    return matmul(left, transpose(right));
  });
  return reshape(stack(products, -1), [staticDim(small, 1), staticDim(big, 1) / groups, ...kernel]);
}

/** All positions in a kernel, row-major. */
const offsetsOf = (kernel: readonly number[]): number[][] =>
  kernel.reduce<number[][]>((all, n) => all.flatMap((o) => Array.from({ length: n }, (_, i) => [...o, i])), [[]]);

const biasFrom = (dy: Tensor): Tensor => sum(dy, { axes: [0, ...spatialAxes(dy)] });

// ------------------------------------------------------------------------------------------------- functions

export type { Padding, PerAxis, WindowOptions } from "./window.ts";

export interface ConvOptions extends WindowOptions {
  /** `[out]` */
  bias?: TensorLike | null;
  /** Channels split into this many independent parts; as many as there are channels is a depthwise convolution. */
  groups?: number;
}

/**
 * Convolution of `x [batch, in, ...spatial]` with `weight [out, in / groups, ...kernel]` over 1 to 3 spatial axes (the
 * kernel is not flipped), giving `[batch, out, ...]`.
 * @throws ShapeError, ArgumentError
 */
export function conv(x: TensorLike, weight: TensorLike, options: ConvOptions = {}): Tensor {
  const [image, w] = [asTensor(x), asTensor(weight)];
  return applyConv("Conv", image, w, options, {});
}

export interface ConvTransposeOptions extends ConvOptions {
  /** Entries that padding takes off the ends of the result. */
  padding?: PerAxis<Exclude<Padding, string>>;
  /** Entries added behind the result, where several lengths would convolve to that of `x`. */
  outputPadding?: PerAxis<number>;
}

/**
 * Transposed convolution of `x [batch, in, ...spatial]` with `weight [in, out / groups, ...kernel]`: the gradient of
 * `conv` with respect to its input. Each axis of the result has
 * `(length - 1) * stride + dilation * (kernel - 1) + 1 + outputPadding - padding` entries.
 * @throws ShapeError, ArgumentError
 */
export function convTranspose(x: TensorLike, weight: TensorLike, options: ConvTransposeOptions = {}): Tensor {
  const [image, w] = [asTensor(x), asTensor(weight)];
  const output_padding = perAxis(options.outputPadding ?? 0, w.rank - 2, "outputPadding");
  return applyConv("ConvTranspose", image, w, options, { output_padding });
}

function applyConv(name: string, x: Tensor, w: Tensor, options: ConvOptions, attrs: Attrs): Tensor {
  const { bias, groups = 1 } = options;
  const inputs = bias === undefined || bias === null ? [x, w] : [x, w, asTensor(bias)];
  return op(name, inputs, { ...attrsOfWindow(x, kernelOf(w), options), ...attrs, group: groups });
}
