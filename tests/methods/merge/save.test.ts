import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { TensorFile } from "../../../src/formats/index.ts";
import { pendingTensors } from "../../../src/formats/index.ts";
import { filesIdentity, openSafetensorsIndex, saveSafetensorsFolder } from "../../../src/formats/node.ts";
import { addition, Merge, type MergeOptions, type MergeReport } from "../../../src/methods/index.ts";
import { mergeInProgress, openCheckpoint, saveMerge } from "../../../src/methods/node.ts";
import { Rng } from "../../../src/tensor/index.ts";

let folder: string;
const at = (name: string): string => join(folder, name);

/** Four shards, the second of which has numbers of two types. */
const shapes = {
  "model.layers.0.up": ["bf16", [40, 60]],
  "model.layers.0.norm": ["f32", [30]],
  "model.layers.0.down": ["bf16", [38, 60]],
  "model.layers.1.up": ["bf16", [40, 60]],
  "model.layers.1.down": ["bf16", [40, 60]],
} as const;
const shards = [1, 2, 3, 4].map((i) => `model-0000${i}-of-00004.safetensors`);

async function make(name: string, seed: number): Promise<void> {
  const rng = new Rng(seed);
  const tensors = Object.entries(shapes).map(
    ([name, [dtype, shape]]) => [name, rng.normalTensor(shape, { std: 0.02 }).cast(dtype)] as const,
  );
  await mkdir(at(name));
  await saveSafetensorsFolder(at(name), pendingTensors(tensors), { maxShardBytes: 4800 });
  await writeFile(join(at(name), "config.json"), '{ "model_type": "llama" }');
}

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-saved-merge-"));
  for (const [seed, name] of ["base", "post", "next"].entries()) await make(name, seed);
});
afterEach(async () => await rm(folder, { recursive: true }));

/** Merges into `out`, and returns which tensors were read of the base for it, with the report. */
async function merged(
  out: string,
  { keyed = true, weight = 1, ...options }: MergeOptions & { keyed?: boolean; weight?: number } = {},
): Promise<{ read: string[]; report: MergeReport }> {
  await using base = await openCheckpoint(at("base"));
  await using post = await openCheckpoint(at("post"));
  await using start = await openCheckpoint(at("next"));
  const read: string[] = [];
  const watched: TensorFile = {
    name: base.tensors.name,
    tensors: base.tensors.tensors,
    read(name) {
      read.push(name);
      return base.tensors.read(name);
    },
    close: async () => {},
    [Symbol.asyncDispose]: async () => {},
  };
  const models = [{ name: "post", file: post.tensors, weight }];
  const merge = new Merge({ start: start.tensors, base: watched, models }, addition, options);
  const identities = await Promise.all([base, post, start].map(({ path }) => filesIdentity(path)));
  await saveMerge(at(out), merge, start, { speaker: post, ...(keyed && { key: [identities, weight] }) });
  return { read, report: merge.report() };
}

/** Stops when so many tensors are merged. */
function stopping(count: number): MergeOptions {
  const stop = new AbortController();
  let left = count;
  return { signal: stop.signal, onProgress: () => --left === 0 && stop.abort(new Error("stopped here")) };
}

async function contents(out: string): Promise<Record<string, string>> {
  const names = (await readdir(at(out))).sort();
  const texts = await Promise.all(names.map((name) => readFile(join(at(out), name), "base64")));
  return Object.fromEntries(names.map((name, i) => [name, texts[i]!]));
}

const leftOvers = async (): Promise<string[]> =>
  (await readdir(folder)).filter((name) => !["base", "post", "next"].includes(name)).sort();

describe("a merge that is saved", () => {
  it("has the shards of the new base, and leaves nothing beside them", async () => {
    const { read } = await merged("out");
    expect(Object.keys(await contents("out"))).toEqual(["config.json", ...shards, "model.safetensors.index.json"]);
    expect(read.sort()).toEqual(Object.keys(shapes).sort());
    expect(await leftOvers()).toEqual(["out"]);
    await using result = await openSafetensorsIndex(join(at("out"), "model.safetensors.index.json"));
    await using next = await openCheckpoint(at("next"));
    expect([...result.tensors.values()].map(({ name, dtype }) => [name, dtype])).toEqual(
      [...next.tensors.tensors.values()].map(({ name, dtype }) => [name, dtype]),
    );
  });

  it("goes on with the shards that are missing after it was stopped", async () => {
    const { report } = await merged("whole");
    await expect(merged("out", stopping(3))).rejects.toThrow("stopped here");
    expect(await leftOvers()).toEqual(["out.partial", "whole"]);
    expect((await readdir(mergeInProgress(at("out")))).sort()).toEqual([".merged", shards[0], shards[1]]);
    const shares: number[] = [];
    const again = await merged("out", {
      onProgress: ({ doneBytes, totalBytes }) => shares.push(doneBytes / totalBytes),
    });
    expect(again.read.sort()).toEqual(["model.layers.1.down", "model.layers.1.up"]);
    expect(shares).toHaveLength(2);
    expect(shares.at(-1)).toBe(1);
    expect(again.report.overall).toEqual(report.overall);
    expect(again.report.layers).toEqual(report.layers);
    expect(await contents("out")).toEqual(await contents("whole"));
    expect(await leftOvers()).toEqual(["out", "whole"]);
  });

  it("begins anew where an input has changed, or what is asked for", async () => {
    await expect(merged("out", stopping(3))).rejects.toThrow("stopped here");
    expect((await merged("out", { ...stopping(3), weight: 0.5 }).catch(() => null)) ?? "stopped").toBe("stopped");
    expect((await merged("out", { weight: 0.5 })).read).toHaveLength(2);
    await rm(at("out"), { recursive: true });

    await expect(merged("out", stopping(3))).rejects.toThrow("stopped here");
    await utimes(join(at("post"), shards[3]!), 1e9, 1e9);
    expect((await merged("out")).read).toHaveLength(5);
  });

  it("does without what is damaged or lost of an earlier run, and takes nothing else from it", async () => {
    await merged("whole");
    await expect(merged("out", stopping(3))).rejects.toThrow("stopped here");
    const partial = mergeInProgress(at("out"));
    await rm(join(partial, shards[0]!));
    await writeFile(join(partial, ".merged", `${shards[1]}.json`), '{"key": "');
    await writeFile(join(partial, `.${shards[2]}.0123.tmp`), "half of a shard");
    expect((await merged("out")).read).toHaveLength(5);
    expect(await contents("out")).toEqual(await contents("whole"));
  });

  it("leaves nothing without a key, or before a shard is finished", async () => {
    await expect(merged("out", { keyed: false, ...stopping(3) })).rejects.toThrow("stopped here");
    expect(await leftOvers()).toEqual([]);
    await expect(merged("out", stopping(1))).rejects.toThrow("stopped here");
    // The first shard holds one tensor, which was merged before the signal.
    expect(await leftOvers()).toEqual(["out.partial"]);
    const stopped = { signal: AbortSignal.abort(new Error("stopped before")) };
    await rm(mergeInProgress(at("out")), { recursive: true });
    await expect(merged("out", stopped)).rejects.toThrow("stopped before");
    expect(await leftOvers()).toEqual([]);
  });

  it("leaves a folder that exists alone", async () => {
    await merged("out");
    const { mtimeMs } = await stat(at("out"));
    await expect(merged("out")).rejects.toThrow("out exists; name another folder, or replace it with --force");
    expect((await stat(at("out"))).mtimeMs).toBe(mtimeMs);
  });
});
