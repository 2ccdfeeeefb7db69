import { formatShape, sameShape, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import {
  type Attrs,
  applyOp,
  asTensor,
  defineOp,
  type InferContext,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
  type TensorType,
} from "../tensor.ts";
import { axisMap, mapAxis, transposeMap } from "./axis-map.ts";
import { div } from "./elementwise.ts";
import { fill } from "./fill.ts";
import { max, mean } from "./reduce.ts";
import { resize } from "./resize.ts";
import { reshape } from "./shape.ts";
import {
  attrsOfWindow,
  extent,
  outputDims,
  type PerAxis,
  perAxis,
  type WindowOptions,
  windowAttrs,
  windowOf,
  windowOver,
} from "./window.ts";

const kernelOf = (attrs: Attrs): readonly number[] => (attrs.kernel_shape as readonly number[] | undefined) ?? [];
const spatialAxes = (x: Tensor): number[] => x.shape.slice(2).map((_, i) => i + 2);

function checkImage(x: Tensor): void {
  if (x.rank < 3 || x.rank > 5)
    throw new ShapeError(`it takes [batch, channels, ...1 to 3 spatial axes], not ${formatShape(x.shape)}`);
}

function pooledType({ input, attrs }: InferContext): TensorType {
  const [x, kernel] = [input(0), kernelOf(attrs)];
  checkImage(x);
  if (kernel.length !== x.rank - 2)
    throw new ArgumentError(
      `its kernel_shape [${kernel.join(", ")}] needs one entry for each of ${x.rank - 2} spatial axes`,
    );
  const spatial = outputDims(x, attrs, kernel);
  const { strides, dilations, before, behind } = windowOf(attrs, kernel, () => 0);
  const same = (attrs.auto_pad as string | undefined)?.startsWith("SAME") === true;
  kernel.forEach((window, i) => {
    const [length, count, most] = [x.shape[i + 2]!, spatial[i]!, Math.max(before[i]!, behind[i]!)];
    if (most >= window)
      throw new ShapeError(`its padding of ${most} on spatial axis ${i} is not smaller than its window of ${window}`);
    // There, onnxruntime pads by less than nothing.
    if (same && strides[i]! > window + 1)
      throw new ArgumentError(`auto_pad does not go with strides of ${strides[i]} over a window of ${window}`);
    if (same || typeof length !== "number" || typeof count !== "number") return;
    if (most > 0 && dilations[i]! > length)
      throw new ShapeError(`its dilation of ${dilations[i]} steps over all ${length} entries of spatial axis ${i}`);
    // And there it works out another length than its kernel then gives.
    const end = (count - 1) * strides[i]! + extent(window, dilations[i]!);
    if (attrs.ceil_mode === 1 && end < length + before[i]! + behind[i]!)
      throw new ShapeError(
        `with ceil_mode, another window on spatial axis ${i} would start in the padding; cut the entries that it leaves unused`,
      );
  });
  return { dtype: x.dtype, shape: [...x.shape.slice(0, 2), ...spatial] };
}

defineOp({
  name: "MaxPool",
  attrs: { ...windowAttrs, ceil_mode: "int", storage_order: "int" },
  arity: [1, 1],
  infer: (context) => {
    const type = pooledType(context);
    return [type, { dtype: "i64", shape: type.shape } as const].slice(0, context.outputCount);
  },
  vjp: ({ attrs, cotangents, input, outputs }) => {
    const x = input(0);
    // The kernel without indices is several times faster, so they are asked for only here. They count row-major
    // through the whole of `x`.
    const { storage_order: _, ...rest } = attrs;
    const indices = attrs.storage_order !== 1 && outputs[1] ? outputs[1] : applyOp("MaxPool", [x], rest, 2)[1]!;
    const flat = (t: Tensor): Tensor => reshape(t, [-1]);
    const zeros = fill(0, [sizeOf(x.shape)], x.dtype, [x]);
    const given = op("ScatterElements", [zeros, flat(indices), flat(cotangents[0]!)], { axis: 0, reduction: "add" });
    return [reshape(given, x.shape, [x])];
  },
});

defineOp({
  name: "AveragePool",
  attrs: { ...windowAttrs, ceil_mode: "int", count_include_pad: "int" },
  arity: [1, 1],
  infer: (context) => {
    if (!isFloat(context.input(0).dtype))
      throw new DTypeError(`it takes floating-point numbers, not ${context.input(0).dtype}`);
    return [pooledType(context)];
  },
  vjp: ({ attrs, cotangents, input, outputs }) => {
    const x = input(0);
    const { kernel, strides, dilations, before, behind } = windowOver(x, attrs, kernelOf(attrs));
    const axes = spatialAxes(x);
    const sizes = axes.map((axis) => [staticDim(x, axis), staticDim(outputs[0]!, axis)] as const);
    const tiled = sizes.every(
      ([length, result], i) =>
        strides[i] === kernel[i] && result * kernel[i]! === length && dilations[i] === 1 && before[i] === 0,
    );
    // Windows that lie side by side: each hands the same share to all of its entries.
    if (tiled) {
      const share = div(cotangents[0]!, sizeOf(kernel) as number);
      return [resize(share, { scale: kernel, mode: "nearest" })];
    }
    // An average over a box is one of averages along its axes, so its transpose is one small matrix for each.
    let dx = cotangents[0]!;
    sizes.forEach(([length, result], i) => {
      const inside = (at: number): boolean => at >= 0 && at < length;
      const counted = (at: number): boolean => (attrs.count_include_pad === 1 ? at < length + behind[i]! : inside(at));
      const averages = axisMap(length, result, (o) => {
        const taps = Array.from({ length: kernel[i]! }, (_, k) => o * strides[i]! - before[i]! + k * dilations[i]!);
        const count = taps.filter(counted).length;
        return taps.filter(inside).map((at) => [at, 1 / count] as const);
      });
      dx = mapAxis(dx, axes[i]!, transposeMap(averages));
    });
    return [dx];
  },
});

/** What is left of `x` when every spatial axis shrinks to length 1. */
function globalType({ input }: InferContext): readonly TensorType[] {
  const x = input(0);
  checkImage(x);
  if (!isFloat(x.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${x.dtype}`);
  return [{ dtype: x.dtype, shape: x.shape.map((d, i) => (i < 2 ? d : 1)) }];
}

defineOp({
  name: "GlobalAveragePool",
  arity: [1, 1],
  infer: globalType,
  expand: ([x]) => [mean(x!, { axes: spatialAxes(x!), keepDims: true })],
});

defineOp({
  name: "GlobalMaxPool",
  arity: [1, 1],
  infer: globalType,
  expand: ([x]) => [max(x!, { axes: spatialAxes(x!), keepDims: true })],
});

export interface PoolOptions extends WindowOptions {
  /** Steps between neighbouring windows; the window's own length when absent. */
  stride?: PerAxis<number>;
  /** Keep a last window that reaches beyond the padding behind, as long as it starts before it. */
  ceilMode?: boolean;
}

function applyPool(
  name: string,
  value: TensorLike,
  window: PerAxis<number>,
  options: PoolOptions,
  attrs: Attrs,
): Tensor {
  const x = asTensor(value);
  const kernel = perAxis(window, x.rank - 2, "kernel");
  const { stride = kernel, ceilMode = false } = options;
  const placed = attrsOfWindow(x, kernel, { ...options, stride });
  const added =
    ceilMode && !sameShape(outputDims(x, placed, kernel), outputDims(x, { ...placed, ceil_mode: 1 }, kernel));
  return op(name, [x], { ...placed, ...attrs, kernel_shape: kernel, ceil_mode: added ? 1 : 0 });
}

/**
 * Largest entry of each window over `x [batch, channels, ...spatial]`; the gradient goes to the first of equals.
 * @param kernel length of the window.
 * @throws ShapeError, ArgumentError
 */
export function maxPool(x: TensorLike, kernel: PerAxis<number>, options: PoolOptions = {}): Tensor {
  return applyPool("MaxPool", x, kernel, options, {});
}

/**
 * Mean of each window over `x [batch, channels, ...spatial]`.
 * @param kernel length of the window.
 * @param options `countPadding` takes padding for zeros to average, instead of leaving it out.
 * @throws ShapeError, ArgumentError
 */
export function averagePool(
  x: TensorLike,
  kernel: PerAxis<number>,
  options: PoolOptions & { countPadding?: boolean } = {},
): Tensor {
  return applyPool("AveragePool", x, kernel, options, { count_include_pad: options.countPadding ? 1 : 0 });
}

/** Mean over all spatial axes of `x [batch, channels, ...spatial]`, which keep length 1. */
export function globalAveragePool(x: TensorLike): Tensor {
  return op("GlobalAveragePool", [asTensor(x)]);
}

/** Largest entry over all spatial axes of `x [batch, channels, ...spatial]`, which keep length 1. */
export function globalMaxPool(x: TensorLike): Tensor {
  return op("GlobalMaxPool", [asTensor(x)]);
}
