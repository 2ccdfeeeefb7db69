import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { OnnxError } from "./errors.ts";
import { schema, type Field, type MessageName, type ModelProto } from "./schema.ts";

/** Nesting that real models never reach; deeper files are attacks on the stack. */
const MAX_DEPTH = 64;

const isMessage = (kind: string): kind is MessageName => Object.hasOwn(schema, kind);

// -------------------------------------------------------------------------------------------------- writing

type Message = Readonly<Record<string, unknown>>;

/** The bytes of a message as a list of pieces, so that large `rawData` is referred to and copied only once. */
export function encodeModelPieces(model: ModelProto): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  encodeMessage("Model", model as Message, pieces);
  return pieces;
}

/** The file bytes of a model. @throws OnnxError above 2 GB, the format's limit; keep weights in external data then. */
export function encodeModel(model: ModelProto): Uint8Array {
  const pieces = encodeModelPieces(model);
  const length = pieces.reduce((n, p) => n + p.byteLength, 0);
  if (length >= 2 ** 31) throw new OnnxError(`the model takes ${length} bytes, but an ONNX file ends at 2 GB; write its weights as external data`);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.byteLength;
  }
  return bytes;
}

function encodeMessage(name: MessageName, message: Message, pieces: Uint8Array[]): number {
  let writer = new BinaryWriter();
  let length = 0;
  const flush = (): void => {
    const bytes = writer.finish();
    if (bytes.byteLength > 0) pieces.push(bytes);
    length += bytes.byteLength;
    writer = new BinaryWriter();
  };
  const nested = (number: number, kind: MessageName, value: Message): void => {
    const inner: Uint8Array[] = [];
    const size = encodeMessage(kind, value, inner);
    writer.tag(number, WireType.LengthDelimited).uint32(size);
    if (size > 0) {
      flush();
      for (const piece of inner) pieces.push(piece);
      length += size;
    }
  };
  for (const [key, field] of Object.entries(schema[name])) {
    const number = Number(key);
    const value = message[field.name];
    if (value === undefined) continue;
    for (const item of field.repeated ? (value as unknown[]) : [value]) {
      if (isMessage(field.kind)) nested(number, field.kind, item as Message);
      else if (field.kind === "bytes" && (item as Uint8Array).byteLength > 1024) {
        writer.tag(number, WireType.LengthDelimited).uint32((item as Uint8Array).byteLength);
        flush();
        pieces.push(item as Uint8Array);
        length += (item as Uint8Array).byteLength;
      } else encodeScalar(writer, number, field.kind, item);
    }
  }
  flush();
  return length;
}

function encodeScalar(writer: BinaryWriter, number: number, kind: Field["kind"], value: unknown): void {
  switch (kind) {
    case "int64": writer.tag(number, WireType.Varint).int64(BigInt(value as number)); return;
    case "int32": writer.tag(number, WireType.Varint).int32(value as number); return;
    case "float": writer.tag(number, WireType.Bit32).float(value as number); return;
    case "string": writer.tag(number, WireType.LengthDelimited).string(value as string); return;
    case "bytes": writer.tag(number, WireType.LengthDelimited).bytes(value as Uint8Array); return;
  }
  writer.tag(number, WireType.LengthDelimited).fork();
  for (const item of value as number[]) {
    if (kind === "floats") writer.float(item);
    else if (kind === "doubles") writer.double(item);
    else if (kind === "int32s") writer.int32(item);
    else if (kind === "uint64s") writer.uint64(BigInt(item));
    else writer.int64(BigInt(item));
  }
  writer.join();
}

// -------------------------------------------------------------------------------------------------- reading

/**
 * Parses the bytes of an ONNX file. Byte fields are views of `bytes`, so nothing is allocated that the file only claims.
 * @throws OnnxError where the bytes are not a well-formed message.
 */
export function decodeModel(bytes: Uint8Array): ModelProto {
  try {
    const reader = new BinaryReader(bytes, decodeUtf8);
    return decodeMessage("Model", reader, bytes.byteLength, 0) as ModelProto;
  } catch (error) {
    if (error instanceof OnnxError) throw error;
    throw new OnnxError(`not a readable ONNX file: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true });
const decodeUtf8 = (bytes: Uint8Array): string => utf8.decode(bytes);

function decodeMessage(name: MessageName, reader: BinaryReader, end: number, depth: number): Record<string, unknown> {
  if (depth > MAX_DEPTH) throw new OnnxError(`messages are nested more than ${MAX_DEPTH} deep`);
  const message: Record<string, unknown> = {};
  const fields = schema[name];
  while (reader.pos < end) {
    const [number, wire] = reader.tag();
    const field = fields[number];
    if (wire === WireType.StartGroup || wire === WireType.EndGroup) throw new OnnxError("the file uses protobuf groups, which ONNX does not");
    if (!field) {
      reader.skip(wire, number);
      if (reader.pos > end) throw overrun(name);
      continue;
    }
    const value = decodeField(field, reader, wire, end, depth, message[field.name]);
    if (reader.pos > end) throw overrun(name);
    if (field.repeated) ((message[field.name] as unknown[] | undefined) ?? (message[field.name] = [] as unknown[])).push(value);
    else message[field.name] = value;
  }
  return message;
}

const overrun = (name: string): OnnxError => new OnnxError(`a field of ${name} reaches beyond its message`);

function decodeField(field: Field, reader: BinaryReader, wire: WireType, end: number, depth: number, before: unknown): unknown {
  const { kind } = field;
  const expect = (wanted: WireType): void => {
    if (wire !== wanted) throw new OnnxError(`the field ${field.name} has wire type ${wire} instead of ${wanted}`);
  };
  switch (kind) {
    case "int64": expect(WireType.Varint); return Number(reader.int64());
    case "int32": expect(WireType.Varint); return reader.int32();
    case "float": expect(WireType.Bit32); return reader.float();
    case "string": expect(WireType.LengthDelimited); return reader.string();
    case "bytes": expect(WireType.LengthDelimited); return reader.bytes();
    case "floats":
    case "doubles":
    case "int32s":
    case "int64s":
    case "uint64s": {
      const read = (): number =>
        kind === "floats" ? reader.float() : kind === "doubles" ? reader.double() : kind === "int32s" ? reader.int32()
          : Number(kind === "uint64s" ? reader.uint64() : reader.int64());
      const list = (before as number[] | undefined) ?? [];
      if (wire === WireType.LengthDelimited) {
        const stop = lengthWithin(reader, end, field.name);
        while (reader.pos < stop) list.push(read());
        if (reader.pos > stop) throw overrun(field.name);
      } else list.push(read());
      return list;
    }
    default: {
      expect(WireType.LengthDelimited);
      const stop = lengthWithin(reader, end, field.name);
      return decodeMessage(kind, reader, stop, depth + 1);
    }
  }
}

function lengthWithin(reader: BinaryReader, end: number, name: string): number {
  const length = reader.uint32();
  if (length > end - reader.pos) throw new OnnxError(`the field ${name} claims ${length} bytes, but only ${end - reader.pos} are left: the file is truncated or damaged`);
  return reader.pos + length;
}
