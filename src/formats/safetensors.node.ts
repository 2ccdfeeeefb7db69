import { rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type ByteSink, closeOnError } from "./bytes.ts";
import { openFile, writeFileAtomic, writeFilesAtomic } from "./files.node.ts";
import type { Limits, safetensorsLimits } from "./limits.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { planShards, ShardedSafetensors } from "./safetensors-shards.ts";
import { writeSafetensors } from "./safetensors-write.ts";
import type { PendingTensor } from "./tensor-file.ts";

/** Opens one safetensors file. @throws FileError; FormatError; LimitError */
export async function openSafetensors(
  path: string,
  limits?: Limits<typeof safetensorsLimits>,
): Promise<SafetensorsFile> {
  const source = await openFile(path);
  return await closeOnError(source, () => SafetensorsFile.open(source, limits));
}

/** Opens all shards of a model by its index (`model.safetensors.index.json`). @throws FileError; FormatError; LimitError */
export async function openSafetensorsIndex(
  path: string,
  limits?: Limits<typeof safetensorsLimits>,
): Promise<ShardedSafetensors> {
  const index = await openFile(path);
  try {
    return await ShardedSafetensors.open(index, (shard) => openFile(join(dirname(path), shard)), limits);
  } finally {
    await index.close();
  }
}

/** Writes one safetensors file, atomically; `tensors` may come from the very file at `path`. @throws FileError */
export async function saveSafetensors(
  path: string,
  tensors: Iterable<PendingTensor>,
  metadata?: ReadonlyMap<string, string>,
): Promise<void> {
  await writeFileAtomic(path, (sink) => writeSafetensors(sink, tensors, metadata));
}

export interface ShardOptions {
  readonly metadata?: ReadonlyMap<string, string>;
  /** Bytes of tensors in a file at most; 5 GB, as Hugging Face's libraries have it. */
  readonly maxShardBytes?: number;
  /** Beginning of the files' names. */
  readonly base?: string;
}

/**
 * Writes a model into a folder, as one file or as shards with an index. Nothing is replaced before everything is on
 * the disk. A single file or an index of an earlier model is removed where the new one has the other form, since
 * loaders would prefer it.
 * @throws FileError
 */
export async function saveSafetensorsFolder(
  folder: string,
  tensors: readonly PendingTensor[],
  { metadata, maxShardBytes = 5e9, base = "model" }: ShardOptions = {},
): Promise<void> {
  const { shards, index } = planShards(tensors, maxShardBytes, base);
  const files = shards.map((shard) => ({
    path: join(folder, shard.name),
    write: (sink: ByteSink) => writeSafetensors(sink, shard.tensors, metadata),
  }));
  const indexPath = join(folder, `${base}.safetensors.index.json`);
  if (index !== undefined) {
    files.push({ path: indexPath, write: (sink) => sink.write(new TextEncoder().encode(index)) });
  }
  await writeFilesAtomic(files);
  await rm(index === undefined ? indexPath : join(folder, `${base}.safetensors`), { force: true });
}
