import type { HostTensor } from "../../../tensor/index.ts";
import { ArgumentError } from "../../../tensor/index.ts";
import { Merge, type MergeInputs } from "./merge.ts";
import { addition } from "./rules.ts";

export interface TransferEfficiency {
  /** Slope of the line through the origin that fits the merged model's scores to those of direct post-training best. */
  readonly gamma: number;
  /** Share of the merged scores' variance that the line explains; 1 where there is none. */
  readonly r2: number;
  /** Mean merged score over mean direct score. */
  readonly ratio: number;
}

/**
 * How much of direct post-training a merge keeps, from the scores of both on the same tasks, in the same order
 * (Cao et al. 2025, section on transfer efficiency).
 * @throws ArgumentError for lists of unequal length, none, scores that are not finite, or direct scores that are all 0
 */
export function transferEfficiency(mixed: readonly number[], direct: readonly number[]): TransferEfficiency {
  if (mixed.length !== direct.length || mixed.length === 0)
    throw new ArgumentError(
      `transfer is judged by the same tasks for both models; there are ${mixed.length} scores and ${direct.length}`,
    );
  if (![...mixed, ...direct].every(Number.isFinite)) throw new ArgumentError("scores must be finite");
  const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);
  const square = sum(direct.map((x) => x * x));
  if (square === 0) throw new ArgumentError("direct scores that are all 0 leave nothing to compare with");
  const gamma = sum(mixed.map((y, i) => y * direct[i]!)) / square;
  const mean = sum(mixed) / mixed.length;
  const rest = sum(mixed.map((y, i) => (y - gamma * direct[i]!) ** 2));
  const all = sum(mixed.map((y) => (y - mean) ** 2));
  const explained = rest === 0 ? 1 : all === 0 ? 0 : 1 - rest / all;
  return { gamma, r2: explained, ratio: sum(mixed) / sum(direct) };
}

/** Strengths that a sweep tries. */
const strengths = [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5] as const;

/**
 * Scores of the sums of `inputs` with all weights multiplied by each of `alphas`: whether 1 is near the best. The merged
 * tensors are in memory, one merge at a time.
 * @throws ArgumentError for an alpha that is not finite; whatever merging and `score` throw
 */
export async function alphaSweep(
  inputs: MergeInputs,
  score: (tensors: ReadonlyMap<string, HostTensor>, alpha: number) => Promise<number>,
  alphas: readonly number[] = strengths,
): Promise<{ alpha: number; score: number }[]> {
  const bad = alphas.find((alpha) => !Number.isFinite(alpha));
  if (bad !== undefined) throw new ArgumentError(`alpha must be finite, not ${bad}`);
  const scores: { alpha: number; score: number }[] = [];
  for (const alpha of alphas) {
    const models = inputs.models.map((model) => ({ ...model, weight: alpha * model.weight }));
    const tensors = new Map<string, HostTensor>();
    for (const { name, load } of new Merge({ ...inputs, models }, addition).tensors) tensors.set(name, await load());
    scores.push({ alpha, score: await score(tensors, alpha) });
  }
  return scores;
}
