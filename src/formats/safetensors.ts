import { type DType, dtypes, type TypedArray } from "../tensor/dtype.ts";
import { ArgumentError, DTypeError } from "../tensor/errors.ts";
import { arrayFromBytes, HostTensor } from "../tensor/host.ts";
import type { ByteSource } from "./bytes.ts";
import { FormatError } from "./errors.ts";
import { decodeUtf8, isJsonObject, parseJson } from "./json.ts";
import { checkLimit, type Limits, safetensorsLimits } from "./limits.ts";
import {
  elementCount,
  findTensor,
  type RowRange,
  selectRows,
  type TensorFile,
  type TensorInfo,
} from "./tensor-file.ts";

/** Element types of the format: bits of an element, and what pare reads it as. */
export const safetensorsTypes: ReadonlyMap<string, { readonly bits: number; readonly dtype?: DType }> = new Map([
  ["F64", { bits: 64, dtype: "f64" }],
  ["F32", { bits: 32, dtype: "f32" }],
  ["F16", { bits: 16, dtype: "f16" }],
  ["BF16", { bits: 16, dtype: "bf16" }],
  ["I64", { bits: 64, dtype: "i64" }],
  ["I32", { bits: 32, dtype: "i32" }],
  ["I16", { bits: 16, dtype: "i16" }],
  ["I8", { bits: 8, dtype: "i8" }],
  ["U64", { bits: 64, dtype: "u64" }],
  ["U32", { bits: 32, dtype: "u32" }],
  ["U16", { bits: 16, dtype: "u16" }],
  ["U8", { bits: 8, dtype: "u8" }],
  ["BOOL", { bits: 8, dtype: "bool" }],
  ["C64", { bits: 64 }],
  ["F8_E4M3", { bits: 8 }],
  ["F8_E5M2", { bits: 8 }],
  ["F8_E8M0", { bits: 8 }],
  ["F6_E2M3", { bits: 6 }],
  ["F6_E3M2", { bits: 6 }],
  ["F4", { bits: 4 }],
]);

const encoder = new TextEncoder();

interface Entry extends TensorInfo {
  /** Where its bytes begin in the file. */
  readonly offset: number;
}

/**
 * A file of the safetensors format: the length of a JSON header, the header, then the tensors' bytes without gap
 * or overlap. https://github.com/huggingface/safetensors
 */
export class SafetensorsFile implements TensorFile {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The header's `__metadata__`. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #source: ByteSource;
  readonly #entries: ReadonlyMap<string, Entry>;

  private constructor(source: ByteSource, entries: Map<string, Entry>, metadata: Map<string, string>) {
    this.name = source.name;
    this.tensors = entries;
    this.metadata = metadata;
    this.#source = source;
    this.#entries = entries;
  }

  /** Reads and checks the header; `close` closes the source. @throws FormatError; LimitError */
  static async open(source: ByteSource, limits: Limits<typeof safetensorsLimits> = {}): Promise<SafetensorsFile> {
    const caps = { ...safetensorsLimits, ...limits };
    const where = source.name;
    if (source.size < 8) throw new FormatError(`${where}: ${source.size} bytes are too few for a safetensors file`);
    const prefix = await source.read(0, 8);
    const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
    if (length > BigInt(source.size - 8)) {
      throw new FormatError(
        `${where}: its header claims ${length} bytes, but ${source.size - 8} follow; it is cut short or not a safetensors file`,
      );
    }
    checkLimit(caps, "headerBytes", length, where, "the length of its header");
    const start = 8 + Number(length);
    const header = parseJson(
      decodeUtf8(await source.read(8, Number(length)), `${where}, header`),
      `${where}, header`,
      8,
    );
    if (!isJsonObject(header)) throw new FormatError(`${where}: its header is not a JSON object`);

    const metadata = readMetadata(header["__metadata__"], where);
    const described = Object.entries(header).filter(([name]) => name !== "__metadata__");
    checkLimit(caps, "tensors", described.length, where, "its number of tensors");
    const entries = described.map(([name, value]) => readEntry(name, value, start, caps, where));
    entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
    checkLayout(entries, start, source.size, where);
    return new SafetensorsFile(source, new Map(entries.map((entry) => [entry.name, entry])), metadata);
  }

  async read(name: string, rows?: RowRange): Promise<HostTensor> {
    const entry = findTensor(this.name, this.#entries, name);
    const { dtype } = entry;
    if (!dtype) throw new DTypeError(`${this.name}: "${name}" is ${entry.type}, which pare has no element type for`);
    const { first, count, shape } = selectRows(entry, rows);
    const size = safetensorsTypes.get(entry.type)!.bits / 8;
    const bytes = await this.#source.read(entry.offset + first * size, count * size);
    if (dtype === "bool" && bytes.some((b) => b > 1)) {
      throw new FormatError(`${this.name}: "${name}" is BOOL but holds bytes other than 0 and 1`);
    }
    return new HostTensor(dtype, shape, arrayFromBytes(dtype, bytes, count));
  }

  async readInto(name: string, first: number, into: TypedArray): Promise<void> {
    const { dtype, bytes, offset, type } = findTensor(this.name, this.#entries, name);
    if (!dtype || !(into instanceof dtypes[dtype].array))
      throw new DTypeError(`${this.name}: "${name}" is ${type}, which is not read into ${into.constructor.name}`);
    const at = first * into.BYTES_PER_ELEMENT;
    if (!Number.isSafeInteger(first) || first < 0 || at + into.byteLength > bytes)
      throw new ArgumentError(`${this.name}: "${name}" has no ${into.length} elements from ${first} on`);
    const part = new Uint8Array(into.buffer, into.byteOffset, into.byteLength);
    const source = this.#source;
    if (source.readInto) await source.readInto(offset + at, part);
    else part.set(await source.read(offset + at, into.byteLength));
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function readMetadata(value: unknown, where: string): Map<string, string> {
  if (value === undefined) return new Map();
  if (!isJsonObject(value)) throw new FormatError(`${where}: its __metadata__ is not an object`);
  return new Map(
    Object.entries(value).map(([key, text]) => {
      if (typeof text !== "string") throw new FormatError(`${where}: its metadata "${key}" is not a string`);
      return [key, text];
    }),
  );
}

function readEntry(name: string, value: unknown, start: number, caps: typeof safetensorsLimits, where: string): Entry {
  checkLimit(caps, "nameBytes", encoder.encode(name).length, where, `the length of a name, "${name.slice(0, 40)}",`);
  const bad = (reason: string): FormatError => new FormatError(`${where}: tensor "${name}" ${reason}`);
  if (!isJsonObject(value)) throw bad("is not described by an object");
  const { dtype: type, shape, data_offsets: offsets } = value;
  const known = typeof type === "string" ? safetensorsTypes.get(type) : undefined;
  if (!known) throw bad(`has the unknown element type ${JSON.stringify(type)}`);
  if (!Array.isArray(shape) || !shape.every(isSize)) throw bad("has a shape that is not a list of whole numbers");
  checkLimit(caps, "rank", shape.length, where, `the rank of "${name}"`);
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw bad("has data_offsets that are not two whole numbers");
  }
  const [begin, end] = offsets as [number, number];
  if (end < begin) throw bad(`ends at ${end}, before it begins at ${begin}`);
  const bits = elementCount(shape) * known.bits;
  if (!Number.isSafeInteger(bits) || bits / 8 !== end - begin) {
    throw bad(`of ${type} [${shape.join(", ")}] takes ${bits / 8} bytes, but its offsets span ${end - begin}`);
  }
  return { name, type: type as string, dtype: known.dtype, shape, bytes: end - begin, offset: start + begin };
}

/** Every byte after the header must belong to exactly one tensor, so that nothing can hide in the file. */
function checkLayout(sorted: readonly Entry[], start: number, size: number, where: string): void {
  let at = start;
  for (const { name, offset, bytes } of sorted) {
    if (offset < at)
      throw new FormatError(`${where}: tensor "${name}" at ${offset} overlaps the one that ends at ${at}`);
    if (offset > at) throw new FormatError(`${where}: bytes ${at} to ${offset} belong to no tensor`);
    at += bytes;
  }
  if (at > size) throw new FormatError(`${where}: its tensors end at ${at}, but the file at ${size}; it is cut short`);
  if (at < size) throw new FormatError(`${where}: ${size - at} bytes follow the last tensor`);
}
