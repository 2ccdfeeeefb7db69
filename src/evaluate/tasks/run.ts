import { ArgumentError } from "../../tensor/index.ts";
import type { Estimate } from "../bootstrap.ts";
import { TaskError } from "../errors.ts";
import { type DocumentRecord, evaluateDocument, type Judging } from "./evaluate-document.ts";
import { metricsOf } from "./metrics.ts";
import type { Task } from "./task.ts";

/** Where finished documents are kept, so that an evaluation can go on. */
export interface Journal {
  /** Those kept so far, by document. */
  readonly records: ReadonlyMap<number, DocumentRecord>;
  append(record: DocumentRecord): Promise<void>;
}

export interface RunOptions extends Partial<Omit<Judging, "scorer" | "splits">> {
  /** Only the first so many documents. */
  readonly limit?: number;
  readonly journal?: Journal;
  /** Told after each document how many are done, of how many. */
  readonly onDocument?: (done: number, total: number) => void;
}

export interface TaskResult {
  readonly task: string;
  readonly version: number;
  readonly metrics: Readonly<Record<string, Estimate>>;
  /** Documents evaluated; fewer than asked for when the signal came. */
  readonly documents: number;
  readonly asked: number;
  /** Documents whose prompt was too long for the model and lost its beginning. */
  readonly truncated: number;
  readonly seed: number;
  readonly fewShot: {
    readonly count: number;
    /** Rows of the examples: one list where all documents had the same, else one per document. */
    readonly ids: readonly number[] | readonly (readonly number[])[];
  };
  readonly records: readonly DocumentRecord[];
}

/**
 * Evaluates a task's documents in order. Those that the journal has are not evaluated again; a signal ends the work
 * between two documents, and the result is then that of the documents so far.
 * @throws TaskError naming the task and the row that does not fit it
 */
export async function runTask(
  task: Task,
  { scorer, splits }: Pick<Judging, "scorer" | "splits">,
  { limit, journal, onDocument, seed = 0, windows = {}, runPython, signal }: RunOptions = {},
): Promise<TaskResult> {
  if (limit !== undefined && !(Number.isInteger(limit) && limit >= 1))
    throw new ArgumentError(`limit must be a whole number from 1, not ${limit}`);
  const asked = Math.min(splits["test"]!.length, limit ?? Number.POSITIVE_INFINITY);
  const judging: Judging = { scorer, splits, seed, windows, runPython, signal };
  const records: DocumentRecord[] = [];
  for (let document = 0; document < asked && !signal?.aborted; document++) {
    const known = journal?.records.get(document);
    const record = known ?? (await judged(task, document, judging));
    // What was cut short by the signal is no answer.
    if (!known && signal?.aborted) break;
    if (!known) await journal?.append(record);
    records.push(record);
    onDocument?.(records.length, asked);
  }
  return {
    task: task.name,
    version: task.version,
    metrics: metricsOf(task, records, { seed }),
    documents: records.length,
    asked,
    truncated: records.filter(({ truncated }) => truncated).length,
    seed,
    fewShot: fewShotOf(records),
    records,
  };
}

async function judged(task: Task, document: number, judging: Judging): Promise<DocumentRecord> {
  try {
    return await evaluateDocument(task, document, judging);
  } catch (cause) {
    if (!(cause instanceof TaskError)) throw cause;
    throw new TaskError(`${task.name}, document ${document}: ${cause.message}`, { cause });
  }
}

function fewShotOf(records: readonly DocumentRecord[]): TaskResult["fewShot"] {
  const ids = records.map(({ fewShot }) => fewShot);
  const first = ids[0] ?? [];
  const same = ids.every((list) => list.length === first.length && list.every((id, i) => id === first[i]));
  return { count: first.length, ids: same ? first : ids };
}
