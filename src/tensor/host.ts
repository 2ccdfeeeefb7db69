import {
  byteLength,
  type DType,
  dtypeOfArray,
  dtypes,
  fromBfloat,
  fromHalf,
  isFloat,
  storageLength,
  type TypedArray,
  toBfloat,
  toHalf,
} from "./dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "./errors.ts";

type Nested = number | bigint | boolean | readonly Nested[];

/** Number of elements of a shape. @throws ShapeError for a fractional or negative dimension. */
function countOf(shape: readonly number[]): number {
  if (shape.some((n) => !Number.isSafeInteger(n) || n < 0)) {
    throw new ShapeError(`a host tensor needs whole, non-negative dimensions, not [${shape.join(", ")}]`);
  }
  return shape.reduce((a, b) => a * b, 1);
}

const halves: Partial<Record<DType, { decode: (bits: number) => number; encode: (value: number) => number }>> = {
  f16: { decode: fromHalf, encode: toHalf },
  bf16: { decode: fromBfloat, encode: toBfloat },
};

/** Whether the entries of the typed array are the elements themselves, as plain numbers. */
function isPlain(dtype: DType): boolean {
  const { bits, array } = dtypes[dtype];
  return bits >= 8 && !halves[dtype] && array !== dtypes.i64.array && array !== dtypes.u64.array;
}

/**
 * A tensor whose numbers lie in this process's memory, row-major. Half floats are kept as raw bits in a
 * `Uint16Array`, sub-byte integers packed in a `Uint8Array` (low bits first), booleans as 0 and 1.
 */
export class HostTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: TypedArray;
  /** Number of elements. */
  readonly size: number;

  /** @throws ShapeError when `data` does not hold exactly the elements of `shape`. */
  constructor(dtype: DType, shape: readonly number[], data: TypedArray) {
    const { array } = dtypes[dtype];
    if (!(data instanceof (array as unknown as new () => TypedArray))) {
      throw new DTypeError(
        `a ${dtype} tensor is stored in ${(array as unknown as { name: string }).name}, not in ${data.constructor.name}`,
      );
    }
    const size = countOf(shape);
    const expected = storageLength(dtype, size);
    if (data.length !== expected) {
      throw new ShapeError(
        `${dtype} [${shape.join(", ")}] takes ${expected} stored elements, but ${data.length} were given`,
      );
    }
    this.dtype = dtype;
    this.shape = shape;
    this.data = data;
    this.size = size;
  }

  /** Bytes that the elements take. */
  get bytes(): number {
    return byteLength(this.dtype, this.size);
  }

  static zeros(dtype: DType, shape: readonly number[]): HostTensor {
    const { array } = dtypes[dtype];
    return new HostTensor(dtype, shape, new array(storageLength(dtype, countOf(shape))));
  }

  /**
   * From nested numbers (`[[1, 2], [3, 4]]`), a scalar, or a typed array with its shape. Numbers are `f32`,
   * bigints `i64`, booleans `bool` unless `dtype` says otherwise.
   */
  static from(values: Nested | TypedArray, options: { dtype?: DType; shape?: readonly number[] } = {}): HostTensor {
    if (ArrayBuffer.isView(values)) {
      const dtype = options.dtype ?? dtypeOfArray(values);
      const { buffer, byteOffset, length } = values as TypedArray;
      // A clamped array, as canvases give it, holds the same bytes.
      const clamped = (values as unknown) instanceof Uint8ClampedArray;
      const data = clamped ? new Uint8Array(buffer, byteOffset, length) : (values as TypedArray);
      return new HostTensor(dtype, options.shape ?? [length], data);
    }
    const flat: (number | bigint | boolean)[] = [];
    const shape: number[] = [];
    const uneven = "nested arrays of unequal depth do not form a tensor";
    const walk = (value: Nested, depth: number): void => {
      if (!Array.isArray(value)) {
        if (depth !== shape.length) throw new ShapeError(uneven);
        flat.push(value as number);
        return;
      }
      if (depth === shape.length) {
        if (flat.length > 0) throw new ShapeError(uneven);
        shape.push(value.length);
      } else if (shape[depth] !== value.length) {
        throw new ShapeError(
          `ragged rows do not form a tensor: ${value.length} entries where ${shape[depth]} were expected at depth ${depth}`,
        );
      }
      for (const inner of value as readonly Nested[]) walk(inner, depth + 1);
    };
    walk(values as Nested, 0);
    const first = flat[0];
    const dtype = options.dtype ?? (typeof first === "bigint" ? "i64" : typeof first === "boolean" ? "bool" : "f32");
    const result = HostTensor.zeros(dtype, options.shape ?? shape);
    if (result.size !== flat.length)
      throw new ShapeError(`${flat.length} values do not fill [${result.shape.join(", ")}]`);
    for (const [i, value] of flat.entries()) result.set(i, typeof value === "boolean" ? Number(value) : value);
    return result;
  }

  /**
   * Element `index` in row-major order, as a number (`i64` beyond 2^53 loses precision).
   * @throws ArgumentError where there is no such element.
   */
  at(index: number): number {
    this.#check(index);
    const { bits, kind } = dtypes[this.dtype];
    if (bits < 8) {
      const per = 8 / bits;
      const raw = ((this.data[Math.floor(index / per)] as number) >>> (bits * (index % per))) & ((1 << bits) - 1);
      return kind === "int" && raw >= 1 << (bits - 1) ? raw - (1 << bits) : raw;
    }
    const raw = this.data[index]!;
    const half = halves[this.dtype];
    return half ? half.decode(raw as number) : Number(raw);
  }

  /**
   * Stores `value` at `index` in row-major order: rounded to the nearest float, or cut to an integer and wrapped
   * around like a typed array's entry.
   * @throws ArgumentError where there is no such element, or for NaN and infinities in 64-bit integers.
   */
  set(index: number, value: number | bigint): void {
    this.#check(index);
    const { bits } = dtypes[this.dtype];
    const data = this.data as Uint16Array;
    if (bits === 64 && !isFloat(this.dtype)) {
      if (typeof value === "number" && !Number.isFinite(value)) {
        throw new ArgumentError(`${value} cannot be stored as ${this.dtype}`);
      }
      (this.data as BigInt64Array)[index] = typeof value === "bigint" ? value : BigInt(Math.trunc(value));
      return;
    }
    const number = Number(value);
    if (bits < 8) {
      const per = 8 / bits;
      const byte = Math.floor(index / per);
      const shift = bits * (index % per);
      const mask = (1 << bits) - 1;
      data[byte] = (data[byte]! & ~(mask << shift)) | ((number & mask) << shift);
    } else if (halves[this.dtype]) data[index] = halves[this.dtype]!.encode(number);
    else if (this.dtype === "bool") data[index] = number === 0 ? 0 : 1;
    else data[index] = number;
  }

  #check(index: number): void {
    if (!(index >= 0 && index < this.size)) {
      throw new ArgumentError(`there is no element ${index} in a tensor with ${this.size} elements`);
    }
  }

  /** All elements as numbers, row-major. */
  toArray(): number[] {
    return Array.from({ length: this.size }, (_, i) => this.at(i));
  }

  /** The single element of a one-element tensor. @throws ShapeError */
  item(): number {
    if (this.size !== 1)
      throw new ShapeError(`item() needs one element, this tensor has shape [${this.shape.join(", ")}]`);
    return this.at(0);
  }

  /** The same numbers under another shape; memory is shared. */
  reshape(shape: readonly number[]): HostTensor {
    return new HostTensor(this.dtype, shape, this.data);
  }

  /** A copy in another element type; memory is shared only when the type is already right. */
  cast(dtype: DType): HostTensor {
    if (dtype === this.dtype) return this;
    const result = HostTensor.zeros(dtype, this.shape);
    const [from, to] = [this.data as Float32Array, result.data as Float32Array];
    const [decode, encode] = [halves[this.dtype]?.decode, halves[dtype]?.encode];
    if (this.dtype === "f32" && dtype === "bf16") narrow(from, result.data as Uint16Array);
    else if (this.dtype === "bf16" && dtype === "f32") widen(this.data as Uint16Array, to);
    else if (isPlain(this.dtype) && isPlain(dtype) && dtype !== "bool") to.set(from);
    else if (decode && isPlain(dtype) && dtype !== "bool")
      for (let i = 0; i < from.length; i++) to[i] = decode(from[i]!);
    else if (encode && isPlain(this.dtype)) for (let i = 0; i < from.length; i++) to[i] = encode(from[i]!);
    else for (let i = 0; i < this.size; i++) result.set(i, this.at(i));
    return result;
  }

  clone(): HostTensor {
    return new HostTensor(this.dtype, this.shape, this.data.slice() as TypedArray);
  }

  /** The raw little-endian bytes; a view, not a copy. */
  rawBytes(): Uint8Array {
    return new Uint8Array(this.data.buffer, this.data.byteOffset, this.data.byteLength);
  }
}

/** Nearest bfloat16 bits of single-precision numbers, ties to even: what `toBfloat` does, without its detour for doubles. */
function narrow(from: Float32Array, to: Uint16Array): void {
  const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i]!;
    to[i] = (x & 0x7fffffff) > 0x7f800000 ? (x >>> 16) | 0x40 : (x + 0x7fff + ((x >>> 16) & 1)) >>> 16;
  }
}

/** The values of bfloat16 bits. */
function widen(from: Uint16Array, to: Float32Array): void {
  const bits = new Uint32Array(to.buffer, to.byteOffset, to.length);
  for (let i = 0; i < bits.length; i++) bits[i] = from[i]! << 16;
}

/** A typed array over (or, where alignment forbids, copied from) raw little-endian bytes. */
export function arrayFromBytes(dtype: DType, bytes: Uint8Array, count: number): TypedArray {
  const { array } = dtypes[dtype];
  const length = storageLength(dtype, count);
  if (bytes.byteLength !== length * array.BYTES_PER_ELEMENT) {
    throw new ShapeError(
      `${count} ${dtype} elements take ${length * array.BYTES_PER_ELEMENT} bytes, but ${bytes.byteLength} were given`,
    );
  }
  if (bytes.byteOffset % array.BYTES_PER_ELEMENT === 0) return new array(bytes.buffer, bytes.byteOffset, length);
  // Not slice(): that of a Node Buffer shares its memory.
  return new array(new Uint8Array(bytes).buffer, 0, length);
}
