import { mkdir, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { saveSafetensorsFolder } from "../../src/formats/node.ts";
import { Rng } from "../../src/tensor/index.ts";

/** Sizes of the checkpoints that are merged. */
export interface MergeShape {
  /** MiB of a shard's tensors. */
  readonly shardMib: number;
  readonly shards: number;
}

/** A participant's settings: where the checkpoints are, and where its result goes. */
export interface MergeSettings {
  readonly base: string;
  readonly post: string;
  readonly newBase: string;
  readonly out: string;
}

/** A matrix of `width` by `width` in bf16 is 8 MiB. */
const width = 2048;
const matrixMib = (2 * width * width) / 2 ** 20;

/** The folder of a checkpoint of random `bf16` matrices near to others of other seeds, made when it is not there. */
export async function checkpoint(work: string, { shardMib, shards }: MergeShape, name: string): Promise<string> {
  const folder = join(work, `merge-${shards}x${shardMib}-${name}`);
  const made = await stat(folder).then(
    () => true,
    () => false,
  );
  if (made) return folder;
  const temporary = `${folder}.tmp`;
  await rm(temporary, { recursive: true, force: true });
  await mkdir(temporary, { recursive: true });
  const [base, own] = [new Rng(0), new Rng(1).fork(name)];
  const tensors = Array.from({ length: (shards * shardMib) / matrixMib }, (_, i) => ({
    name: `model.layers.${i}.mlp.up_proj.weight`,
    dtype: "bf16" as const,
    shape: [width, width],
    load: () => {
      const values = base.fork(i).normalTensor([width, width], { std: 0.02 });
      const moved = own.fork(i).normalTensor([width, width], { std: 0.001 });
      for (let at = 0; at < values.size; at++) values.set(at, values.at(at) + moved.at(at));
      return values.cast("bf16");
    },
  }));
  await saveSafetensorsFolder(temporary, tensors, { maxShardBytes: shardMib * 2 ** 20 });
  await writeFile(join(temporary, "config.json"), JSON.stringify({ model_type: "llama" }));
  await rename(temporary, folder);
  return folder;
}

/** The files of weights in a folder, in order. */
export async function shardsOf(folder: string): Promise<string[]> {
  return (await readdir(folder)).filter((file) => file.endsWith(".safetensors")).sort();
}
