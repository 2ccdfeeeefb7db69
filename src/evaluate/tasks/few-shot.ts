import { Rng } from "../../tensor/index.ts";
import { TaskError } from "../errors.ts";
import type { FewShot } from "./task.ts";
import { lookUp, type Row } from "./template.ts";

/** Rows by split. */
export type Splits = Readonly<Record<string, readonly Row[]>>;

/** Examples for a document, and which rows of their split they are. */
export interface Shots {
  readonly ids: readonly number[];
  readonly rows: readonly Row[];
}

/**
 * The examples before a document. Those drawn depend on the seed and the document only, so that a part of an evaluation
 * sees what the whole would; a document of the split that examples are from is never its own example.
 * @throws TaskError when there are too few
 */
export function shotsFor(fewShot: FewShot | null, splits: Splits, document: number, seed: number): Shots {
  if (!fewShot) return { ids: [], rows: [] };
  const { from, select, count, matching } = fewShot;
  const pool = typeof from === "string" ? splits[from]! : from;
  const row = splits["test"]![document]!;
  const wanted = matching === null ? undefined : lookUp(matching, row);
  const ids: number[] = [];
  pool.forEach((example, i) => {
    if (from === "test" && i === document) return;
    if (matching === null || lookUp(matching, example) === wanted) ids.push(i);
  });
  if (ids.length < count) {
    const alike = matching === null ? "" : ` with ${matching} ${JSON.stringify(wanted)}`;
    throw new TaskError(`"fewShot" asks for ${count} examples${alike}, but there are ${ids.length}`);
  }
  const chosen = select === "first" ? ids.slice(0, count) : new Rng(seed).fork(document).sample(ids, count);
  return { ids: chosen, rows: chosen.map((i) => pool[i]!) };
}
