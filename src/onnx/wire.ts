import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { OnnxError } from "./errors.ts";
import { type Field, type MessageName, type ModelProto, schema } from "./schema.ts";

/** Nesting that real models never reach; deeper files are attacks on the stack. */
const MAX_DEPTH = 64;
/** Where the protobuf format ends. */
const MAX_BYTES = 2 ** 31;

const isMessage = (kind: string): kind is MessageName => Object.hasOwn(schema, kind);

type Message = Readonly<Record<string, unknown>>;

// -------------------------------------------------------------------------------------------------- writing

/** The file bytes of a model. @throws OnnxError above 2 GB, the format's limit; keep weights in external data then. */
export function encodeModel(model: ModelProto): Uint8Array {
  const pieces = modelPieces(model);
  const bytes = new Uint8Array(pieces.reduce((n, piece) => n + piece.byteLength, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

/** As `encodeModel`, in pieces to be written one behind the other; large byte fields are not copied. @throws as `encodeModel` */
export function modelPieces(model: ModelProto): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  encodePieces("Model", model as Message, pieces);
  return pieces;
}

/** Messages that hold large byte fields; all others are small and are written as a whole. */
const LARGE: ReadonlySet<string> = new Set<MessageName>(["Model", "Graph", "Tensor"]);
const LARGE_BYTES = 1024;

/** Appends a message as a list of pieces, large byte fields by reference, and returns its length in bytes. */
function encodePieces(name: MessageName, message: Message, pieces: Uint8Array[]): number {
  const writer = new BinaryWriter();
  let length = 0;
  const append = (number: number, size: number, parts: readonly Uint8Array[]): void => {
    if (size >= MAX_BYTES) throw tooLarge(size);
    const small = writer.tag(number, WireType.LengthDelimited).uint32(size).finish();
    pieces.push(small);
    for (const part of parts) pieces.push(part);
    length += small.byteLength + size;
  };
  eachValue(name, message, (number, field, value) => {
    if (LARGE.has(field.kind)) {
      const parts: Uint8Array[] = [];
      append(number, encodePieces(field.kind as MessageName, value as Message, parts), parts);
    } else if (field.kind === "bytes" && (value as Uint8Array).byteLength > LARGE_BYTES) {
      append(number, (value as Uint8Array).byteLength, [value as Uint8Array]);
    } else encodeField(writer, number, field, value);
  });
  const rest = writer.finish();
  pieces.push(rest);
  length += rest.byteLength;
  if (length >= MAX_BYTES) throw tooLarge(length);
  return length;
}

const tooLarge = (bytes: number): OnnxError =>
  new OnnxError(`the model takes ${bytes} bytes, but an ONNX file ends at 2 GB; write its weights as external data`);

const fieldsOf = new Map(
  Object.entries(schema).map(([name, fields]) => [
    name,
    Object.entries(fields).map(([n, f]) => [Number(n), f] as const),
  ]),
);

/** Calls `visit` with each value that a message has; a list of numbers, which is packed, counts as one. */
function eachValue(
  name: MessageName,
  message: Message,
  visit: (number: number, field: Field, value: unknown) => void,
): void {
  for (const [number, field] of fieldsOf.get(name)!) {
    const value = message[field.name];
    if (value === undefined) continue;
    if (field.repeated) for (const item of value as readonly unknown[]) visit(number, field, item);
    else if (!Array.isArray(value) || value.length > 0) visit(number, field, value);
  }
}

function encodeField(writer: BinaryWriter, number: number, { kind, name }: Field, value: unknown): void {
  switch (kind) {
    case "int64":
      writer.tag(number, WireType.Varint).int64(BigInt(value as number));
      return;
    case "int32":
      writer.tag(number, WireType.Varint).int32(value as number);
      return;
    case "float":
      writer.tag(number, WireType.Bit32).float(single(value as number, name));
      return;
    case "string":
      writer.tag(number, WireType.LengthDelimited).string(value as string);
      return;
    case "bytes":
      writer.tag(number, WireType.LengthDelimited).bytes(value as Uint8Array);
      return;
  }
  writer.tag(number, WireType.LengthDelimited).fork();
  if (isMessage(kind)) {
    eachValue(kind, value as Message, (inner, field, item) => encodeField(writer, inner, field, item));
  } else for (const item of value as readonly (number | bigint)[]) encodeNumber(writer, kind, item, name);
  writer.join();
}

function encodeNumber(writer: BinaryWriter, kind: NumberListKind, value: number | bigint, name: string): void {
  switch (kind) {
    case "floats":
      writer.float(single(value as number, name));
      return;
    case "doubles":
      writer.double(value as number);
      return;
    case "int32s":
      writer.int32(value as number);
      return;
    case "ubigints":
      writer.uint64(value);
      return;
    default:
      writer.int64(BigInt(value));
  }
}

/** @throws OnnxError for a number beyond the range of single precision. */
function single(value: number, name: string): number {
  if (Number.isFinite(value) && !Number.isFinite(Math.fround(value)))
    throw new OnnxError(`${name}: ${value} is too large for a 32-bit float`);
  return value;
}

type NumberListKind = "floats" | "doubles" | "int32s" | "int64s" | "bigints" | "ubigints";

// -------------------------------------------------------------------------------------------------- reading

/**
 * Parses the bytes of an ONNX file. Byte fields are views of `bytes`, and lists are as long as what the file really
 * holds, so nothing is allocated that it only claims.
 * @throws OnnxError where the bytes are not a well-formed message.
 */
export function decodeModel(bytes: Uint8Array): ModelProto {
  try {
    return new Decoder(bytes).message("Model", bytes.byteLength, 0) as ModelProto;
  } catch (error) {
    if (error instanceof OnnxError) throw error;
    throw new OnnxError(`not a readable ONNX file: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #reader: BinaryReader;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#reader = new BinaryReader(bytes);
  }

  /** The message that ends at byte `end`. */
  message(name: MessageName, end: number, depth: number): Message {
    if (depth > MAX_DEPTH) throw new OnnxError(`messages are nested more than ${MAX_DEPTH} deep`);
    const reader = this.#reader;
    const message: Record<string, unknown> = {};
    while (reader.pos < end) {
      const [number, wire] = reader.tag();
      if (wire === WireType.StartGroup || wire === WireType.EndGroup)
        throw new OnnxError("the file uses protobuf groups, which ONNX does not");
      const field = schema[name][number];
      if (!field) reader.skip(wire, number);
      else if (isNumberList(field.kind)) {
        this.#numbers(field.kind, field.name, wire, end, (message[field.name] ??= []) as (number | bigint)[]);
      } else {
        const value = this.#value(field, wire, end, depth);
        if (field.repeated) ((message[field.name] ??= []) as unknown[]).push(value);
        else if (message[field.name] === undefined) message[field.name] = value;
        else throw new OnnxError(`the field ${field.name} of ${name} occurs twice`);
      }
      if (reader.pos > end) throw overrun(`a field of ${name}`);
    }
    return message;
  }

  #value({ name, kind }: Field, wire: WireType, end: number, depth: number): unknown {
    const reader = this.#reader;
    switch (kind) {
      case "int64":
        expectWire(name, wire, WireType.Varint);
        return Number(reader.int64());
      case "int32":
        expectWire(name, wire, WireType.Varint);
        return reader.int32();
      case "float":
        expectWire(name, wire, WireType.Bit32);
        return reader.float();
    }
    expectWire(name, wire, WireType.LengthDelimited);
    const stop = this.#stop(name, end);
    if (isMessage(kind)) return this.message(kind, stop, depth + 1);
    const view = this.#bytes.subarray(reader.pos, stop);
    reader.pos = stop;
    return kind === "string" ? utf8.decode(view) : view;
  }

  /** Appends to `list` the numbers of one field, packed or single. */
  #numbers(kind: NumberListKind, name: string, wire: WireType, end: number, list: (number | bigint)[]): void {
    const reader = this.#reader;
    const read = (): number | bigint => {
      switch (kind) {
        case "floats":
          return reader.float();
        case "doubles":
          return reader.double();
        case "int32s":
          return reader.int32();
        case "bigints":
          return BigInt(reader.int64());
        case "ubigints":
          return BigInt(reader.uint64());
        case "int64s":
          return Number(reader.int64());
      }
    };
    if (wire === WireType.LengthDelimited) {
      const stop = this.#stop(name, end);
      while (reader.pos < stop) list.push(read());
      if (reader.pos > stop) throw overrun(name);
    } else {
      expectWire(name, wire, singleWire[kind]);
      list.push(read());
    }
  }

  /** Reads a length and returns where the field ends. */
  #stop(name: string, end: number): number {
    const length = Number(this.#reader.uint64());
    const left = end - this.#reader.pos;
    if (length > left)
      throw new OnnxError(
        `the field ${name} claims ${length} bytes, but ${left} are left: the file is truncated or damaged`,
      );
    return this.#reader.pos + length;
  }
}

/** How one number is written outside of a packed list. */
const singleWire: Readonly<Record<NumberListKind, WireType>> = {
  floats: WireType.Bit32,
  doubles: WireType.Bit64,
  int32s: WireType.Varint,
  int64s: WireType.Varint,
  bigints: WireType.Varint,
  ubigints: WireType.Varint,
};

const isNumberList = (kind: string): kind is NumberListKind => Object.hasOwn(singleWire, kind);

function expectWire(name: string, wire: WireType, wanted: WireType): void {
  if (wire !== wanted) throw new OnnxError(`the field ${name} has wire type ${wire} instead of ${wanted}`);
}

const overrun = (what: string): OnnxError => new OnnxError(`${what} reaches beyond its message`);
