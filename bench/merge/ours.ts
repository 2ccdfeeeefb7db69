import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { addition, Merge } from "../../src/methods/index.ts";
import { openCheckpoint, saveMerge } from "../../src/methods/node.ts";
import type { Participant } from "../harness.ts";
import { type MergeSettings, shardsOf } from "./files.ts";

/** ParamΔ from folder to folder, as `pare merge` does it. */
export function create(_threads: number, settings: unknown): Participant {
  const { base, post, newBase, out } = settings as MergeSettings;
  return {
    setup: async () => {},
    async step() {
      await using from = await openCheckpoint(base);
      await using to = await openCheckpoint(post);
      await using start = await openCheckpoint(newBase);
      const models = [{ name: "post", file: to.tensors, weight: 1 }];
      const merge = new Merge({ start: start.tensors, base: from.tensors, models }, addition);
      await saveMerge(out, merge, start, { speaker: to, force: true });
      const sizes = (await shardsOf(out)).map(async (file) => (await stat(join(out, file))).size);
      return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
    },
    dispose: () => rm(out, { recursive: true, force: true }),
  };
}
