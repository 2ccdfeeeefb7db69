import type { Weights } from "../../../models/index.ts";
import { FakeQuantized } from "../../../nn/index.ts";
import { ArgumentError } from "../../../tensor/index.ts";
import { paretoFront } from "../../search/index.ts";
import { latentOf } from "./convert.ts";

/**
 * How far training for few bits moved each matrix: `|after - before|_1 / |before|_1` of the latent weights (Liu et al.
 * 2025, section 3). At 3 and 4 bits weights make up for rounding; from 2 bits down they are rearranged.
 * @param before the model that training started from
 * @param after the same, converted and trained
 * @throws ArgumentError for a matrix that was not there before, or has another shape
 */
export function weightShift(before: Weights, after: Weights): Record<string, number> {
  const shifts: Record<string, number> = {};
  for (const [name, weight] of Object.entries(after)) {
    if (!(weight instanceof FakeQuantized)) continue;
    const [from, to] = [before[name] && latentOf(before[name]), latentOf(weight)];
    if (!from || !to || from.size !== to.size)
      throw new ArgumentError(`"${name}" is no dense matrix of the same shape in both models`);
    let [moved, size] = [0, 0];
    for (let i = 0; i < from.size; i++) {
      moved += Math.abs(to.at(i) - from.at(i));
      size += Math.abs(from.at(i));
    }
    shifts[name] = moved / size;
  }
  return shifts;
}

/**
 * The size of a model in bytes by the bits of its quantized weights, everything else in 16 bits. Ternary counts as 1.58
 * bits, its entropy, or as the bits that are stored.
 */
export function effectiveBytes(quantized: number, bits: number, others: number): number {
  return (bits * quantized + 16 * others) / 8;
}

/** One way to have a model: what it takes and what it gives. */
export interface SizedRun {
  readonly name: string;
  /** Size of the model. */
  readonly bytes: number;
  /** Loss, perplexity, or another cost. */
  readonly loss: number;
}

/**
 * The runs that no other betters in size or loss without being worse in the other, the smallest first: which bits to take
 * for a budget.
 * @throws ArgumentError for numbers that are not finite
 */
export function sizeFront<R extends SizedRun>(runs: readonly R[]): R[] {
  const bad = runs.find(({ bytes, loss }) => !Number.isFinite(bytes) || !Number.isFinite(loss));
  if (bad)
    throw new ArgumentError(
      `the run "${bad.name}" has ${bad.bytes} bytes and a loss of ${bad.loss}; both must be finite`,
    );
  return paretoFront(
    runs,
    ({ bytes }) => bytes,
    ({ loss }) => loss,
  );
}
