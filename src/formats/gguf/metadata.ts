import { FormatError } from "../errors.ts";

/**
 * A typed value of a GGUF file. Numbers of 64 bits are bigints. Arrays of numbers are typed arrays of their type
 * (`bool` as bytes 0 and 1), arrays of strings and of arrays are plain arrays.
 */
export type MetadataValue =
  | { readonly type: NumberType; readonly value: number }
  | { readonly type: "u64" | "i64"; readonly value: bigint }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | MetadataArray;

/** Types of values that take the same number of bytes each. */
export type FixedType = NumberType | "bool" | "u64" | "i64";

export type NumberType = "u8" | "i8" | "u16" | "i16" | "u32" | "i32" | "f32" | "f64";

export type MetadataArray =
  | { readonly type: "array"; readonly of: FixedType; readonly value: NumberArray }
  | { readonly type: "array"; readonly of: "string"; readonly value: readonly string[] }
  | { readonly type: "array"; readonly of: "array"; readonly value: readonly MetadataArray[] };

export type NumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

export type Metadata = ReadonlyMap<string, MetadataValue>;

type NumberArrayConstructor = {
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): NumberArray;
  of(...values: (number | bigint)[]): NumberArray;
  readonly BYTES_PER_ELEMENT: number;
};

/** How values of fixed size are stored: the number that stands for the type, and its array. */
export const fixedTypes: ReadonlyMap<FixedType, { readonly id: number; readonly array: NumberArrayConstructor }> =
  new Map([
    ["u8", { id: 0, array: Uint8Array }],
    ["i8", { id: 1, array: Int8Array }],
    ["u16", { id: 2, array: Uint16Array }],
    ["i16", { id: 3, array: Int16Array }],
    ["u32", { id: 4, array: Uint32Array }],
    ["i32", { id: 5, array: Int32Array }],
    ["f32", { id: 6, array: Float32Array }],
    ["bool", { id: 7, array: Uint8Array }],
    ["u64", { id: 10, array: BigUint64Array }],
    ["i64", { id: 11, array: BigInt64Array }],
    ["f64", { id: 12, array: Float64Array }],
  ] as const);

export const stringId = 8;
export const arrayId = 9;

/** The value at `key` as a number; `fallback` where the key is absent. @throws FormatError */
export function numberAt(metadata: Metadata, key: string, fallback?: number): number {
  const found = metadata.get(key);
  if (!found && fallback !== undefined) return fallback;
  if (typeof found?.value === "number" || typeof found?.value === "bigint") return Number(found.value);
  throw notFound(found, key, "a number");
}

/** The text at `key`; `fallback` where the key is absent. @throws FormatError */
export function stringAt(metadata: Metadata, key: string, fallback?: string): string {
  const found = metadata.get(key);
  if (!found && fallback !== undefined) return fallback;
  if (found?.type === "string") return found.value;
  throw notFound(found, key, "text");
}

/** The list of texts at `key`. @throws FormatError */
export function stringsAt(metadata: Metadata, key: string): readonly string[] {
  const found = metadata.get(key);
  if (found?.type === "array" && found.of === "string") return found.value;
  throw notFound(found, key, "a list of texts");
}

/** The list of numbers at `key`. @throws FormatError */
export function numbersAt(metadata: Metadata, key: string): readonly number[] {
  const found = metadata.get(key);
  if (found?.type === "array" && found.of !== "string" && found.of !== "array") return Array.from(found.value, Number);
  throw notFound(found, key, "a list of numbers");
}

function notFound(found: MetadataValue | undefined, key: string, wanted: string): FormatError {
  return new FormatError(
    found ? `the metadata "${key}" is of type ${found.type}, not ${wanted}` : `there is no metadata "${key}"`,
  );
}
