import { mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Participant } from "../harness.ts";
import { type MergeSettings, shardsOf } from "./files.ts";

/** Bytes that are read at once. */
const piece = 2 ** 20;

/** Reads all bytes of the three checkpoints and writes those of the third: what a merge moves, and no arithmetic. */
export function create(_threads: number, settings: unknown): Participant {
  const { base, post, newBase, out } = settings as MergeSettings;
  const buffer = new Uint8Array(piece);
  return {
    setup: async () => {},
    async step() {
      await mkdir(out, { recursive: true });
      let written = 0;
      for (const shard of await shardsOf(newBase)) {
        await using target = await open(join(out, shard), "w");
        for (const folder of [base, post, newBase]) {
          await using source = await open(join(folder, shard), "r");
          for (;;) {
            const { bytesRead } = await source.read(buffer);
            if (bytesRead === 0) break;
            if (folder === newBase) written += (await target.write(buffer, 0, bytesRead)).bytesWritten;
          }
        }
        await target.sync();
      }
      return written;
    },
    dispose: () => rm(out, { recursive: true, force: true }),
  };
}
