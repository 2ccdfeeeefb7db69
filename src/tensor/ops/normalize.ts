import { type Dim, divideDims, formatShape, sameShape, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import {
  type Attrs,
  applyOp,
  asTensor,
  defineOp,
  type InferContext,
  normalizeAxis,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
  type TensorType,
  type VjpContext,
} from "../tensor.ts";
import { add, cast, div, mul, rsqrt, square, sub } from "./elementwise.ts";
import { fill, sumToLike, zerosLike } from "./fill.ts";
import { mean, norm1, norm2 } from "./reduce.ts";
import { reshape, squeeze } from "./shape.ts";

const epsilonOf = (attrs: Attrs): number => (attrs.epsilon as number | undefined) ?? 1e-5;

function checkFloat(x: Tensor): void {
  if (!isFloat(x.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${x.dtype}`);
}

// ----------------------------------------------------------------------------- over the last axes: layer, RMS

/** The axes that are normalised together: from `axis` to the last. */
function trailingAxes(x: Tensor, attrs: Attrs): number[] {
  const first = normalizeAxis((attrs.axis as number | undefined) ?? -1, x.rank);
  return x.shape.map((_, i) => i).slice(first);
}

/** Checks the inputs, and gives the types of the result and of `statistics` more (one number per row each, in f32). */
function rowTypes({ input, inputs, attrs, outputCount }: InferContext, statistics: number): TensorType[] {
  const [x, ...affine] = [input(0), ...inputs.slice(1)];
  checkFloat(x);
  if (attrs.stash_type !== undefined && attrs.stash_type !== 1)
    throw new ArgumentError(`its statistics are kept in f32 (stash_type 1), not in type ${String(attrs.stash_type)}`);
  const axes = trailingAxes(x, attrs);
  const row = axes.map((a) => x.shape[a]!);
  for (const t of affine) {
    if (!t) continue;
    if (t.dtype !== x.dtype)
      throw new DTypeError(`its inputs differ in element type (${x.dtype} and ${t.dtype}); cast one of them`);
    if (!sameShape(t.shape, row))
      throw new ShapeError(
        `its scale and bias must be ${formatShape(row)}, the axes that it normalises, not ${formatShape(t.shape)}`,
      );
  }
  const statistic: TensorType = { dtype: "f32", shape: x.shape.map((d, i) => (axes.includes(i) ? 1 : d)) };
  return [x, ...Array.from({ length: statistics }, () => statistic)].slice(0, outputCount);
}

interface Statistics {
  /** Absent where nothing is subtracted. */
  mean?: Tensor;
  /** One over the standard deviation, or over the root mean square. */
  inverse: Tensor;
}

function statisticsOf(x: Tensor, attrs: Attrs, centred: boolean): Statistics {
  const options = { axes: trailingAxes(x, attrs), keepDims: true };
  const level = centred ? mean(x, options) : undefined;
  const inverse = rsqrt(add(mean(square(level ? sub(x, level) : x), options), epsilonOf(attrs)));
  return level ? { mean: level, inverse } : { inverse };
}

function normalized(x: Tensor, { mean, inverse }: Statistics): Tensor {
  return mul(mean ? sub(x, mean) : x, inverse);
}

/** The same from simple operations. Outputs: the result, then the statistics. */
function expandRows(inputs: readonly (Tensor | null)[], attrs: Attrs, centred: boolean): Tensor[] {
  const [x, scale, bias] = inputs;
  const statistics = statisticsOf(x!, attrs, centred);
  const y = mul(normalized(x!, statistics), scale!);
  const kept = statistics.mean ? [statistics.mean, statistics.inverse] : [statistics.inverse];
  return [bias ? add(y, bias) : y, ...kept.map((t) => cast(t, "f32"))];
}

/**
 * With n = (x - mean) * inverse and g = dy * scale: dx = inverse * (g - mean(g) - n * mean(g * n)), without the first
 * mean where nothing was subtracted. The statistics that the kernel has computed are read, not computed again.
 */
function rowsVjp({ attrs, cotangents, input, needs, node, outputs }: VjpContext, centred: boolean): (Tensor | null)[] {
  const [x, scale, bias] = [input(0), input(1), node.inputs[2]];
  const statistics = keptStatistics(outputs, centred) ?? statisticsOf(x, attrs, centred);
  const { inverse } = statistics;
  const wide = (t: Tensor): Tensor => cast(t, inverse.dtype);
  const n = normalized(wide(x), statistics);
  const dy = cotangents[0] ? wide(cotangents[0]) : zerosLike(n);

  const inputGradient = (): Tensor => {
    const axes = trailingAxes(x, attrs);
    const average = (t: Tensor): Tensor => mean(t, { axes, keepDims: true });
    const g = mul(dy, wide(scale));
    let level = centred ? average(g) : undefined;
    let along = average(mul(g, n));
    // The statistics are results as well: what comes back through them is spread over their row.
    const [dMean, dInverse] = centred ? [cotangents[1], cotangents[2]] : [null, cotangents[1]];
    const count = (): number => axes.reduce((size, axis) => size * staticDim(x, axis), 1);
    if (level && dMean) level = sub(level, div(wide(dMean), mul(inverse, count())));
    if (dInverse) along = add(along, div(mul(wide(dInverse), inverse), count()));
    return mul(inverse, sub(level ? sub(g, level) : g, mul(n, along)));
  };
  return [
    needs[0] ? cast(inputGradient(), x.dtype) : null,
    needs[1] ? cast(sumToLike(mul(dy, n), scale), scale.dtype) : null,
    bias && needs[2] ? cast(sumToLike(dy, bias), bias.dtype) : null,
  ];
}

/** The statistics among the results; undefined where they were not asked for, or are too coarse: kernels keep f32. */
function keptStatistics([y, ...kept]: readonly Tensor[], centred: boolean): Statistics | undefined {
  if (y!.dtype === "f64" || kept.length < (centred ? 2 : 1)) return undefined;
  return centred ? { mean: kept[0]!, inverse: kept[1]! } : { inverse: kept[0]! };
}

defineOp({
  name: "LayerNormalization",
  attrs: { axis: "int", epsilon: "float", stash_type: "int" },
  arity: [2, 3],
  infer: (context) => rowTypes(context, 2),
  vjp: (context) => rowsVjp(context, true),
  expand: (inputs, attrs, outputCount) => expandRows(inputs, attrs, true).slice(0, outputCount),
});

defineOp({
  name: "SimplifiedLayerNormalization",
  attrs: { axis: "int", epsilon: "float", stash_type: "int" },
  arity: [2, 2],
  nonstandard: true,
  infer: (context) => rowTypes(context, 1),
  vjp: (context) => rowsVjp(context, false),
  expand: (inputs, attrs, outputCount) => expandRows(inputs, attrs, false).slice(0, outputCount),
});

/** An addition and the RMS norm of its sum. Outputs: the norm, two that the CPU leaves empty, and the sum. */
defineOp({
  name: "com.microsoft.SkipSimplifiedLayerNormalization",
  attrs: { epsilon: "float" },
  arity: [3, 3],
  infer: ({ input }) => {
    const sum = add(input(0), input(1));
    const [y, inverse] = applyOp("SimplifiedLayerNormalization", [sum, input(2)], {}, 2);
    return [y!, inverse!, inverse!, sum];
  },
  expand: ([x, skip, scale], attrs) => {
    const sum = add(x!, skip!);
    const [y, inverse] = expandRows([sum, scale!], attrs, false);
    return [y!, inverse!, inverse!, sum];
  },
});

export interface NormOptions {
  /** Added to the variance (or mean square) before its root is taken; default 1e-5. */
  epsilon?: number;
}

export interface RowNormOptions extends NormOptions {
  /** First of the axes that are normalised together; the last axis alone when absent. */
  axis?: number;
}

type Maybe = TensorLike | null | undefined;
const given = (t: Maybe): t is TensorLike => t !== undefined && t !== null;

/**
 * Layer normalisation (Ba et al. 2016): each row of `x` (its entries from `axis` on) with mean 0 and variance 1, then
 * times `scale` plus `bias`, both of the row's shape; leaving them out is 1 and 0.
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function layerNorm(value: TensorLike, scale?: Maybe, bias?: Maybe, options: RowNormOptions = {}): Tensor {
  const x = asTensor(value);
  const attrs = { axis: options.axis ?? -1, epsilon: options.epsilon ?? 1e-5 };
  const inputs = [x, given(scale) ? asTensor(scale) : onesOfRow(x, attrs), ...(given(bias) ? [asTensor(bias)] : [])];
  return applyOp("LayerNormalization", inputs, attrs, 3)[0]!;
}

/**
 * Root-mean-square normalisation (Zhang and Sennrich 2019): each row of `x` (its entries from `axis` on) divided by the
 * root of its mean square, then times `scale`, of the row's shape; leaving it out is 1.
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function rmsNorm(value: TensorLike, scale?: Maybe, options: RowNormOptions = {}): Tensor {
  const x = asTensor(value);
  const attrs = { axis: options.axis ?? -1, epsilon: options.epsilon ?? 1e-5 };
  const inputs = [x, given(scale) ? asTensor(scale) : onesOfRow(x, attrs)];
  return applyOp("SimplifiedLayerNormalization", inputs, attrs, 2)[0]!;
}

function onesOfRow(x: Tensor, attrs: Attrs): Tensor {
  const axes = trailingAxes(x, attrs);
  return fill(
    1,
    axes.map((a) => x.shape[a]!),
    x.dtype,
    [x],
  );
}

// ---------------------------------------------------------------- over channels: group, instance, batch

/** Checks `x [batch, channels, ...]` and that each of `params` has one number per channel. */
function checkChannels({ input, inputs }: InferContext): void {
  const x = input(0);
  checkFloat(x);
  if (x.rank < 2) throw new ShapeError(`it takes [batch, channels, ...], not ${formatShape(x.shape)}`);
  inputs.slice(1).forEach((t, i) => {
    if (t && (t.rank !== 1 || t.shape[0] !== x.shape[1]))
      throw new ShapeError(
        `its input ${i + 1} must be [${x.shape[1]}], one number per channel, not ${formatShape(t.shape)}`,
      );
  });
}

/** One number per channel, shaped to go with `x [batch, channels, ...]`. */
const perChannel = (t: Tensor, x: Tensor): Tensor =>
  cast(reshape(t, [t.shape[0]!, ...x.shape.slice(2).map(() => 1)]), x.dtype);

/** Each group of channels with mean 0 and variance 1, then the channels times `scale` plus `bias`. */
function expandGroups(x: Tensor, groups: Dim, scale: Tensor, bias: Tensor, attrs: Attrs): Tensor {
  // As rows of a layer normalisation, whose kernel keeps the statistics for the gradient.
  const size = divideDims(sizeOf(x.shape.slice(1)), groups)!;
  const rows = layerNorm(reshape(x, [x.shape[0]!, groups, size], [x]), null, null, { epsilon: epsilonOf(attrs) });
  return add(mul(reshape(rows, x.shape, [x]), perChannel(scale, x)), perChannel(bias, x));
}

defineOp({
  name: "GroupNormalization",
  attrs: { epsilon: "float", num_groups: "int", stash_type: "int" },
  arity: [3, 3],
  infer: (context) => {
    checkChannels(context);
    const [channels, groups] = [context.input(0).shape[1]!, context.attrs.num_groups as number];
    if (!(groups >= 1) || divideDims(channels, groups) === undefined)
      throw new ShapeError(`its ${channels} channels do not split into ${groups} groups`);
    return [context.input(0)];
  },
  expand: ([x, scale, bias], attrs) => [expandGroups(x!, attrs.num_groups as number, scale!, bias!, attrs)],
});

defineOp({
  name: "InstanceNormalization",
  attrs: { epsilon: "float" },
  arity: [3, 3],
  infer: (context) => {
    checkChannels(context);
    return [context.input(0)];
  },
  expand: ([x, scale, bias], attrs) => [expandGroups(x!, x!.shape[1]!, scale!, bias!, attrs)],
});

defineOp({
  name: "BatchNormalization",
  attrs: { epsilon: "float", momentum: "float", training_mode: "int" },
  arity: [5, 5],
  infer: (context) => {
    checkChannels(context);
    if (context.attrs.training_mode === 1)
      throw new ArgumentError("it works with given statistics only; batchNorm computes those of a batch");
    return [context.input(0)];
  },
  expand: ([x, scale, bias, mean, variance], attrs) => {
    const factor = mul(scale!, rsqrt(add(variance!, epsilonOf(attrs))));
    const shift = sub(bias!, mul(mean!, factor));
    return [add(mul(x!, perChannel(factor, x!)), perChannel(shift, x!))];
  },
});

/** `scale` and `bias` of `[channels]`, or 1 and 0. */
function affineOf(x: Tensor, scale: Maybe, bias: Maybe): [Tensor, Tensor] {
  const constant = (value: number): Tensor => fill(value, x.shape.slice(1, 2), x.dtype, [x]);
  return [given(scale) ? asTensor(scale) : constant(1), given(bias) ? asTensor(bias) : constant(0)];
}

/**
 * Group normalisation (Wu and He 2018) of `x [batch, channels, ...]`: each group of neighbouring channels of an example
 * with mean 0 and variance 1, then times `scale` plus `bias`, both `[channels]`; leaving them out is 1 and 0.
 * @throws ShapeError, DTypeError
 */
export function groupNorm(
  value: TensorLike,
  groups: number,
  scale?: Maybe,
  bias?: Maybe,
  options: NormOptions = {},
): Tensor {
  const x = asTensor(value);
  const attrs = { num_groups: groups, epsilon: options.epsilon ?? 1e-5 };
  return op("GroupNormalization", [x, ...affineOf(x, scale, bias)], attrs);
}

/** Instance normalisation (Ulyanov et al. 2016): `groupNorm` with every channel for itself. @throws ShapeError, DTypeError */
export function instanceNorm(value: TensorLike, scale?: Maybe, bias?: Maybe, options: NormOptions = {}): Tensor {
  const x = asTensor(value);
  return op("InstanceNormalization", [x, ...affineOf(x, scale, bias)], { epsilon: options.epsilon ?? 1e-5 });
}

export interface BatchNormOptions extends NormOptions {
  /** Mean and variance of every channel, `[channels]` each, to use instead of those of the batch: inference. */
  statistics?: { readonly mean: TensorLike; readonly variance: TensorLike };
}

export interface BatchNormResult {
  y: Tensor;
  /** `[channels]`, of the batch unless other statistics were given. */
  mean: Tensor;
  /** `[channels]`, divided by the count and not by the count minus one. */
  variance: Tensor;
}

/**
 * Batch normalisation (Ioffe and Szegedy 2015) of `x [batch, channels, ...]`: each channel with mean 0 and variance 1
 * over the batch, then times `scale` plus `bias`, both `[channels]`; leaving them out is 1 and 0.
 * @throws ShapeError, DTypeError
 */
export function batchNorm(
  value: TensorLike,
  scale?: Maybe,
  bias?: Maybe,
  options: BatchNormOptions = {},
): BatchNormResult {
  const x = asTensor(value);
  const { epsilon = 1e-5, statistics } = options;
  if (statistics) {
    const known = { mean: asTensor(statistics.mean), variance: asTensor(statistics.variance) };
    const inputs = [x, ...affineOf(x, scale, bias), known.mean, known.variance];
    return { y: op("BatchNormalization", inputs, { epsilon }), ...known };
  }
  const axes = x.shape.flatMap((_, i) => (i === 1 ? [] : [i]));
  const level = mean(x, { axes, keepDims: true });
  const centred = sub(x, level);
  const spread = mean(square(centred), { axes, keepDims: true });
  const unit = rsqrt(add(spread, epsilon));
  const scaled = mul(centred, given(scale) ? mul(unit, perChannel(asTensor(scale), x)) : unit);
  const y = given(bias) ? add(scaled, perChannel(asTensor(bias), x)) : scaled;
  return { y, mean: squeeze(level, axes), variance: squeeze(spread, axes) };
}

// ------------------------------------------------------------------------------------------------- to unit length

defineOp({
  name: "LpNormalization",
  attrs: { axis: "int", p: "int" },
  arity: [1, 1],
  infer: ({ input, attrs }) => {
    const x = input(0);
    checkFloat(x);
    normalizeAxis((attrs.axis as number | undefined) ?? -1, x.rank);
    if (attrs.p !== undefined && attrs.p !== 1 && attrs.p !== 2)
      throw new ArgumentError(`its p must be 1 or 2, not ${String(attrs.p)}`);
    return [x];
  },
  expand: ([x], attrs) => {
    const options = { axes: (attrs.axis as number | undefined) ?? -1, keepDims: true };
    return [div(x!, attrs.p === 1 ? norm1(x!, options) : norm2(x!, options))];
  },
});

/** `x` with length 1 along `axis`: divided by the sum of its absolute values (`p` 1) or its Euclidean norm (`p` 2). */
export function lpNormalize(x: TensorLike, axis = -1, p: 1 | 2 = 2): Tensor {
  return op("LpNormalization", [asTensor(x)], { axis, p });
}
