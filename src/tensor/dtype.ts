import { DTypeError } from "./errors.ts";

/**
 * Element types. `bf16` is a storage type (kernels compute in `f32`); the sub-byte integers are packed,
 * low bits first, several to a byte.
 */
export type DType =
  | "f32"
  | "f16"
  | "bf16"
  | "f64"
  | "i64"
  | "i32"
  | "i16"
  | "i8"
  | "u64"
  | "u32"
  | "u16"
  | "u8"
  | "bool"
  | "i4"
  | "u4"
  | "i2"
  | "u2";

export type TypedArray =
  | Float32Array
  | Float64Array
  | Uint16Array
  | Int16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | Int8Array
  | Uint8Array;

type ArrayConstructor = {
  new (length: number): TypedArray;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): TypedArray;
  readonly BYTES_PER_ELEMENT: number;
};

interface DTypeInfo {
  /** Bits that one element takes. */
  readonly bits: number;
  readonly kind: "float" | "int" | "uint" | "bool";
  /** The typed array that holds it; half floats lie in a `Uint16Array` as raw bits. */
  readonly array: ArrayConstructor;
  /** `TensorProto.DataType` of the ONNX format. */
  readonly onnx: number;
}

const info = (bits: number, kind: DTypeInfo["kind"], array: unknown, onnx: number): DTypeInfo => ({
  bits,
  kind,
  array: array as ArrayConstructor,
  onnx,
});

export const dtypes: Readonly<Record<DType, DTypeInfo>> = {
  f32: info(32, "float", Float32Array, 1),
  u8: info(8, "uint", Uint8Array, 2),
  i8: info(8, "int", Int8Array, 3),
  u16: info(16, "uint", Uint16Array, 4),
  i16: info(16, "int", Int16Array, 5),
  i32: info(32, "int", Int32Array, 6),
  i64: info(64, "int", BigInt64Array, 7),
  bool: info(8, "bool", Uint8Array, 9),
  f16: info(16, "float", Uint16Array, 10),
  f64: info(64, "float", Float64Array, 11),
  u32: info(32, "uint", Uint32Array, 12),
  u64: info(64, "uint", BigUint64Array, 13),
  bf16: info(16, "float", Uint16Array, 16),
  u4: info(4, "uint", Uint8Array, 21),
  i4: info(4, "int", Uint8Array, 22),
  u2: info(2, "uint", Uint8Array, 25),
  i2: info(2, "int", Uint8Array, 26),
};

const byOnnx = new Map<number, DType>((Object.keys(dtypes) as DType[]).map((name) => [dtypes[name].onnx, name]));

/** The element type of an ONNX `DataType` number, or undefined for one that pare has no use for. */
export function dtypeFromOnnx(onnx: number): DType | undefined {
  return byOnnx.get(onnx);
}

export function isDType(name: string): name is DType {
  return Object.hasOwn(dtypes, name);
}

export function isFloat(dtype: DType): boolean {
  return dtypes[dtype].kind === "float";
}

export function isInteger(dtype: DType): boolean {
  const { kind } = dtypes[dtype];
  return kind === "int" || kind === "uint";
}

/** Bytes that `count` elements take; sub-byte types round up to whole bytes. */
export function byteLength(dtype: DType, count: number): number {
  return Math.ceil((dtypes[dtype].bits * count) / 8);
}

/** Length of the typed array that stores `count` elements. */
export function storageLength(dtype: DType, count: number): number {
  return dtypes[dtype].bits < 8 ? byteLength(dtype, count) : count;
}

const byArray = new Map<unknown, DType>([
  [Float32Array, "f32"],
  [Float64Array, "f64"],
  [BigInt64Array, "i64"],
  [BigUint64Array, "u64"],
  [Int32Array, "i32"],
  [Uint32Array, "u32"],
  [Int16Array, "i16"],
  [Uint16Array, "u16"],
  [Int8Array, "i8"],
  [Uint8Array, "u8"],
  [Uint8ClampedArray, "u8"],
]);

/** The element type that a typed array stands for when none is named. @throws DTypeError */
export function dtypeOfArray(array: ArrayBufferView): DType {
  const dtype = byArray.get(array.constructor);
  if (!dtype) throw new DTypeError(`no element type for ${array.constructor.name}; pass a typed array`);
  return dtype;
}

const f32 = new Float32Array(1);
const bits = new Uint32Array(f32.buffer);

/** Single-precision bits of `value` rounded to odd, so that rounding once more, to fewer bits, rounds only once. */
function toOdd(value: number): number {
  f32[0] = value;
  const rounded = f32[0]!;
  if (rounded !== value) {
    if (Math.abs(rounded) > Math.abs(value)) bits[0]!--;
    bits[0]! |= 1;
  }
  return bits[0]!;
}

/** Nearest half-precision bits of `value`, ties to even (IEEE 754 binary16). */
export function toHalf(value: number): number {
  const x = toOdd(value);
  const sign = (x >>> 16) & 0x8000;
  const magnitude = x & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;
  if (magnitude >= 0x38800000) {
    const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
    return sign | ((rounded - 0x38000000) >>> 13);
  }
  if (magnitude < 0x33000000) return sign;
  const exponent = magnitude >>> 23;
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const shift = 126 - exponent;
  const half = 1 << (shift - 1);
  const quotient = mantissa >>> shift;
  const rest = mantissa & ((1 << shift) - 1);
  return sign | (quotient + (rest > half || (rest === half && quotient & 1) ? 1 : 0));
}

/** Value of half-precision bits. */
export function fromHalf(half: number): number {
  const exponent = (half >>> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 0) return (half & 0x8000 ? -1 : 1) * fraction * 2 ** -24;
  bits[0] = ((half & 0x8000) << 16) | ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
  return f32[0]!;
}

/** Nearest bfloat16 bits of `value`, ties to even. */
export function toBfloat(value: number): number {
  const x = toOdd(value);
  if ((x & 0x7fffffff) > 0x7f800000) return ((x >>> 16) | 0x40) & 0xffff;
  return ((x + 0x7fff + ((x >>> 16) & 1)) >>> 16) & 0xffff;
}

/** Value of bfloat16 bits. */
export function fromBfloat(bfloat: number): number {
  bits[0] = bfloat << 16;
  return f32[0]!;
}
