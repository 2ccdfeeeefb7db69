import { createHash, randomBytes } from "node:crypto";
import { readdir, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { FileError } from "../../../formats/errors.ts";
import { explained } from "../../../formats/files.node.ts";
import { tokenizerFiles } from "../../../formats/hf-folder.ts";
import { folderLimits } from "../../../formats/hf-limits.ts";
import { statOf } from "../../../formats/hub-cache.node.ts";
import { saveSafetensors, writeModelFiles } from "../../../formats/node.ts";
import type { PendingTensor } from "../../../formats/tensor-file.ts";
import { keptResult } from "../kept.node.ts";
import { type Checkpoint, SHARD_INDEX } from "./checkpoint.node.ts";
import type { Merge } from "./merge.ts";

export interface SaveMergeOptions {
  /** The model whose chat template and generation settings the result takes, where it has them. */
  readonly speaker: Checkpoint;
  /** Replaces a folder that exists. */
  readonly force?: boolean;
  /**
   * Plain JSON of all that the result depends on, such as `filesIdentity` of the inputs. With a key, a merge that
   * fails or is stopped leaves the shards that it has finished in `mergeInProgress(out)`, and one of the same key goes
   * on with the others; one of another key removes them.
   */
  readonly key?: unknown;
}

/** Where a merge into `out` is written until it is whole. */
export function mergeInProgress(out: string): string {
  return `${resolve(out)}.partial`;
}

const random = (): string => randomBytes(6).toString("hex");

/** In there, what of a merge's report comes from each finished shard. */
const RECORDS = ".merged";

/**
 * Merges into a new folder laid out like that of `start`: the same shards, configuration and tokenizer. It is written
 * beside `out` and renamed when it is whole: there is never half a model at `out`.
 * @throws FileError where `out` exists; whatever loading the merge's tensors throws
 */
export async function saveMerge(
  out: string,
  merge: Merge,
  start: Checkpoint,
  { speaker, force = false, key }: SaveMergeOptions,
): Promise<void> {
  const target = resolve(out);
  const exists = (await statOf(target)) !== undefined;
  if (exists && !force) throw new FileError(`${out} exists; name another folder, or replace it with --force`);
  const folder = mergeInProgress(out);
  const records = join(folder, RECORDS);
  const hash = createHash("sha256")
    .update(JSON.stringify(key ?? random()))
    .digest("hex");
  let worthKeeping = false;
  try {
    await keptResult(join(records, "merge.json"), hash, async () => {
      await rm(folder, { recursive: true, force: true });
      return null;
    });
    // What was being written when the process died.
    for (const name of await readdir(folder)) if (name.endsWith(".tmp")) await rm(join(folder, name));
    for (const [shard, tensors] of shardsOf(merge, start)) {
      const [path, record] = [join(folder, shard), join(records, `${shard}.json`)];
      if (!(await statOf(path))) await rm(record, { force: true });
      const sums = await keptResult(record, hash, async () => {
        // Other libraries refuse files that do not name the framework whose conventions they follow.
        await saveSafetensors(path, tensors, new Map([["format", "pt"]]));
        return merge.sumsOf(tensors);
      });
      merge.resume(sums);
      worthKeeping = key !== undefined;
    }
    await writeModelFiles(folder, await smallFiles(start, speaker));
    await rm(records, { recursive: true });
    worthKeeping = false;
    const old = join(dirname(target), `.${basename(target)}.${random()}.old`);
    if (exists) await explained("replace", target, rename(target, old));
    await explained("replace", target, rename(folder, target));
    if (exists) await rm(old, { recursive: true });
  } finally {
    if (!worthKeeping) await rm(folder, { recursive: true, force: true });
  }
}

function shardsOf(merge: Merge, { folder }: Checkpoint): Map<string, PendingTensor[]> {
  const shards = new Map<string, PendingTensor[]>();
  for (const tensor of merge.tensors) {
    const shard = folder.weights.shardOf?.get(tensor.name) ?? "model.safetensors";
    const together = shards.get(shard) ?? [];
    shards.set(shard, together);
    together.push(tensor);
  }
  return shards;
}

/** Chats need the template that the post-trained model learned, and its end tokens, rather than the base's. */
async function smallFiles(start: Checkpoint, speaker: Checkpoint): Promise<Record<string, string | Uint8Array>> {
  const template = speaker.folder.chatTemplate?.["default"];
  const generation = "generation_config.json";
  const advised = [speaker, start].find(({ folder }) => folder.generationConfig);
  return {
    ...(await tokenizerFiles(start.files)),
    ...(template !== undefined && { "chat_template.jinja": template }),
    ...(advised && { [generation]: await advised.files.read(generation, folderLimits.jsonBytes) }),
    ...(start.folder.weights.shardOf && {
      [SHARD_INDEX]: await start.files.read(SHARD_INDEX, Number.MAX_SAFE_INTEGER),
    }),
    "config.json": await start.files.read("config.json", folderLimits.jsonBytes),
  };
}
