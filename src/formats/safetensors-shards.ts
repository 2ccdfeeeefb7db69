import type { TypedArray } from "../tensor/dtype.ts";
import { ArgumentError } from "../tensor/errors.ts";
import type { HostTensor } from "../tensor/host.ts";
import { type ByteSource, closeOnError } from "./bytes.ts";
import { FormatError } from "./errors.ts";
import { decodeUtf8, isJsonObject, parseJson } from "./json.ts";
import { checkLimit, type Limits, safetensorsLimits } from "./limits.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { pendingBytes } from "./safetensors-write.ts";
import { findTensor, type PendingTensor, type RowRange, type TensorFile, type TensorInfo } from "./tensor-file.ts";

/** A plain name that stays in its folder on every system. */
const shardName = /^[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors$/;

/**
 * Reads the index of a sharded model (`model.safetensors.index.json`): the shard that each tensor lies in.
 * @throws FormatError; LimitError
 */
export async function readShardIndex(
  index: ByteSource,
  limits: Limits<typeof safetensorsLimits> = {},
): Promise<Map<string, string>> {
  const caps = { ...safetensorsLimits, ...limits };
  const where = index.name;
  checkLimit(caps, "indexBytes", index.size, where, "its length");
  const json = parseJson(decodeUtf8(await index.read(0, index.size), where), where);
  const entries = isJsonObject(json) ? json["weight_map"] : undefined;
  if (!isJsonObject(entries)) throw new FormatError(`${where}: it has no "weight_map" object`);
  const shards = new Map<string, string>();
  for (const [name, shard] of Object.entries(entries)) {
    if (typeof shard !== "string" || !shardName.test(shard)) {
      throw new FormatError(
        `${where}: tensor "${name}" is placed in ${JSON.stringify(shard)}, which is not a plain .safetensors file name`,
      );
    }
    shards.set(name, shard);
  }
  checkLimit(caps, "tensors", shards.size, where, "its number of tensors");
  checkLimit(caps, "shards", new Set(shards.values()).size, where, "its number of shards");
  return shards;
}

/** A model spread over several safetensors files, read as one. */
export class ShardedSafetensors implements TensorFile {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The shards' metadata; writers give all the same. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #shards: readonly SafetensorsFile[];
  readonly #homes: ReadonlyMap<string, SafetensorsFile>;

  private constructor(name: string, shards: readonly SafetensorsFile[], homes: Map<string, SafetensorsFile>) {
    this.name = name;
    this.tensors = new Map(Array.from(homes, ([tensor, shard]) => [tensor, shard.tensors.get(tensor)!]));
    this.metadata = new Map(shards.flatMap((shard) => [...shard.metadata]));
    this.#shards = shards;
    this.#homes = homes;
  }

  /**
   * Opens every shard that `index` names through `open`, which is given plain file names, and checks their headers.
   * Tensors that the index does not name are left alone. The index itself is not closed.
   * @throws FormatError; LimitError; whatever `open` throws
   */
  static async open(
    index: ByteSource,
    open: (shard: string) => Promise<ByteSource>,
    limits: Limits<typeof safetensorsLimits> = {},
  ): Promise<ShardedSafetensors> {
    const placed = await readShardIndex(index, limits);
    const shards = new Map<string, SafetensorsFile>();
    try {
      for (const shard of new Set(placed.values())) {
        const source = await open(shard);
        shards.set(shard, await closeOnError(source, () => SafetensorsFile.open(source, limits)));
      }
      const homes = new Map<string, SafetensorsFile>();
      for (const [name, shard] of placed) {
        const file = shards.get(shard)!;
        if (!file.tensors.has(name)) throw new FormatError(`${index.name}: tensor "${name}" is not in ${file.name}`);
        homes.set(name, file);
      }
      return new ShardedSafetensors(index.name, [...shards.values()], homes);
    } catch (error) {
      await closeAll([...shards.values()]);
      throw error;
    }
  }

  async read(name: string, rows?: RowRange): Promise<HostTensor> {
    findTensor(this.name, this.tensors, name);
    return await this.#homes.get(name)!.read(name, rows);
  }

  async readInto(name: string, first: number, into: TypedArray): Promise<void> {
    findTensor(this.name, this.tensors, name);
    await this.#homes.get(name)!.readInto(name, first, into);
  }

  close(): Promise<void> {
    return closeAll(this.#shards);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function closeAll(files: readonly SafetensorsFile[]): Promise<void> {
  for (const file of files) await file.close();
}

/** A shard to be written: its file name and what goes into it. */
export interface Shard {
  readonly name: string;
  readonly tensors: readonly PendingTensor[];
}

/**
 * Deals tensors out, in order, to files of at most `maxBytes` of numbers each (a larger tensor has one to itself),
 * named as Hugging Face names them. A single file gets no number and needs no index.
 * @throws ArgumentError when two have the same name
 */
export function planShards(
  tensors: readonly PendingTensor[],
  maxBytes: number,
  base = "model",
): { shards: Shard[]; index?: string } {
  if (new Set(tensors.map(({ name }) => name)).size < tensors.length) {
    throw new ArgumentError("two of the tensors to be saved have the same name");
  }
  const groups: PendingTensor[][] = [[]];
  let [bytes, total] = [0, 0];
  for (const tensor of tensors) {
    const size = pendingBytes(tensor);
    if (groups.at(-1)!.length > 0 && bytes + size > maxBytes) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(tensor);
    bytes += size;
    total += size;
  }
  if (groups.length === 1) return { shards: [{ name: `${base}.safetensors`, tensors }] };
  const digits = (n: number): string => String(n).padStart(5, "0");
  const shards = groups.map((group, i) => ({
    name: `${base}-${digits(i + 1)}-of-${digits(groups.length)}.safetensors`,
    tensors: group,
  }));
  const places = shards.flatMap(({ name, tensors }) => tensors.map((tensor) => [tensor.name, name]));
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(places) };
  return { shards, index: `${JSON.stringify(index, null, 2)}\n` };
}
