import { existsSync, readFileSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../formats/node.ts";
import type { TrainingMethod } from "../../methods/index.ts";
import type { Weights } from "../../models/index.ts";
import { Dense } from "../../nn/index.ts";
import { type HostTensor, isFloat, isHostTensor } from "../../tensor/index.ts";
import type { LogEntry } from "../../train/index.ts";
import { curvePage } from "../../train/node.ts";
import { UsageError } from "../errors.ts";
import type { Beginning } from "./start.ts";

/** Types of what is not packed in a model that is written. */
export const outputTypes = ["f32", "f16", "bf16"] as const;
export type OutputType = (typeof outputTypes)[number];

/** What all training into a folder is told. */
export interface RunJob {
  readonly beginning: Beginning;
  readonly method: TrainingMethod;
  readonly steps: number;
  readonly rate: number;
  readonly accumulate: number;
  readonly checkpointEvery: number;
  /** Type of the dense weights that are written. */
  readonly dtype: OutputType;
  readonly out: string;
  /** What else identifies the run: a checkpoint is only gone on with under the same. */
  readonly identity: Readonly<Record<string, unknown>>;
  readonly force: boolean;
  readonly seed: number;
  readonly threads: number | undefined;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
}

/**
 * Makes sure that what lies in the folder of a run's state is of this run.
 * @param identity all that a run must have in common with one that it goes on with
 * @throws UsageError where it is another's and not to be replaced
 */
export async function claim(
  state: string,
  identity: Readonly<Record<string, unknown>>,
  { force, note }: Pick<RunJob, "force" | "note">,
): Promise<void> {
  const path = join(state, "run.json");
  const wanted = JSON.stringify(identity);
  if (existsSync(path)) {
    if (readFileSync(path, "utf8") === wanted) return note("going on from the last checkpoint");
    if (!force)
      throw new UsageError(
        `${state} holds checkpoints of a run with other options; give the same ones to go on, --force to begin anew, or another --out`,
      );
    await rm(state, { recursive: true });
  }
  await mkdir(state, { recursive: true });
  await writeFileAtomic(path, (sink) => sink.write(new TextEncoder().encode(wanted)));
}

/** Dense matrices and vectors in another type; packed ones stay as they are. */
export function weightsIn(weights: Weights, dtype: OutputType): Weights {
  const cast = (t: HostTensor): HostTensor => (isFloat(t.dtype) ? t.cast(dtype) : t);
  return Object.fromEntries(
    Object.entries(weights).map(([name, value]) => {
      if (value instanceof Dense && isHostTensor(value.values)) return [name, new Dense(cast(value.values))];
      return [name, isHostTensor(value) ? cast(value) : value];
    }),
  );
}

/** Writes the log of a run and a page with its curves. */
export async function writeCurves(folder: string, title: string, entries: readonly LogEntry[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = {
    "log.jsonl": entries.map((entry) => `${JSON.stringify(entry)}\n`).join(""),
    "curves.html": curvePage(title, entries),
  };
  for (const [file, text] of Object.entries(files))
    await writeFileAtomic(join(folder, file), (sink) => sink.write(new TextEncoder().encode(text)));
}
