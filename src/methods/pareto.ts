import { ArgumentError } from "../tensor/index.ts";

/** One way to have a model: what it takes and what it gives. Smaller is better in both. */
export interface SizedRun {
  readonly name: string;
  /** Size of the model. */
  readonly bytes: number;
  /** Loss, perplexity, or another cost. */
  readonly loss: number;
}

/**
 * The runs that no other one dominates, that is none is at most as large and at most as bad and better in one of them;
 * the smallest first. Equal runs are all kept.
 * @throws ArgumentError for numbers that are not finite
 */
export function paretoFront<R extends SizedRun>(runs: readonly R[]): R[] {
  const bad = runs.find(({ bytes, loss }) => !Number.isFinite(bytes) || !Number.isFinite(loss));
  if (bad)
    throw new ArgumentError(
      `the run "${bad.name}" has ${bad.bytes} bytes and a loss of ${bad.loss}; both must be finite`,
    );
  const ordered = [...runs].sort((a, b) => a.bytes - b.bytes || a.loss - b.loss);
  const front: R[] = [];
  for (const run of ordered) {
    const last = front.at(-1);
    if (!last || run.loss < last.loss || (run.loss === last.loss && run.bytes === last.bytes)) front.push(run);
  }
  return front;
}
