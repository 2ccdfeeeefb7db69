import { broadcastShapes, type Dim, formatShape, sameShape, sizeOf } from "../dims.ts";
import { isFloat } from "../dtype.ts";
import { ArgumentError, callerLine, DTypeError, ShapeError } from "../errors.ts";
import {
  applyOp,
  asTensor,
  type Attrs,
  defineOp,
  normalizeAxis,
  op,
  type Tensor,
  type TensorLike,
  type TensorType,
  type VjpContext,
} from "../tensor.ts";
import { abs, add, cast, div, mul, rsqrt, sqrt, square, sub } from "./elementwise.ts";
import { fill, sumToLike } from "./fill.ts";
import { mean, sum } from "./reduce.ts";
import { reshape } from "./shape.ts";

const epsilonOf = (attrs: Attrs): number => (attrs.epsilon as number | undefined) ?? 1e-5;

function checkFloats(inputs: readonly (Tensor | null)[]): void {
  const [x] = inputs;
  if (!isFloat(x!.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${x!.dtype}`);
  for (const t of inputs)
    if (t && t.dtype !== x!.dtype)
      throw new DTypeError(`its inputs differ in element type (${x!.dtype} and ${t.dtype}); cast one of them`);
}

// ----------------------------------------------------------------------------- over the last axes: layer, RMS

/** The axes that are normalised together: from `axis` to the last. */
function trailingAxes(x: Tensor, attrs: Attrs): number[] {
  const first = normalizeAxis((attrs.axis as number | undefined) ?? -1, x.rank);
  return x.shape.map((_, i) => i).slice(first);
}

/** Checks the inputs, and gives the types of the result and of the `statistics` (each one number per row, in f32). */
function rowTypes(inputs: readonly (Tensor | null)[], attrs: Attrs, statistics: number): TensorType[] {
  const [x, ...affine] = inputs;
  if (!x) throw new ArgumentError("its input 0 is missing");
  checkFloats(inputs);
  if (attrs.stash_type !== undefined && attrs.stash_type !== 1)
    throw new ArgumentError(`its statistics are kept in f32 (stash_type 1), not in type ${String(attrs.stash_type)}`);
  const axes = trailingAxes(x, attrs);
  for (const t of affine) {
    const shape = t ? broadcastShapes(x.shape, t.shape) : x.shape;
    if (!shape || !sameShape(shape, x.shape))
      throw new ShapeError(
        `its scale and bias must be ${formatShape(axes.map((a) => x.shape[a]!))}, the axes it normalises, not ${formatShape(t!.shape)}`,
      );
  }
  const row: TensorType = { dtype: "f32", shape: x.shape.map((d, i) => (axes.includes(i) ? 1 : d)) };
  return [x, ...Array.from({ length: statistics }, () => row)];
}

interface Statistics {
  /** Absent where nothing is subtracted. */
  mean?: Tensor;
  /** One over the standard deviation, or the root mean square. */
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
 * With n = (x - mean) * inverse and g = dy * scale, dx = inverse * (g - mean(g) - n * mean(g * n)), where the first
 * mean falls away if nothing was subtracted. The statistics that the kernel has computed are read, not computed again.
 */
function rowsVjp({ attrs, cotangents, input, needs, node, outputs }: VjpContext, centred: boolean): (Tensor | null)[] {
  const [x, scale, bias] = [input(0), input(1), node.inputs[2]];
  const kept = outputs.slice(1);
  // Kernels round the statistics to f32, which is too coarse for f64; and a graph need not ask for them.
  const whole = x.dtype !== "f64" && kept.length === (centred ? 2 : 1);
  const statistics = !whole
    ? statisticsOf(x, attrs, centred)
    : centred
      ? { mean: kept[0]!, inverse: kept[1]! }
      : { inverse: kept[0]! };
  const { inverse } = statistics;
  const wide = (t: Tensor): Tensor => cast(t, inverse.dtype);
  const n = normalized(wide(x), statistics);
  const [dMean, dInverse] = centred ? [cotangents[1], cotangents[2]] : [null, cotangents[1]];
  const axes = trailingAxes(x, attrs);
  const average = (t: Tensor): Tensor => mean(t, { axes, keepDims: true });
  const dy = cotangents[0] ? wide(cotangents[0]) : null;

  const dx = (): Tensor => {
    const g = dy ? mul(dy, wide(scale)) : fill(0, x.shape, inverse.dtype, [x]);
    let along = average(mul(g, n));
    let level = centred ? average(g) : undefined;
    // The statistics are results too: what flows back through them is spread over their row.
    const share = (): Tensor => div(1, count)
    return mul(inverse, g)
  };
  return [needs[0] ? cast(dx(), x.dtype) : null];
}
