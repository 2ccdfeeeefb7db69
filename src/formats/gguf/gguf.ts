import { ArgumentError, DTypeError } from "../../tensor/errors.ts";
import { arrayFromBytes, HostTensor } from "../../tensor/host.ts";
import { allocate, type ByteSource } from "../bytes.ts";
import { ggufLimits, type Limits } from "../limits.ts";
import { findTensor, type RowRange, selectRows, type TensorFile } from "../tensor-file.ts";
import { dequantize } from "./dequantize.ts";
import { type GgufEntry, readGgufHeader } from "./header.ts";
import type { Metadata } from "./metadata.ts";

/** Encoded bytes that are decoded at a time. */
const pieceBytes = 2 ** 22;

/**
 * A file of the GGUF format, versions 2 and 3: typed metadata and tensors, whose numbers may be encoded in blocks.
 * https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export class GgufFile implements TensorFile {
  readonly name: string;
  readonly version: number;
  readonly metadata: Metadata;
  readonly tensors: ReadonlyMap<string, GgufEntry>;
  readonly #source: ByteSource;

  private constructor(source: ByteSource, version: number, metadata: Metadata, entries: readonly GgufEntry[]) {
    this.name = source.name;
    this.version = version;
    this.metadata = metadata;
    this.tensors = new Map(entries.map((entry) => [entry.name, entry]));
    this.#source = source;
  }

  /** Reads and checks everything but the tensors' numbers; `close` closes the source. @throws FormatError; LimitError */
  static async open(source: ByteSource, limits: Limits<typeof ggufLimits> = {}): Promise<GgufFile> {
    const { version, metadata, entries } = await readGgufHeader(source, { ...ggufLimits, ...limits });
    return new GgufFile(source, version, metadata, entries);
  }

  /** The tensor called `name`, or some of its rows: plain numbers as they are stored, blocks decoded to `f32`. */
  async read(name: string, rows?: RowRange): Promise<HostTensor> {
    const entry = findTensor(this.name, this.tensors, name);
    if (!entry.dtype) throw new DTypeError(`${this.name}: "${name}" is ${entry.type}, which pare has no decoder for`);
    const { first, count, shape } = selectRows(entry, rows);
    const { start, length } = this.#place(entry, first, count);
    if (entry.encoding.dtype) {
      return new HostTensor(
        entry.dtype,
        shape,
        arrayFromBytes(entry.dtype, await this.#source.read(start, length), count),
      );
    }
    const decoded = new Float32Array(allocate(4 * count, `${this.name}, "${name}"`).buffer);
    const { block, bytes } = entry.encoding;
    const step = Math.floor(pieceBytes / bytes);
    for (let done = 0; done < length; done += step * bytes) {
      const piece = await this.#source.read(start + done, Math.min(step * bytes, length - done));
      dequantize(entry.type, piece, decoded, (done / bytes) * block);
    }
    return new HostTensor("f32", shape, decoded);
  }

  /** The tensor's bytes, or those of some of its rows, as they are encoded in the file. */
  async readEncoded(name: string, rows?: RowRange): Promise<Uint8Array> {
    const entry = findTensor(this.name, this.tensors, name);
    const { first, count } = selectRows(entry, rows);
    const { start, length } = this.#place(entry, first, count);
    return await this.#source.read(start, length);
  }

  /** Where `count` elements from `first` on lie. @throws ArgumentError where they cut a block, as they can in a vector */
  #place({ name, encoding, offset }: GgufEntry, first: number, count: number): { start: number; length: number } {
    const { block, bytes } = encoding;
    if (first % block !== 0 || count % block !== 0) {
      throw new ArgumentError(
        `${count} elements from ${first} of "${name}" are not whole ${encoding.name} blocks of ${block}`,
      );
    }
    return { start: offset + (first / block) * bytes, length: (count / block) * bytes };
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
