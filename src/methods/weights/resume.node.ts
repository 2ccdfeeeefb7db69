import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { statOf } from "../../formats/hub-cache.node.ts";
import { FormatError, pendingTensors } from "../../formats/index.ts";
import { openSafetensors, saveSafetensors } from "../../formats/node.ts";
import type { CompressionState } from "./compress.ts";

const KEY = "pare.compress";

/** The state of a compression in a folder: one file, always whole, whatever moment the process dies at. */
export function compressionFolder(folder: string): CompressionState {
  const path = join(folder, "compression.safetensors");
  return {
    async save({ run, next, hidden }) {
      await mkdir(folder, { recursive: true });
      const metadata = new Map([[KEY, JSON.stringify({ run, next })]]);
      await saveSafetensors(path, pendingTensors([["hidden", hidden]]), metadata);
    },
    async load() {
      if (!(await statOf(path))) return null;
      const file = await openSafetensors(path);
      try {
        const header = file.metadata.get(KEY);
        if (header === undefined) throw new FormatError(`${path}: it is no state of a compression; remove it`);
        const { run, next } = JSON.parse(header) as { run: string; next: number };
        return { run, next, hidden: await file.read("hidden") };
      } finally {
        await file.close();
      }
    },
  };
}
