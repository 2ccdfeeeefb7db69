import { closeSync, constants, fstatSync, openSync, readSync, realpathSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { OnnxError } from "./errors.ts";
import { type FromOnnxOptions, fromOnnx, type OnnxModel } from "./from-onnx.ts";
import type { ExternalRange } from "./read-tensor.ts";

const MAX_BYTES = 2 ** 31;
/** One read call takes no more. */
const CHUNK = 2 ** 30;

/**
 * Reads an ONNX model from a file, with weights that lie in files beside it.
 * @throws OnnxError as `fromOnnx`, and where a file cannot be read, is a link, or lies outside of the model's folder.
 */
export function readOnnxFile(path: string, options: Omit<FromOnnxOptions, "externalData"> = {}): OnnxModel {
  const bytes = withFile(resolve(path), (file, size) => {
    if (size >= MAX_BYTES) throw new OnnxError(`${path} takes ${size} bytes, but an ONNX file ends at 2 GB`);
    return readRange(file, path, 0, size);
  });
  const folder = realpathSync(dirname(resolve(path)));
  return fromOnnx(bytes, { ...options, externalData: (range) => readExternal(folder, range) });
}

function readExternal(folder: string, { location, offset, length }: ExternalRange): Uint8Array {
  const path = join(folder, location);
  let real: string;
  try {
    real = realpathSync(path);
  } catch (cause) {
    throw new OnnxError(`the model's data file "${location}" cannot be found`, { cause });
  }
  if (real !== path) throw new OnnxError(`the model's data file "${location}" is reached through a link`);
  return withFile(path, (file, size, links) => {
    if (links !== 1) throw new OnnxError(`the model's data file "${location}" has ${links} names; copy it`);
    if (offset + length > size)
      throw new OnnxError(
        `"${location}" has ${size} bytes, but a tensor is said to lie at ${offset} to ${offset + length}`,
      );
    return readRange(file, location, offset, length);
  });
}

/** Calls `use` with an open regular file, its size in bytes and the number of its names. */
function withFile<R>(path: string, use: (file: number, size: number, links: number) => R): R {
  let file: number;
  try {
    // Not waiting for the other end of a pipe.
    file = openSync(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (cause) {
    throw new OnnxError(`cannot open ${path}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
  try {
    const stat = fstatSync(file);
    if (!stat.isFile()) throw new OnnxError(`${path} is not a regular file`);
    return use(file, stat.size, stat.nlink);
  } finally {
    closeSync(file);
  }
}

function readRange(file: number, what: string, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const count = readSync(file, bytes, at, Math.min(CHUNK, length - at), offset + at);
    if (count === 0) throw new OnnxError(`${what} ended after ${at} of ${length} bytes while it was read`);
    at += count;
  }
  return bytes;
}
