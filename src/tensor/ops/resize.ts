import { type Dim, divideDims, floorDivideDims, formatShape, multiplyDims, sizeOf } from "../dims.ts";
import { ArgumentError, callerLine, ShapeError } from "../errors.ts";
import { HostTensor } from "../host.ts";
import { knownInts } from "../known.ts";
import {
  type Attrs,
  asTensor,
  constant,
  constantOf,
  defineOp,
  ints,
  normalizeAxis,
  op,
  type Tensor,
  type TensorLike,
} from "../tensor.ts";
import { type AxisMap, axisMap, mapAxis, transposeMap } from "./axis-map.ts";
import { mul } from "./elementwise.ts";
import { reshape, transpose } from "./shape.ts";
import { type PerAxis, perAxis } from "./window.ts";

/** What happens to one axis: its old and new length, and new entries per old one. */
interface AxisPlan {
  readonly axis: number;
  readonly length: Dim;
  readonly result: Dim;
  /** Absent where the lengths say it. */
  readonly scale?: number;
}

const choices = {
  mode: ["nearest", "linear", "cubic"],
  coordinate_transformation_mode: [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_crop_and_resize",
  ],
  nearest_mode: ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"],
} as const satisfies Record<string, readonly string[]>;

const float = Math.fround;

/** The axes that change, from the operation's `scales` or `sizes`. */
function planOf(x: Tensor, inputs: readonly (Tensor | null)[], attrs: Attrs): AxisPlan[] {
  const given = (t: Tensor | null | undefined): Tensor | undefined => (t && t.shape[0] !== 0 ? t : undefined);
  const [scales, sizes] = [given(inputs[2]), given(inputs[3])];
  if ((scales === undefined) === (sizes === undefined)) throw new ArgumentError("it needs either scales or sizes");
  const policy = attrs.keep_aspect_ratio_policy ?? "stretch";
  if (policy !== "stretch")
    throw new ArgumentError(`it cannot keep the aspect ratio ("${policy}"); work out the sizes`);
  const axes = ((attrs.axes as readonly number[] | undefined) ?? x.shape.map((_, i) => i)).map((a) =>
    normalizeAxis(a, x.rank),
  );
  const values = sizes ? knownInts(sizes) : constantOf(scales)?.toArray();
  if (!values) throw new ShapeError(`its ${sizes ? "sizes" : "scales"} depend on data`);
  if (values.length !== axes.length)
    throw new ShapeError(`it needs ${axes.length} ${sizes ? "sizes" : "scales"}, not ${values.length}`);
  const plans = axes.map((axis, i): AxisPlan => {
    const [length, value] = [x.shape[axis]!, values[i]!];
    if (typeof value === "number" && value <= 0)
      throw new ArgumentError(`it cannot give axis ${axis} the ${sizes ? "size" : "scale"} ${value}`);
    if (sizes) return { axis, length, result: value };
    return { axis, length, result: scaled(length, value as number), scale: value as number };
  });
  // onnxruntime copies its input where no length changes, even if a scale would have moved its entries a little.
  if (plans.every(({ length, result }) => length === result)) return [];
  return plans.filter(({ length, result, scale = 1 }) => length !== result || scale !== 1);
}

/** Length that scaling gives, rounded down as kernels do it, in single precision. */
function scaled(length: Dim, scale: number): Dim {
  if (typeof length === "number") return Math.floor(float(length * scale));
  if (Number.isInteger(scale)) return multiplyDims(length, scale);
  if (Number.isInteger(1 / scale)) return floorDivideDims(length, 1 / scale);
  throw new ShapeError(`a dimension without a number, "${length}", cannot be scaled by ${scale}`);
}

defineOp({
  name: "Resize",
  attrs: {
    antialias: "int",
    axes: "ints",
    coordinate_transformation_mode: "string",
    cubic_coeff_a: "float",
    exclude_outside: "int",
    extrapolation_value: "float",
    keep_aspect_ratio_policy: "string",
    mode: "string",
    nearest_mode: "string",
  },
  arity: [1, 4],
  infer: ({ input, inputs, attrs }) => {
    const x = input(0);
    const shape = [...x.shape];
    for (const [name, known] of Object.entries<readonly string[]>(choices)) {
      const value = attrs[name];
      if (value !== undefined && !known.includes(value as string))
        throw new ArgumentError(`its ${name} must be one of ${known.join(", ")}, not "${value as string}"`);
    }
    for (const { axis, result } of planOf(x, inputs, attrs)) shape[axis] = result;
    return [{ dtype: x.dtype, shape }];
  },
  // Resizing is linear, and one axis after the other: cotangents take the same maps the other way round.
  vjp: ({ attrs, cotangents, input, node }) => {
    const x = input(0);
    const plans = planOf(x, node.inputs, attrs);
    const maps = plans.map((plan) => mapOf(plan, attrs));
    const factors = maps.map(repeatsOf);
    if (factors.every((k) => k > 0) && plans.every(({ axis }) => axis >= 2) && x.rank >= 3 && x.rank <= 5) {
      const block = x.shape.slice(2).map((_, i) => factors[plans.findIndex(({ axis }) => axis === i + 2)] ?? 1);
      const average = op("AveragePool", [cotangents[0]!], { kernel_shape: block, strides: block });
      return [mul(average, sizeOf(block) as number)];
    }
    return [maps.reduce((dx, map, i) => mapAxis(dx, plans[i]!.axis, transposeMap(map)), cotangents[0]!)];
  },
});

/** How many copies of each entry lie side by side in the result; 0 where that is not all that `map` does. */
function repeatsOf({ length, result, weights }: AxisMap): number {
  const count = result / length;
  return Number.isInteger(count) &&
    weights.every((w, k) => w === (Math.floor((k % result) / count) === Math.floor(k / result) ? 1 : 0))
    ? count
    : 0;
}

/** The place in the old axis that entry `o` of the new one is read from, in single precision like the kernels. */
function sourceOf(o: number, mode: string, length: number, result: number, scale: number): number {
  const half = (): number => float(float(float(o + 0.5) / scale) - 0.5);
  switch (mode) {
    case "half_pixel":
      return half();
    case "pytorch_half_pixel":
      return result > 1 ? half() : 0;
    case "half_pixel_symmetric":
      // Kernels take these last steps in double precision.
      return float(float((length / 2) * float(1 - float(result / float(scale * length)))) + (o + 0.5) / scale - 0.5);
    case "align_corners":
      return result === 1 ? 0 : float((o * (length - 1)) / (result - 1));
    case "asymmetric":
      return float(o / scale);
    default:
      throw new ArgumentError(`Resize has no gradient for the coordinates "${mode}"`);
  }
}

const rounding: Readonly<Record<string, (at: number) => number>> = {
  round_prefer_floor: (at) => Math.ceil(at - 0.5),
  round_prefer_ceil: (at) => Math.floor(at + 0.5),
  floor: Math.floor,
  ceil: Math.ceil,
};

/** Keys' cubic convolution kernel (1981), `a` its slope at distance 1. */
const cubic =
  (a: number) =>
  (distance: number): number => {
    const t = Math.abs(distance);
    if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
    return t < 2 ? ((a * t - 5 * a) * t + 8 * a) * t - 4 * a : 0;
  };

const linear = (distance: number): number => Math.max(0, 1 - Math.abs(distance));

/** What resizing does along one axis. */
function mapOf({ axis, length, result, scale }: AxisPlan, attrs: Attrs): AxisMap {
  if (typeof length !== "number" || typeof result !== "number")
    throw new ShapeError(
      `the gradient of Resize needs axis ${axis} in numbers, but it goes from "${length}" to "${result}"`,
    );
  const ratio = scale ?? float(result / length);
  const coordinates = (attrs.coordinate_transformation_mode as string | undefined) ?? "half_pixel";
  const source = (o: number): number => sourceOf(o, coordinates, length, result, ratio);
  const clamp = (i: number): number => Math.min(length - 1, Math.max(0, i));
  if ((attrs.mode ?? "nearest") === "nearest") {
    const round = rounding[(attrs.nearest_mode as string | undefined) ?? "round_prefer_floor"]!;
    return axisMap(length, result, (o) => [[clamp(round(source(o))), 1]]);
  }
  const [filter, reach] =
    attrs.mode === "cubic" ? [cubic((attrs.cubic_coeff_a as number | undefined) ?? -0.75), 2] : [linear, 1];
  // Widened so far that it covers all entries that shrinking merges.
  const width = attrs.antialias === 1 ? Math.max(1, 1 / ratio) : 1;
  return axisMap(length, result, (o) => {
    const centre = source(o);
    const first = Math.ceil(centre - reach * width);
    const count = Math.floor(centre + reach * width) - first + 1;
    const taps = Array.from({ length: count }, (_, k) => [first + k, filter((first + k - centre) / width)] as const);
    const used = attrs.exclude_outside === 1 ? taps.filter(([i]) => i === clamp(i)) : taps;
    const total = used.reduce((sum, [, weight]) => sum + weight, 0);
    return used.map(([i, weight]) => [clamp(i), weight / total] as const);
  });
}

export interface ResizeOptions {
  /** Lengths of the spatial axes of the result. Either this or `scale` is given. */
  size?: PerAxis<number>;
  /** New entries per old one. */
  scale?: PerAxis<number>;
  /** Default "linear". */
  mode?: (typeof choices.mode)[number];
  /** How places in the result and in `x` correspond; default "half_pixel". */
  coordinates?: Exclude<(typeof choices.coordinate_transformation_mode)[number], "tf_crop_and_resize">;
  /** For "nearest": the entry that a place between two entries takes; default "round_prefer_floor". */
  rounding?: (typeof choices.nearest_mode)[number];
  /** For "linear" and "cubic": average all entries that shrinking merges. Default false. */
  antialias?: boolean;
  /** For "cubic": slope of the kernel at distance 1; default -0.75. */
  cubicSlope?: number;
}

/**
 * `x [batch, channels, ...spatial]` with its spatial axes interpolated to another length.
 * @throws ArgumentError, ShapeError
 */
export function resize(value: TensorLike, options: ResizeOptions): Tensor {
  const x = asTensor(value);
  const { size, scale, mode = "linear", coordinates = "half_pixel", rounding = "round_prefer_floor" } = options;
  if ((size === undefined) === (scale === undefined))
    throw new ArgumentError(`resize needs either a size or a scale${callerLine()}`);
  const axes = x.shape.slice(2).map((_, i) => i + 2);
  const attrs = {
    mode,
    axes,
    coordinate_transformation_mode: coordinates,
    ...(mode === "nearest" ? { nearest_mode: rounding } : { antialias: options.antialias ? 1 : 0 }),
    ...(mode === "cubic" ? { cubic_coeff_a: options.cubicSlope ?? -0.75 } : {}),
  };
  const scales = scale === undefined ? null : perAxis(scale, axes.length, "scale");
  const inputs =
    size === undefined
      ? [x, null, constant(HostTensor.from([...scales!]))]
      : [x, null, null, ints(perAxis(size, axes.length, "size"))];
  const resized = op("Resize", inputs, attrs);
  if (mode !== "cubic" || x.rank === 4) return resized;
  // onnxruntime's cubic kernel works on two axes only.
  return planOf(x, inputs, attrs).reduce((y, plan) => mapAxis(y, plan.axis, mapOf(plan, attrs)), x);
}

// ------------------------------------------------------------------------------- blocks of pixels and channels

function checkBlocks(x: Tensor, block: number): void {
  if (x.rank !== 4) throw new ShapeError(`it takes [batch, channels, height, width], not ${formatShape(x.shape)}`);
  if (!Number.isInteger(block) || block < 1) throw new ArgumentError(`its blocks must be 1 or more long, not ${block}`);
}

/** Blocks of `b * b` channels laid out as pixels. In the channel axis a pixel's place comes before (DCR) or behind it. */
function channelsToPixels(x: Tensor, b: number, mode: "DCR" | "CRD"): Tensor {
  const [n, channels, h, w] = x.shape as [Dim, Dim, Dim, Dim];
  const rest = divideDims(channels, b * b);
  if (rest === undefined) throw new ShapeError(`its ${channels} channels do not split into blocks of ${b} x ${b}`);
  const [parts, perm] =
    mode === "DCR"
      ? [
          [n, b, b, rest, h, w],
          [0, 3, 4, 1, 5, 2],
        ]
      : [
          [n, rest, b, b, h, w],
          [0, 1, 4, 2, 5, 3],
        ];
  return reshape(transpose(reshape(x, parts), perm), [n, rest, multiplyDims(h, b), multiplyDims(w, b)], [x]);
}

/** Blocks of `b * b` pixels laid out as channels, the inverse. */
function pixelsToChannels(x: Tensor, b: number, mode: "DCR" | "CRD"): Tensor {
  const [n, channels, height, width] = x.shape as [Dim, Dim, Dim, Dim];
  const [h, w] = [divideDims(height, b), divideDims(width, b)];
  if (h === undefined || w === undefined)
    throw new ShapeError(`its ${height} x ${width} pixels do not split into blocks of ${b} x ${b}`);
  const perm = mode === "DCR" ? [0, 3, 5, 1, 2, 4] : [0, 1, 3, 5, 2, 4];
  const parts = transpose(reshape(x, [n, channels, h, b, w, b], [x]), perm);
  return reshape(parts, [n, multiplyDims(channels, b * b), h, w], [x]);
}

defineOp({
  name: "DepthToSpace",
  attrs: { blocksize: "int", mode: "string" },
  arity: [1, 1],
  infer: ({ input, attrs }) => {
    checkBlocks(input(0), attrs.blocksize as number);
    const mode = attrs.mode ?? "DCR";
    if (mode !== "DCR" && mode !== "CRD") throw new ArgumentError(`its mode must be DCR or CRD, not "${mode}"`);
    return [channelsToPixels(input(0), attrs.blocksize as number, mode)];
  },
  expand: ([x], attrs) => [channelsToPixels(x!, attrs.blocksize as number, (attrs.mode ?? "DCR") as "DCR" | "CRD")],
});

defineOp({
  name: "SpaceToDepth",
  attrs: { blocksize: "int" },
  arity: [1, 1],
  infer: ({ input, attrs }) => {
    checkBlocks(input(0), attrs.blocksize as number);
    return [pixelsToChannels(input(0), attrs.blocksize as number, "DCR")];
  },
  expand: ([x], attrs) => [pixelsToChannels(x!, attrs.blocksize as number, "DCR")],
});

/**
 * `x [batch, channels * block^2, height, width]` as `[batch, channels, height * block, width * block]`: the
 * sub-pixel layer of Shi et al. 2016.
 * @throws ShapeError, ArgumentError
 */
export function pixelShuffle(x: TensorLike, block: number): Tensor {
  return op("DepthToSpace", [asTensor(x)], { blocksize: block, mode: "CRD" });
}

/** The inverse of `pixelShuffle`. @throws ShapeError, ArgumentError */
export function pixelUnshuffle(x: TensorLike, block: number): Tensor {
  const image = asTensor(x);
  checkBlocks(image, block);
  return pixelsToChannels(image, block, "CRD");
}
