import { type DType, dtypes } from "../tensor/dtype.ts";
import { ArgumentError, DTypeError } from "../tensor/errors.ts";
import type { HostTensor } from "../tensor/host.ts";
import { type ByteSink, MemorySink } from "./bytes.ts";
import { safetensorsTypes } from "./safetensors.ts";
import { elementCount, loadPending, type PendingTensor, pendingTensors } from "./tensor-file.ts";

const typeNames = new Map<DType, string>();
for (const [type, { dtype }] of safetensorsTypes) if (dtype) typeNames.set(dtype, type);

/** Bytes that the numbers of a tensor take in a file. */
export function pendingBytes({ dtype, shape }: PendingTensor): number {
  return (elementCount(shape) * dtypes[dtype].bits) / 8;
}

/**
 * Writes a safetensors file; each tensor is asked for when its turn comes and let go once written. Tensors of wider
 * elements come first, so that every one lies on a multiple of its element's size.
 * @throws ArgumentError for a name that is taken or not text; DTypeError for packed sub-byte types
 */
export async function writeSafetensors(
  sink: ByteSink,
  tensors: Iterable<PendingTensor>,
  metadata: ReadonlyMap<string, string> = new Map(),
): Promise<void> {
  const ordered = [...tensors].sort((a, b) => dtypes[b.dtype].bits - dtypes[a.dtype].bits);
  await sink.write(encodeHeader(ordered, metadata));
  for (const tensor of ordered) {
    if (tensor.write) await tensor.write(sink);
    else await sink.write((await loadPending(tensor)).rawBytes());
  }
}

/** A safetensors file in memory. */
export async function encodeSafetensors(
  tensors: Iterable<readonly [string, HostTensor]>,
  metadata?: ReadonlyMap<string, string>,
): Promise<Uint8Array<ArrayBuffer>> {
  const sink = new MemorySink();
  await writeSafetensors(sink, pendingTensors(tensors), metadata);
  return sink.bytes();
}

function encodeHeader(tensors: readonly PendingTensor[], metadata: ReadonlyMap<string, string>): Uint8Array {
  const fields: string[] = [];
  if (metadata.size > 0) {
    const pairs = Array.from(metadata, ([key, text]) => `${quote(key)}:${quote(text)}`);
    fields.push(`"__metadata__":{${pairs.join(",")}}`);
  }
  const names = new Set(["__metadata__"]);
  let at = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    const type = typeNames.get(dtype);
    if (!type) throw new DTypeError(`"${name}": safetensors has no ${dtype}; save its packed bytes as u8`);
    if (names.has(name)) throw new ArgumentError(`two tensors would be called "${name}"`);
    names.add(name);
    const end = at + pendingBytes(tensor);
    fields.push(`${quote(name)}:{"dtype":"${type}","shape":[${shape.join(",")}],"data_offsets":[${at},${end}]}`);
    at = end;
  }
  const text = new TextEncoder().encode(`{${fields.join(",")}}`);
  // Spaces up to a multiple of 8 align the first tensor.
  const header = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(header.length - 8), true);
  header.set(text, 8);
  return header;
}

/** @throws ArgumentError for text that UTF-8 cannot hold */
function quote(text: string): string {
  if (/\p{Surrogate}/u.test(text)) throw new ArgumentError(`${JSON.stringify(text)} has half a surrogate pair`);
  return JSON.stringify(text);
}
