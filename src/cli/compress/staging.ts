import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { statOf } from "../../formats/hub-cache.node.ts";
import { UsageError } from "../errors.ts";

/** A folder that is written beside its place and takes it when it is whole. */
export interface Staging {
  /** Where to write. */
  readonly folder: string;
  /** Where to keep what a later run can go on with. */
  readonly state: string;
  /** Puts the folder in its place; what was there before goes only then. */
  finish(): Promise<void>;
  /** Removes what was written so far. The state stays. */
  discard(): Promise<void>;
}

/**
 * Prepares an output folder. Until `finish` nothing at its place changes.
 * @throws UsageError where something is at the place already, unless it is to be replaced
 */
export async function stage(out: string, { force }: { readonly force: boolean }): Promise<Staging> {
  const there = await statOf(out);
  if (there && !there.isDirectory()) throw new UsageError(`${out} is a file; name a folder with --out`);
  const taken = there !== undefined && (await readdir(out)).length > 0;
  if (taken && !force) throw new UsageError(`${out} exists; --force replaces it, --out names another`);
  const [folder, state, old] = [`${out}.partial`, `${out}.state`, `${out}.old`];
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  return {
    folder,
    state,
    async finish() {
      await rm(old, { recursive: true, force: true });
      if (there) await rename(out, old);
      await rename(folder, out);
      await rm(old, { recursive: true, force: true });
      await rm(state, { recursive: true, force: true });
    },
    async discard() {
      await rm(folder, { recursive: true, force: true });
    },
  };
}
