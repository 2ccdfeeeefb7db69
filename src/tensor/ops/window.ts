import { addDims, type Dim, floorDivideDims, type Shape } from "../dims.ts";
import { ArgumentError, callerLine, ShapeError } from "../errors.ts";
import { type AttrKind, type Attrs, staticDim, type Tensor } from "../tensor.ts";

/** One value for all spatial axes, or a list with one for each. */
export type PerAxis<T> = T | readonly T[];

/**
 * Entries added at the ends of a spatial axis: as many on both sides, `[before, behind]`, "same" (the output has
 * `ceil(length / stride)` entries; the odd one goes behind) or "causal" (no output sees an entry that lies behind it).
 */
export type Padding = number | readonly [before: number, behind: number] | "same" | "causal";

/** How a window steps over the spatial axes. Each list has one entry per axis. */
export interface Steps {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Entries of padding in front of the first entry. */
  readonly before: readonly number[];
}

export interface Window extends Steps {
  /** Entries of padding behind the last entry. */
  readonly behind: readonly number[];
}

/** Attributes of every operation that has a window. */
export const windowAttrs = {
  auto_pad: "string",
  dilations: "ints",
  kernel_shape: "ints",
  pads: "ints",
  strides: "ints",
} as const satisfies Record<string, AttrKind>;

/** Entries from the first to the last that a window touches. */
export const extent = (kernel: number, dilation: number): number => dilation * (kernel - 1) + 1;

/** `value` as a list. @throws ArgumentError for a list that does not have one entry per axis. */
export function perAxis<T>(value: PerAxis<T>, axes: number, what: string): readonly T[] {
  if (!Array.isArray(value)) return Array.from({ length: axes }, () => value as T);
  if (value.length !== axes)
    throw new ArgumentError(
      `${what} lists ${value.length} entries for ${axes} spatial ${axes === 1 ? "axis" : "axes"}${callerLine()}`,
    );
  return value as readonly T[];
}

export interface WindowOptions {
  /** Steps between neighbouring windows. */
  stride?: PerAxis<number>;
  padding?: PerAxis<Padding>;
  /** Steps between the entries that a window takes; 1 leaves no holes. */
  dilation?: PerAxis<number>;
}

/** The attributes of a window over the spatial axes of `x`, as `options` describe it. */
export function attrsOfWindow(x: Tensor, kernel: readonly number[], options: WindowOptions): Attrs {
  const axes = kernel.length;
  const strides = perAxis(options.stride ?? 1, axes, "stride");
  const dilations = perAxis(options.dilation ?? 1, axes, "dilation");
  const pads = perAxis(options.padding ?? 0, axes, "padding").map((padding, i): readonly [number, number] => {
    if (typeof padding === "number") return [padding, padding];
    const reach = extent(kernel[i]!, dilations[i]!) - 1;
    if (padding === "causal") return [reach, 0];
    if (padding !== "same") return padding;
    const total = strides[i] === 1 ? reach : samePadding(staticDim(x, i + 2), strides[i]!, reach + 1);
    return [Math.floor(total / 2), Math.ceil(total / 2)];
  });
  return { strides, dilations, pads: pads.map(([before]) => before).concat(pads.map(([, behind]) => behind)) };
}

/** Padding with which a window fits `ceil(length / stride)` times. */
const samePadding = (length: number, stride: number, extent: number): number =>
  Math.max(0, (Math.ceil(length / stride) - 1) * stride + extent - length);

type AutoPad = "NOTSET" | "VALID" | "SAME_UPPER" | "SAME_LOWER";

function autoPadOf(attrs: Attrs): AutoPad {
  const mode = (attrs.auto_pad as string | undefined) ?? "NOTSET";
  if (!["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"].includes(mode))
    throw new ArgumentError(`it has no auto_pad "${mode}"`);
  return mode as AutoPad;
}

function numbersOf(attrs: Attrs, name: string, count: number, least: number): readonly number[] {
  const values = (attrs[name] as readonly number[] | undefined) ?? Array.from({ length: count }, () => least);
  if (values.length !== count)
    throw new ArgumentError(`its ${name} must be ${count} numbers, not [${values.join(", ")}]`);
  if (values.some((v) => v < least))
    throw new ArgumentError(`its ${name} must not be below ${least}: [${values.join(", ")}]`);
  return values;
}

/** The window in numbers; `auto_pad` asks `total` for the padding of an axis, both ends together. */
export function windowOf(
  attrs: Attrs,
  kernel: readonly number[],
  total: (axis: number, stride: number, extent: number) => number,
): Window {
  if (kernel.some((k) => k < 1)) throw new ArgumentError(`its window [${kernel.join(", ")}] is empty`);
  const axes = kernel.length;
  const strides = numbersOf(attrs, "strides", axes, 1);
  const dilations = numbersOf(attrs, "dilations", axes, 1);
  const mode = autoPadOf(attrs);
  if (mode === "NOTSET" || mode === "VALID") {
    const pads = numbersOf(mode === "VALID" ? {} : attrs, "pads", 2 * axes, 0);
    return { kernel, strides, dilations, before: pads.slice(0, axes), behind: pads.slice(axes) };
  }
  const totals = kernel.map((k, i) => total(i, strides[i]!, extent(k, dilations[i]!)));
  const [less, more] = [totals.map((t) => Math.floor(t / 2)), totals.map((t) => Math.ceil(t / 2))];
  const [before, behind] = mode === "SAME_UPPER" ? [less, more] : [more, less];
  return { kernel, strides, dilations, before, behind };
}

/** The window that steps over `x [batch, channels, ...spatial]`. @throws ShapeError where that needs a named length. */
export function windowOver(x: Tensor, attrs: Attrs, kernel: readonly number[]): Window {
  return windowOf(attrs, kernel, (i, stride, extent) => samePadding(staticDim(x, i + 2), stride, extent));
}

/** How often the window fits along each spatial axis of `x`. @throws ShapeError where it does not fit once. */
export function outputDims(x: Tensor, attrs: Attrs, kernel: readonly number[]): Shape {
  const spatial = x.shape.slice(2);
  const { strides, dilations, before, behind } = windowOf(attrs, kernel, () => 0);
  if (autoPadOf(attrs).startsWith("SAME")) {
    // onnxruntime leaves the dilation out of account, or refuses.
    if (dilations.some((d) => d > 1)) throw new ArgumentError("auto_pad does not go with dilations; give its pads");
    return spatial.map((d, i) => floorDivideDims(addDims(d, strides[i]! - 1), strides[i]!));
  }
  return spatial.map((length, i): Dim => {
    const [stride, size, padding] = [strides[i]!, extent(kernel[i]!, dilations[i]!), before[i]! + behind[i]!];
    const free = addDims(length, padding - size);
    if (typeof free === "number" && free < 0)
      throw new ShapeError(
        `its window covers ${size} entries, but spatial axis ${i} has ${length} and padding of ${padding}`,
      );
    const whole = addDims(floorDivideDims(free, stride), 1);
    if (attrs.ceil_mode !== 1) return whole;
    // One more may stick out behind, if it does not start in the padding there.
    if (typeof whole === "number" && typeof length === "number")
      return (free as number) % stride !== 0 && whole * stride < length + before[i]! ? whole + 1 : whole;
    if (behind[i]! + stride > size)
      throw new ShapeError(`with ceil_mode, spatial axis ${i} must be a number here, but it is "${length}"`);
    return addDims(floorDivideDims(addDims(free, stride - 1), stride), 1);
  });
}
