import { dtypes, type TypedArray } from "../../tensor/dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../../tensor/errors.ts";
import { HostTensor } from "../../tensor/host.ts";
import type { ByteSink } from "../bytes.ts";
import { ggufLimits } from "../limits.ts";
import { elementCount } from "../tensor-file.ts";
import { defaultAlignment, padded } from "./header.ts";
import { arrayId, fixedTypes, type Metadata, type MetadataArray, type MetadataValue, stringId } from "./metadata.ts";
import { canQuantize, quantize } from "./quantize.ts";
import { type GgmlType, ggmlTypes } from "./types.ts";

/** A tensor that the writer will ask for when its turn comes. */
export interface PendingGgufTensor {
  readonly name: string;
  /** Element type in the file: `F16`, `Q4_K`. */
  readonly type: string;
  readonly shape: readonly number[];
  /** The numbers, which are then converted to `type`, or bytes that are encoded as `type` already. */
  load(): HostTensor | Uint8Array | Promise<HostTensor | Uint8Array>;
}

/** Numbers that are encoded at a time: a multiple of every block. */
const pieceLength = 2 ** 20;

const encoder = new TextEncoder();

/** Longest name of a tensor in UTF-8 bytes that llama.cpp takes. */
const longestName = 63;

/**
 * Writes a GGUF file of version 3; each tensor is asked for when its turn comes, encoded in pieces and let go. The
 * metadata's `general.alignment`, 32 where it has none, is what tensors are padded to.
 * @throws ArgumentError; ShapeError for rows that are not whole blocks; DTypeError for a type that cannot be written
 */
export async function writeGguf(
  sink: ByteSink,
  metadata: Metadata,
  tensors: Iterable<PendingGgufTensor>,
): Promise<void> {
  const planned = Array.from(tensors, plan);
  const alignment = alignmentOf(metadata);
  await sink.write(encodeHeader(metadata, planned, alignment));
  for (const tensor of planned) {
    await writeTensor(sink, tensor);
    await sink.write(new Uint8Array(padded(tensor.bytes, alignment) - tensor.bytes));
  }
}

interface Planned extends PendingGgufTensor {
  readonly encoding: GgmlType;
  readonly bytes: number;
}

function plan(pending: PendingGgufTensor): Planned {
  const { name, type, shape } = pending;
  const encoding = ggmlTypes.get(type);
  if (!encoding) throw new DTypeError(`"${name}": GGUF has no element type called ${type}`);
  if (encoder.encode(name).length > longestName) {
    throw new ArgumentError(`"${name}": llama.cpp takes names of at most ${longestName} bytes`);
  }
  if (shape.length > 4) throw new ShapeError(`"${name}": GGUF tensors have at most 4 dimensions, not ${shape.length}`);
  const row = shape.at(-1) ?? 1;
  if (row % encoding.block !== 0) {
    throw new ShapeError(`"${name}": rows of ${row} are not whole ${type} blocks of ${encoding.block}`);
  }
  return {
    name,
    type,
    shape,
    encoding,
    bytes: (elementCount(shape) / encoding.block) * encoding.bytes,
    load: () => pending.load(),
  };
}

function alignmentOf(metadata: Metadata): number {
  const given = metadata.get("general.alignment");
  if (!given) return defaultAlignment;
  const most = ggufLimits.alignment;
  if (given.type !== "u32" || given.value < 1 || given.value > most || !Number.isInteger(Math.log2(given.value))) {
    throw new ArgumentError(`general.alignment must be a power of two up to ${most}, of type u32`);
  }
  return given.value;
}

async function writeTensor(sink: ByteSink, { name, type, shape, encoding, bytes, load }: Planned): Promise<void> {
  const loaded = await load();
  if (loaded instanceof Uint8Array) {
    if (loaded.length !== bytes) {
      throw new ShapeError(`"${name}": ${type} [${shape.join(", ")}] takes ${bytes} bytes, but ${loaded.length} came`);
    }
    await sink.write(loaded);
    return;
  }
  if (loaded.shape.join() !== shape.join()) {
    throw new ShapeError(`"${name}" was announced as [${shape.join(", ")}] but came as [${loaded.shape.join(", ")}]`);
  }
  if (dtypes[loaded.dtype].bits < 8)
    throw new DTypeError(`"${name}": cast packed ${loaded.dtype} to a whole type first`);
  if (!encoding.dtype && !canQuantize(type)) throw new DTypeError(`"${name}": pare has no encoder for ${type}`);
  for (let from = 0; from < loaded.size; from += pieceLength) {
    const data = loaded.data.subarray(from, from + pieceLength) as TypedArray;
    const piece = new HostTensor(loaded.dtype, [data.length], data).cast(encoding.dtype ?? "f32");
    await sink.write(encoding.dtype ? piece.rawBytes() : quantize(type, piece.data as Float32Array));
  }
}

function encodeHeader(metadata: Metadata, tensors: readonly Planned[], alignment: number): Uint8Array {
  const out = new Builder();
  out.bytes(encoder.encode("GGUF"));
  out.u32(3);
  out.u64(tensors.length);
  out.u64(metadata.size);
  for (const [key, value] of metadata) {
    if (!/^[\x21-\x7e]{1,65535}$/.test(key))
      throw new ArgumentError(`${JSON.stringify(key)} is not an ASCII metadata key`);
    out.text(key);
    encodeValue(out, key, value);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const { name, shape, encoding, bytes } of tensors) {
    if (names.has(name)) throw new ArgumentError(`two tensors would be called "${name}"`);
    names.add(name);
    out.text(name);
    out.u32(shape.length);
    for (const dim of shape.toReversed()) out.u64(dim);
    out.u32(encoding.id);
    out.u64(offset);
    offset += padded(bytes, alignment);
  }
  return out.finish(alignment);
}

function encodeValue(out: Builder, key: string, value: MetadataValue): void {
  if (value.type === "array") {
    out.u32(arrayId);
    encodeArray(out, key, value);
  } else if (value.type === "string") {
    out.u32(stringId);
    out.text(value.value);
  } else {
    const { id, array } = fixedTypes.get(value.type)!;
    const stored = array.of(value.type === "bool" ? Number(value.value) : value.value);
    const whole = value.type !== "f32" && value.type !== "f64" && value.type !== "bool";
    if (whole && stored[0] !== value.value) {
      throw new ArgumentError(`the metadata "${key}" cannot be ${value.value}, which is no ${value.type}`);
    }
    out.u32(id);
    out.bytes(new Uint8Array(stored.buffer));
  }
}

function encodeArray(out: Builder, key: string, { of, value }: MetadataArray): void {
  const fixed = of === "string" || of === "array" ? undefined : fixedTypes.get(of)!;
  out.u32(fixed ? fixed.id : of === "string" ? stringId : arrayId);
  out.u64(value.length);
  if (of === "string") for (const text of value) out.text(text);
  else if (of === "array") for (const inner of value) encodeArray(out, key, inner);
  else if (value instanceof fixed!.array) out.bytes(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
  else throw new ArgumentError(`the metadata "${key}" is an array of ${of}, which is kept in ${fixed!.array.name}`);
}

/** Bytes that grow at the end. */
class Builder {
  #bytes = new Uint8Array(2 ** 16);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** Makes room for `length` bytes and returns where they begin. */
  #step(length: number): number {
    const start = this.#length;
    this.#length += length;
    if (this.#length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      grown.set(this.#bytes.subarray(0, start));
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return start;
  }

  bytes(bytes: Uint8Array): void {
    const start = this.#step(bytes.length);
    this.#bytes.set(bytes, start);
  }

  u32(value: number): void {
    const start = this.#step(4);
    this.#view.setUint32(start, value, true);
  }

  u64(value: number): void {
    const start = this.#step(8);
    this.#view.setBigUint64(start, BigInt(value), true);
  }

  /** @throws ArgumentError for text that UTF-8 cannot hold */
  text(text: string): void {
    if (/\p{Surrogate}/u.test(text)) throw new ArgumentError(`${JSON.stringify(text)} has half a surrogate pair`);
    const bytes = encoder.encode(text);
    this.u64(bytes.length);
    this.bytes(bytes);
  }

  /** Everything so far, with zeroes up to a multiple of `alignment`. */
  finish(alignment: number): Uint8Array {
    this.#step(padded(this.#length, alignment) - this.#length);
    return this.#bytes.subarray(0, this.#length);
  }
}
