import { attendingLayers, type DecoderConfig } from "../models/index.ts";
import { cast, HostTensor, ints, mul, op, spec, type Tensor, type TensorSpec, unsqueeze } from "../tensor/index.ts";

/** How keys and values are kept: as they are, or as 8-bit whole numbers with one scale for each token and head. */
export type CacheFormat = "f32" | "int8";

type Numbers = Float32Array | Int8Array;

/** Keys and values of one layer. */
export interface KeysAndValues<T> {
  readonly keys: T;
  readonly values: T;
}

/** A layer's keys and values in the arrays that their format is made of, `[texts, rows, width]` each. */
export interface LayerParts<T> extends KeysAndValues<T> {
  readonly keyScales?: T;
  readonly valueScales?: T;
}

/** Which rows of each text: `count` of them from `start` on. */
export interface RowRange {
  readonly start: number;
  readonly count: number;
}

/** Element type and numbers a row of an array. */
interface Part {
  readonly dtype: "f32" | "i8";
  readonly width: number;
}

function partsOf({ kvHeads, headDim }: DecoderConfig, format: CacheFormat): LayerParts<Part> {
  const [rows, scales] = [kvHeads * headDim, { dtype: "f32", width: kvHeads } as const];
  if (format === "f32") return { keys: { dtype: "f32", width: rows }, values: { dtype: "f32", width: rows } };
  const codes = { dtype: "i8", width: rows } as const;
  return { keys: codes, keyScales: scales, values: codes, valueScales: scales };
}

/** Rows as whole numbers up to 127 with their scales, head by head, from head `at` of the arrays on. */
function quantize(rows: Float32Array, headDim: number, codes: Numbers, scales: Numbers, at: number): void {
  for (let head = 0; head * headDim < rows.length; head++) {
    const [from, to] = [head * headDim, (at + head) * headDim];
    let largest = 0;
    for (let i = 0; i < headDim; i++) largest = Math.max(largest, Math.abs(rows[from + i]!));
    scales[at + head] = largest / 127;
    const factor = largest === 0 ? 0 : 127 / largest;
    for (let i = 0; i < headDim; i++) codes[to + i] = Math.round(rows[from + i]! * factor);
  }
}

/** What `quantize` made of rows, inside a program. Faster than onnxruntime's DequantizeLinear, which goes number by number. */
function dequantized({ kvHeads, headDim }: DecoderConfig, codes: Tensor, scales: Tensor): Tensor {
  const heads = op("Reshape", [cast(codes, "f32"), ints([0, 0, kvHeads, headDim])]);
  return op("Reshape", [mul(heads, unsqueeze(scales, 3)), ints([0, 0, kvHeads * headDim])]);
}

/** Types of a layer's arrays for `batch` texts, with the name `rows` for the number of rows. */
export function cacheSpecs(config: DecoderConfig, format: CacheFormat, rows: string): LayerParts<TensorSpec> {
  return mapParts(partsOf(config, format), ({ dtype, width }) => spec(dtype, ["batch", rows, width]));
}

/** A layer's keys and values, `f32 [batch, rows, kvHeads * headDim]`, inside a program. */
export function cachedTensors(config: DecoderConfig, parts: LayerParts<Tensor>): KeysAndValues<Tensor> {
  const { keys, keyScales, values, valueScales } = parts;
  if (!keyScales || !valueScales) return { keys, values };
  return { keys: dequantized(config, keys, keyScales), values: dequantized(config, values, valueScales) };
}

/**
 * Keys and values of the tokens of several texts, text after text in arrays with room for more. Programs read views of
 * them; only growing copies what is there.
 */
export class KeyValueCache {
  readonly #config: DecoderConfig;
  readonly #parts: LayerParts<Part>;
  #layers: readonly LayerParts<Numbers>[];
  #texts = 0;
  #capacity = 0;

  constructor(config: DecoderConfig, format: CacheFormat) {
    this.#config = config;
    this.#parts = partsOf(config, format);
    this.#layers = this.#allocate(0, 0);
  }

  /** Texts that there is room for. */
  get texts(): number {
    return this.#texts;
  }

  /** Rows that each text has room for. */
  get capacity(): number {
    return this.#capacity;
  }

  /** Memory that it takes, in bytes. */
  get bytes(): number {
    let sum = 0;
    this.#eachPart((array) => {
      sum += array.byteLength;
    }, this.#layers);
    return sum;
  }

  /** Makes room for `texts` texts of `rows` rows each; it never becomes less. */
  reserve(texts: number, rows: number): void {
    if (texts <= this.#texts && rows <= this.#capacity) return;
    const [from, held, stride] = [this.#layers, this.#texts, this.#capacity];
    this.#texts = Math.max(texts, held);
    this.#capacity = Math.max(rows, stride);
    this.#layers = this.#allocate(this.#texts, this.#capacity);
    for (let text = 0; text < held; text++)
      this.#eachPart((to, source, width) => {
        const start = text * stride * width;
        to.set(source.subarray(start, start + stride * width), text * this.#capacity * width);
      }, from);
  }

  /**
   * Keeps the rows `[.., kvHeads * headDim]` of further tokens of a text, from row `at` on.
   * @param layer counted among those that have attention, as everywhere here
   */
  write(text: number, at: number, layer: number, rows: KeysAndValues<Float32Array>): void {
    const { kvHeads, headDim } = this.#config;
    const { keys, keyScales, values, valueScales } = this.#layers[layer]!;
    const head = (text * this.#capacity + at) * kvHeads;
    if (keyScales && valueScales) {
      quantize(rows.keys, headDim, keys, keyScales, head);
      quantize(rows.values, headDim, values, valueScales, head);
    } else {
      keys.set(rows.keys, head * headDim);
      values.set(rows.values, head * headDim);
    }
  }

  /** Copies the first `rows` rows of a text from a cache of the same format. */
  copy(from: KeyValueCache, source: number, text: number, rows: number): void {
    this.#eachPart((to, array, width) => {
      const start = source * from.#capacity * width;
      to.set(array.subarray(start, start + rows * width), text * this.#capacity * width);
    }, from.#layers);
  }

  /**
   * A layer's rows of the first `texts` texts, without copying: any range of a single text, else all that there is room
   * for.
   */
  view(layer: number, texts: number, { start, count }: RowRange): LayerParts<HostTensor> {
    const part = (array: Numbers, { dtype, width }: Part): HostTensor =>
      new HostTensor(dtype, [texts, count, width], array.subarray(start * width, (start + texts * count) * width));
    const { keys, keyScales, values, valueScales } = this.#layers[layer]!;
    const parts = this.#parts;
    return {
      keys: part(keys, parts.keys),
      values: part(values, parts.values),
      ...(keyScales && { keyScales: part(keyScales, parts.keyScales!) }),
      ...(valueScales && { valueScales: part(valueScales, parts.valueScales!) }),
    };
  }

  #allocate(texts: number, capacity: number): readonly LayerParts<Numbers>[] {
    const numbers = ({ dtype, width }: Part): Numbers =>
      new (dtype === "i8" ? Int8Array : Float32Array)(texts * capacity * width);
    return attendingLayers(this.#config).map(() => mapParts(this.#parts, numbers));
  }

  /** Visits each array together with the one in the same place of `others`. */
  #eachPart(
    visit: (own: Numbers, other: Numbers, width: number) => void,
    others: readonly LayerParts<Numbers>[],
  ): void {
    this.#layers.forEach((layer, i) => {
      for (const name of Object.keys(this.#parts) as (keyof LayerParts<Part>)[])
        visit(layer[name]!, others[i]![name]!, this.#parts[name]!.width);
    });
  }
}

function mapParts<A, B>(parts: LayerParts<A>, change: (part: A) => B): LayerParts<B> {
  const { keys, keyScales, values, valueScales } = parts;
  return {
    keys: change(keys),
    values: change(values),
    ...(keyScales && { keyScales: change(keyScales) }),
    ...(valueScales && { valueScales: change(valueScales) }),
  };
}
