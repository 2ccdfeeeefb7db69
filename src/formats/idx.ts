import { HostTensor } from "../tensor/host.ts";
import { FormatError } from "./errors.ts";

/**
 * A tensor of bytes in the IDX format, in which MNIST is published: two zero bytes, the type (8: unsigned bytes), the
 * number of dimensions, each dimension in 32 bits (highest byte first), then the entries.
 * @param name what messages call it
 * @throws FormatError for another type, and for a file that is longer or shorter than its dimensions say
 */
export function parseIdx(bytes: Uint8Array, name: string): HostTensor {
  if (bytes.length < 4 || bytes[0] !== 0 || bytes[1] !== 0) throw new FormatError(`${name}: it is no IDX file`);
  if (bytes[2] !== 8) throw new FormatError(`${name}: its type is ${bytes[2]}; only unsigned bytes (8) are read`);
  const rank = bytes[3]!;
  const start = 4 + 4 * rank;
  if (bytes.length < start) throw new FormatError(`${name}: it ends inside of its ${rank} dimensions`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const shape = Array.from({ length: rank }, (_, i) => view.getUint32(4 + 4 * i));
  const size = shape.reduce((a, b) => a * b, 1);
  if (bytes.length - start !== size)
    throw new FormatError(`${name}: [${shape.join(", ")}] takes ${size} bytes, but ${bytes.length - start} follow`);
  return new HostTensor("u8", shape, bytes.slice(start));
}
