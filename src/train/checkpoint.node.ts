import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { FormatError, pendingTensors } from "../formats/index.ts";
import { openSafetensors, saveSafetensors } from "../formats/node.ts";
import {
  ArgumentError,
  flattenTree,
  formatShape,
  type HostTensor,
  isHostTensor,
  mapTree,
  sameShape,
} from "../tensor/index.ts";
import type { TrainState } from "./step.ts";
import type { Checkpoint, CheckpointStore } from "./trainer.ts";

const NAME = /^checkpoint-(\d{8})\.safetensors$/;
const KEY = "pare.train";

export interface FolderOptions {
  /** Newest checkpoints to keep; older ones are deleted. Default 2. */
  readonly keep?: number;
}

/**
 * Checkpoints as safetensors files in a folder, one file each (`checkpoint-00000100.safetensors`), so that a run killed at any
 * moment leaves whole checkpoints only. Parameters and optimizer memory are tensors; position in the data is metadata.
 */
export function checkpointFolder(
  folder: string,
  { keep = 2 }: FolderOptions = {},
): CheckpointStore & {
  /** The step of the newest checkpoint; 0 where there is none. */
  newest(): Promise<number>;
} {
  if (!Number.isInteger(keep) || keep < 1) throw new ArgumentError(`keep must be a whole number from 1, not ${keep}`);
  const steps = async (): Promise<{ step: number; path: string }[]> => {
    await mkdir(folder, { recursive: true });
    const found = (await readdir(folder)).flatMap((file) => {
      const match = NAME.exec(file);
      return match ? [{ step: Number(match[1]), path: join(folder, file) }] : [];
    });
    return found.sort((a, b) => b.step - a.step);
  };
  return {
    async save({ step, state, data, best }) {
      await mkdir(folder, { recursive: true });
      const path = join(folder, `checkpoint-${String(step).padStart(8, "0")}.safetensors`);
      const metadata = new Map([[KEY, JSON.stringify({ step, data, best })]]);
      await saveSafetensors(path, pendingTensors(Object.entries(flattenTree(state, isHostTensor))), metadata);
      // Steps beyond this one belong to a run that was given up.
      const all = await steps();
      const stale = [...all.filter((c) => c.step > step), ...all.filter((c) => c.step <= step).slice(keep)];
      for (const { path: old } of stale) await rm(old);
    },
    async newest() {
      return (await steps())[0]?.step ?? 0;
    },
    async latest(like) {
      const newest = (await steps())[0];
      return newest ? readCheckpoint(newest.path, like) : null;
    },
  };
}

/** Reads one checkpoint file. @throws FormatError where it is damaged; ArgumentError where it belongs to another model. */
export async function readCheckpoint(path: string, like: TrainState): Promise<Checkpoint> {
  const file = await openSafetensors(path);
  try {
    const header = file.metadata.get(KEY);
    if (header === undefined)
      throw new FormatError(`${path}: it is no training checkpoint; its metadata lacks "${KEY}"`);
    const { step, data, best } = JSON.parse(header) as Omit<Checkpoint, "state">;
    const wanted = flattenTree(like, isHostTensor);
    const loaded: Record<string, HostTensor> = {};
    for (const [name, { dtype, shape }] of Object.entries(wanted)) {
      const info = file.tensors.get(name);
      if (!info)
        throw new ArgumentError(`${path}: it lacks "${name}"; the checkpoint belongs to another model or optimizer`);
      if (info.dtype !== dtype || !sameShape(info.shape, shape)) {
        throw new ArgumentError(
          `${path}: "${name}" is ${info.type} ${formatShape(info.shape)} there, but ${dtype} ${formatShape(shape)} in this run`,
        );
      }
      loaded[name] = await file.read(name);
    }
    return { step, data, best, state: mapTree(like, isHostTensor, (_leaf, name) => loaded[name]!) as TrainState };
  } finally {
    await file.close();
  }
}
