import {
  arrayFromBytes,
  type DType,
  dtypeFromOnnx,
  dtypes,
  HostTensor,
  storageLength,
  type TypedArray,
} from "../tensor/index.ts";
import { OnnxError } from "./errors.ts";
import type { TensorProto } from "./schema.ts";

/** A range of bytes in a file beside the model. */
export interface ExternalRange {
  /** Path relative to the model's folder: no absolute path, no `..`. */
  readonly location: string;
  readonly offset: number;
  readonly length: number;
}

/** Fetches the bytes of a range; it must return exactly `length` of them. */
export type ExternalData = (range: ExternalRange) => Uint8Array;

/** Elements that no tensor of a real model exceeds. */
export const MAX_ELEMENTS = 2 ** 32;

/** Element types of the format that have no counterpart here. */
const FOREIGN_TYPES: Readonly<Record<number, string>> = {
  0: "undefined",
  8: "string",
  14: "complex64",
  15: "complex128",
  17: "float8e4m3fn",
  18: "float8e4m3fnuz",
  19: "float8e5m2",
  20: "float8e5m2fnuz",
  23: "float4e2m1",
  24: "float8e8m0",
};

/** The element type behind an ONNX number. @throws OnnxError, saying that `what` has a type unknown here. */
export function readDType(number: number | undefined, what: string): DType {
  const dtype = dtypeFromOnnx(number ?? 0);
  if (!dtype) {
    const name = FOREIGN_TYPES[number ?? 0];
    throw new OnnxError(`${what} has element type ${name ?? `number ${number}`}, which pare does not handle`);
  }
  return dtype;
}

/** Number of elements of `dims`. @throws OnnxError for a negative dimension or a count beyond `limit`. */
export function countElements(dims: readonly number[], limit: number, what: string): number {
  let count = 1;
  for (const dim of dims) {
    if (!Number.isInteger(dim) || dim < 0) throw new OnnxError(`${what} has the dimension ${dim}`);
    count *= dim;
  }
  // Where one dimension is zero the others still have to be plausible.
  if (!(count <= limit) || dims.some((d) => d > limit))
    throw new OnnxError(`${what} has shape [${dims.join(", ")}], more than the ${limit} elements that are allowed`);
  return count;
}

/** The typed field that holds elements which are not raw bytes. */
type DataField = "floatData" | "int32Data" | "int64Data" | "doubleData" | "uint64Data";

const dataFields: readonly DataField[] = ["floatData", "int32Data", "int64Data", "doubleData", "uint64Data"];

const dataFieldOf: Readonly<Record<DType, DataField>> = {
  f32: "floatData",
  f64: "doubleData",
  i64: "int64Data",
  u64: "uint64Data",
  u32: "uint64Data",
  i32: "int32Data",
  i16: "int32Data",
  i8: "int32Data",
  u16: "int32Data",
  u8: "int32Data",
  bool: "int32Data",
  f16: "int32Data",
  bf16: "int32Data",
  i4: "int32Data",
  u4: "int32Data",
  i2: "int32Data",
  u2: "int32Data",
};

export interface ReadTensorOptions {
  /** What messages call the tensor. */
  readonly what: string;
  /** Most elements that it may have. */
  readonly limit: number;
  readonly externalData?: ExternalData | undefined;
}

/** What a tensor message says of itself, found to be consistent. */
interface TensorHead {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly count: number;
  /** The list that holds the elements, where neither raw bytes nor another file do. */
  readonly list: DataField | undefined;
  readonly external: ExternalRange | undefined;
}

/**
 * Checks that type, dimensions and amount of data of an ONNX tensor agree; external data are not looked at.
 * @throws OnnxError where they do not.
 */
export function checkTensor(proto: TensorProto, { what, limit }: ReadTensorOptions): TensorHead {
  const dtype = readDType(proto.dataType, what);
  const shape = proto.dims ?? [];
  const count = countElements(shape, limit, what);
  if (proto.segment) throw new OnnxError(`${what} is a segment of a larger tensor, which is not supported`);
  if (proto.stringData?.length) throw new OnnxError(`${what} holds strings but is declared ${dtype}`);
  const external = isExternal(proto, what);
  const [list, ...further] = dataFields.filter((field) => proto[field]?.length);
  const forms = further.length + (list ? 1 : 0) + (proto.rawData?.length ? 1 : 0) + (external ? 1 : 0);
  if (forms > 1) throw new OnnxError(`${what} holds its data in ${forms} places`);
  if (list && list !== dataFieldOf[dtype]) throw new OnnxError(`${what} is ${dtype} but holds ${list}`);
  const [expected, given, unit] = list
    ? [storageLength(dtype, count), proto[list]!.length, "entries"]
    : [bytesOf(dtype, count), proto.rawData?.length ?? 0, "bytes"];
  if (!external && given !== expected)
    throw new OnnxError(`${what} takes ${expected} ${unit} (${count} elements of ${dtype}), but ${given} are there`);
  return {
    dtype,
    shape,
    count,
    list,
    external: external ? externalRange(proto, bytesOf(dtype, count), what) : undefined,
  };
}

/**
 * The numbers of an ONNX tensor: a view of the file's bytes where alignment allows, else a copy.
 * @throws OnnxError where type, dimensions and data do not agree, or external data cannot be had.
 */
export function readTensor(proto: TensorProto, options: ReadTensorOptions): HostTensor {
  const { dtype, shape, count, list, external } = checkTensor(proto, options);
  const { what } = options;
  const data = list
    ? fromList(dtype, proto[list]!, what)
    : arrayFromBytes(dtype, external ? fetchRange(external, options) : (proto.rawData ?? new Uint8Array(0)), count);
  if (dtype === "bool" && (data as Uint8Array).some((b) => b > 1))
    throw new OnnxError(`${what} is bool but holds other values than 0 and 1`);
  return new HostTensor(dtype, shape, data);
}

const bytesOf = (dtype: DType, count: number): number =>
  storageLength(dtype, count) * dtypes[dtype].array.BYTES_PER_ELEMENT;

/** Elements from a list field; half floats and packed types come as the bits of their storage. */
function fromList(dtype: DType, list: readonly (number | bigint)[], what: string): TypedArray {
  const data = new dtypes[dtype].array(list.length);
  list.forEach((entry, i) => {
    const value = dtype === "u32" ? Number(entry) : entry;
    data[i] = value as never;
    if (dtype !== "f32" && dtype !== "f64" && data[i] !== value)
      throw new OnnxError(`${what}: entry ${i} is ${value}, which does not fit ${dtype}`);
  });
  return data;
}

// -------------------------------------------------------------------------------------------- external data

function isExternal(proto: TensorProto, what: string): boolean {
  const location = proto.dataLocation ?? 0;
  if (location !== 0 && location !== 1) throw new OnnxError(`${what} has the unknown data location ${location}`);
  if (location === 0 && proto.externalData?.length)
    throw new OnnxError(`${what} describes external data but does not say that it is external`);
  return location === 1;
}

/** Where the external data of a tensor lies. @throws OnnxError for a location that points out of the model's folder. */
function externalRange(proto: TensorProto, length: number, what: string): ExternalRange {
  const fields = new Map<string, string>();
  for (const { key = "", value = "" } of proto.externalData ?? []) {
    if (fields.has(key)) throw new OnnxError(`${what} gives the ${key} of its external data twice`);
    fields.set(key, value);
  }
  const whole = (key: string, fallback: number): number => {
    const text = fields.get(key);
    if (text === undefined) return fallback;
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isNaN(value))
      throw new OnnxError(`${what}: the ${key} of its external data is "${text}", not a whole number`);
    return value;
  };
  const location = fields.get("location");
  if (!location) throw new OnnxError(`${what} has external data without a location`);
  checkLocation(location, what);
  const range = { location, offset: whole("offset", 0), length: whole("length", length) };
  if (range.length !== length)
    throw new OnnxError(`${what} takes ${length} bytes, but its external data are declared as ${range.length}`);
  return range;
}

function checkLocation(location: string, what: string): void {
  const refuse = (why: string): never => {
    throw new OnnxError(`${what}: the location "${location}" of its external data ${why}`);
  };
  if (location.startsWith("*/")) refuse("is an address in another program's memory");
  if (/[\p{Cc}\\:]/u.test(location)) refuse("has a character that is not part of a plain relative path");
  if (location.startsWith("/")) refuse("is an absolute path");
  if (location.split("/").some((part) => part === ".." || part === "")) refuse("leads out of the model's folder");
}

function fetchRange(range: ExternalRange, { what, externalData }: ReadTensorOptions): Uint8Array {
  if (!externalData)
    throw new OnnxError(
      `${what} keeps its data in the file "${range.location}"; read the model with readOnnxFile, or pass externalData`,
    );
  const bytes = externalData(range);
  if (bytes.byteLength !== range.length)
    throw new OnnxError(
      `${what} takes ${range.length} bytes of "${range.location}", but externalData gave ${bytes.byteLength}`,
    );
  return bytes;
}
