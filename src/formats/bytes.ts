import { FormatError, LimitError } from "./errors.ts";

/** Bytes at rest that can be read anywhere: a file, a blob, memory. */
export interface ByteSource {
  /** What error messages call it: a path, a URL. */
  readonly name: string;
  /** Length in bytes. */
  readonly size: number;
  /**
   * The `length` bytes at `offset`, in memory of their own or shared with the source: not to be written to.
   * @throws FormatError when the source ends before them; LimitError when they do not fit in one array
   */
  read(offset: number, length: number): Promise<Uint8Array>;
  /** Fills memory of the caller's with the bytes at `offset`, where the source can do without memory of its own. */
  readInto?(offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

/** Where a writer puts bytes, one after the other. What is passed may be reused once the promise settles. */
export interface ByteSink {
  write(bytes: Uint8Array): Promise<void>;
}

/** @throws FormatError unless the source holds `length` bytes at `offset`. */
export function checkRange(source: ByteSource, offset: number, length: number): void {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
  if (!whole || offset + length > source.size) {
    throw new FormatError(
      `${source.name}: ${length} bytes at offset ${offset} lie beyond its ${source.size} bytes; the file is cut short or damaged`,
    );
  }
}

/** `length` bytes of zeroes. @throws LimitError when the engine has no array that long or no memory for it. */
export function allocate(length: number, what: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(length);
  } catch (cause) {
    throw new LimitError(`${what}: cannot hold ${length} bytes in one array; read it in parts`, { cause });
  }
}

/** `action`, and when it throws, the source is closed first. */
export async function closeOnError<T>(source: Pick<ByteSource, "close">, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Bytes in memory as a source. Tensors read from it share its memory where alignment allows. */
export function memorySource(bytes: Uint8Array, name = "memory"): ByteSource {
  const source: ByteSource = {
    name,
    size: bytes.byteLength,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      return bytes.subarray(offset, offset + length);
    },
    close: async () => {},
  };
  return source;
}

/** A `Blob` or picked `File` of a browser as a source. */
export function blobSource(blob: Blob, name = "name" in blob ? String(blob.name) : "blob"): ByteSource {
  const source: ByteSource = {
    name,
    size: blob.size,
    read: async (offset, length) => {
      checkRange(source, offset, length);
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    },
    close: async () => {},
  };
  return source;
}

/** A sink that keeps what it is given. */
export class MemorySink implements ByteSink {
  #parts: Uint8Array[] = [];

  async write(bytes: Uint8Array): Promise<void> {
    this.#parts.push(bytes.slice());
  }

  /** Everything written so far, in one array. */
  bytes(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.#parts.reduce((n, part) => n + part.byteLength, 0));
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.byteLength;
    }
    return all;
  }
}
