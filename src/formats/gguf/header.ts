import type { ByteSource } from "../bytes.ts";
import { FormatError } from "../errors.ts";
import { decodeUtf8 } from "../json.ts";
import { checkLimit, type ggufLimits } from "../limits.ts";
import { elementCount, type TensorInfo } from "../tensor-file.ts";
import { canDequantize } from "./dequantize.ts";
import {
  arrayId,
  type FixedType,
  fixedTypes,
  type Metadata,
  type MetadataArray,
  type MetadataValue,
  type NumberArray,
  stringId,
} from "./metadata.ts";
import { type GgmlType, ggmlTypesById } from "./types.ts";

export interface GgufEntry extends TensorInfo {
  readonly encoding: GgmlType;
  /** Where its bytes begin in the file. */
  readonly offset: number;
}

export interface GgufHeader {
  readonly version: number;
  readonly metadata: Metadata;
  /** In the order in which they lie in the file. */
  readonly entries: readonly GgufEntry[];
}

type Caps = typeof ggufLimits;

/** The part of the file in memory ended before the header did. */
class Incomplete {
  readonly needed: number;

  constructor(needed: number) {
    this.needed = needed;
  }
}

/** Bytes that hold the header of nearly every file, vocabulary included. */
const firstPart = 2 ** 24;

/**
 * Reads and checks everything before the tensors' data. The header does not say how long it is, so a part of the
 * file is tried, then four times as much. @throws FormatError; LimitError
 */
export async function readGgufHeader(source: ByteSource, caps: Caps): Promise<GgufHeader> {
  for (let length = firstPart; ; ) {
    const bytes = await source.read(0, Math.min(length, caps.headerBytes, source.size));
    try {
      return parse(new Reader(bytes, source, caps));
    } catch (error) {
      if (!(error instanceof Incomplete)) throw error;
      checkLimit(caps, "headerBytes", error.needed, source.name, "the length of its header");
      length = Math.max(error.needed, Math.min(4 * length, caps.headerBytes));
    }
  }
}

function parse(reader: Reader): GgufHeader {
  const { caps, where, size } = reader;
  if (size < 24) throw new FormatError(`${where}: ${size} bytes are too few for a GGUF file`);
  const magic = reader.u32();
  if (magic !== 0x46554747) throw new FormatError(`${where}: it does not begin with "GGUF"`);
  const version = reader.u32();
  if (version !== 2 && version !== 3) {
    const swapped = version > 0xffff ? "; it is of a big-endian machine" : "";
    throw new FormatError(`${where}: GGUF version ${version} is not one of 2 and 3${swapped}`);
  }
  const tensors = reader.count("tensors", "its number of tensors");
  const keys = reader.count("keys", "its number of metadata keys");

  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < keys; i++) {
    const key = reader.string("keyBytes", `the length of metadata key ${i}`);
    if (metadata.has(key)) throw new FormatError(`${where}: the metadata "${key}" is there twice`);
    metadata.set(key, reader.value(key));
  }
  const alignment = readAlignment(metadata, caps, where);

  const described = Array.from({ length: tensors }, (_, i) => readEntry(reader, i));
  const names = new Set<string>();
  for (const { name } of described) {
    if (names.has(name)) throw new FormatError(`${where}: two tensors are called "${name}"`);
    names.add(name);
  }
  const start = padded(reader.at, alignment);
  const entries = described.map((entry) => ({ ...entry, offset: start + entry.offset }));
  entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  checkLayout(entries, tensors > 0 ? start : reader.at, alignment, size, where);
  return { version, metadata, entries };
}

export function padded(length: number, alignment: number): number {
  return Math.ceil(length / alignment) * alignment;
}

export const defaultAlignment = 32;

function readAlignment(metadata: Metadata, caps: Caps, where: string): number {
  const found = metadata.get("general.alignment");
  if (!found) return defaultAlignment;
  if (found.type !== "u32") throw new FormatError(`${where}: its general.alignment is of type ${found.type}, not u32`);
  checkLimit(caps, "alignment", found.value, where, "its general.alignment");
  if (found.value === 0 || (found.value & (found.value - 1)) !== 0) {
    throw new FormatError(`${where}: its general.alignment of ${found.value} is not a power of two`);
  }
  return found.value;
}

/** A tensor's entry, with its offset relative to the first tensor's data. */
function readEntry(reader: Reader, i: number): GgufEntry {
  const { caps, where } = reader;
  const name = reader.string("nameBytes", `the length of the name of tensor ${i}`);
  const bad = (reason: string): FormatError => new FormatError(`${where}: tensor "${name}" ${reason}`);
  const rank = reader.u32();
  checkLimit(caps, "rank", rank, where, `the rank of "${name}"`);
  const dims = Array.from({ length: rank }, () => reader.count("dimension", `a dimension of "${name}"`));
  const id = reader.u32();
  const encoding = ggmlTypesById.get(id);
  if (!encoding) throw bad(`has the unknown element type ${id}`);
  // The file lists the innermost dimension first.
  const shape = dims.toReversed();
  const row = dims[0] ?? 1;
  if (row % encoding.block !== 0) {
    throw bad(`has rows of ${row}, which are not whole ${encoding.name} blocks of ${encoding.block}`);
  }
  const bytes = (elementCount(shape) / encoding.block) * encoding.bytes;
  if (!Number.isSafeInteger(elementCount(shape)) || !Number.isSafeInteger(bytes)) {
    throw bad(`of ${encoding.name} [${shape.join(", ")}] has more elements than can be counted`);
  }
  const dtype = encoding.dtype ?? (canDequantize(encoding.name) ? "f32" : undefined);
  return { name, type: encoding.name, dtype, shape, bytes, encoding, offset: reader.u64() };
}

/** Tensors follow each other, each padded to the alignment, to the end of the file. */
function checkLayout(
  sorted: readonly GgufEntry[],
  start: number,
  alignment: number,
  size: number,
  where: string,
): void {
  let at = start;
  let end = start;
  for (const { name, offset, bytes } of sorted) {
    if (offset < at)
      throw new FormatError(`${where}: tensor "${name}" at ${offset} overlaps the one that ends at ${at}`);
    if (offset > at) throw new FormatError(`${where}: tensor "${name}" is at ${offset} where ${at} was expected`);
    end = offset + bytes;
    at = padded(end, alignment);
  }
  if (end > size)
    throw new FormatError(`${where}: its tensors end at ${end}, but the file at ${size}; it is cut short`);
  const rest = size - padded(end, alignment);
  if (rest > 0) throw new FormatError(`${where}: ${rest} bytes follow the last tensor`);
}

/** Walks over the beginning of a file. Counts are checked against the file's size before anything is made of them. */
class Reader {
  at = 0;
  readonly where: string;
  readonly size: number;
  readonly caps: Caps;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, source: ByteSource, caps: Caps) {
    this.where = source.name;
    this.size = source.size;
    this.caps = caps;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Steps over `length` bytes and returns where they begin. */
  #step(length: number): number {
    const start = this.at;
    if (start + length > this.size) {
      throw new FormatError(`${this.where}: ${length} bytes at offset ${start} lie beyond its ${this.size} bytes`);
    }
    if (start + length > this.#bytes.length) throw new Incomplete(start + length);
    this.at = start + length;
    return start;
  }

  u32(): number {
    return this.#view.getUint32(this.#step(4), true);
  }

  /** @throws FormatError from 2^53 on, which no count or offset of a file can reach */
  u64(): number {
    const start = this.#step(8);
    const high = this.#view.getUint32(start + 4, true);
    if (high >= 2 ** 21) {
      const value = this.#view.getBigUint64(start, true);
      throw new FormatError(`${this.where}: the number ${value} at offset ${start} is too large to be true`);
    }
    return high * 2 ** 32 + this.#view.getUint32(start, true);
  }

  /** A 64-bit count that must not exceed the limit called `key`. */
  count(key: keyof Caps, what: string): number {
    const value = this.u64();
    checkLimit(this.caps, key, value, this.where, what);
    return value;
  }

  string(key: keyof Caps, what: string): string {
    const length = this.count(key, what);
    const start = this.#step(length);
    return decodeUtf8(this.#bytes.subarray(start, start + length), this.where, start);
  }

  value(key: string): MetadataValue {
    const id = this.u32();
    if (id === arrayId) return this.#array(key, 1);
    if (id === stringId) return { type: "string", value: this.string("stringBytes", `the length of "${key}"`) };
    const { type, array } = this.#fixed(id, key);
    const value = array[0]!;
    return (type === "bool" ? { type, value: value === 1 } : { type, value }) as MetadataValue;
  }

  #array(key: string, depth: number): MetadataArray {
    checkLimit(this.caps, "nesting", depth, this.where, `the nesting of "${key}"`);
    const id = this.u32();
    const length = this.count("arrayLength", `the length of "${key}"`);
    if (id === stringId) return { type: "array", of: "string", value: this.#texts(length, key) };
    if (id === arrayId) {
      this.#checkEntries(length, 12, key);
      const value = Array.from({ length }, () => this.#array(key, depth + 1));
      return { type: "array", of: "array", value };
    }
    const { type, array } = this.#fixed(id, key, length);
    return { type: "array", of: type, value: array };
  }

  #texts(length: number, key: string): string[] {
    this.#checkEntries(length, 8, key);
    const what = `the length of a text of "${key}"`;
    const texts: string[] = [];
    while (texts.length < length) texts.push(this.string("stringBytes", what));
    return texts;
  }

  /** @throws FormatError unless `length` entries of at least `least` bytes can follow */
  #checkEntries(length: number, least: number, key: string): void {
    if (this.at + length * least > this.size) {
      throw new FormatError(
        `${this.where}: the metadata "${key}" claims ${length} entries, more than the file can hold`,
      );
    }
  }

  /** `length` numbers of the type that `id` stands for, in memory of their own. */
  #fixed(id: number, key: string, length = 1): { type: FixedType; array: NumberArray } {
    for (const [type, { id: other, array }] of fixedTypes) {
      if (other !== id) continue;
      const start = this.#step(length * array.BYTES_PER_ELEMENT);
      const bytes = this.#bytes.slice(start, this.at);
      if (type === "bool" && bytes.some((b) => b > 1)) {
        throw new FormatError(`${this.where}: the metadata "${key}" is bool but holds bytes other than 0 and 1`);
      }
      return { type, array: new array(bytes.buffer, 0, length) };
    }
    throw new FormatError(`${this.where}: the metadata "${key}" has the unknown type ${id}`);
  }
}
