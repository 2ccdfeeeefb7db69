import type { DecoderConfig, Weights } from "../../models/index.ts";
import { Weight } from "../../nn/index.ts";
import { type HostTensor, isHostTensor } from "../../tensor/index.ts";
import { knapsack, type Selection, smallest } from "./knapsack.ts";
import type { MatrixMethod } from "./method.ts";
import type { Plan } from "./plan.ts";
import { type MeasuredChoice, type SensitivityOptions, sensitivity } from "./sensitivity.ts";

/** How small the whole model may be, or how much its perplexity may rise. */
export type Budget =
  | { readonly bytes: number }
  /** 0.02 allows 2 % more. */
  | { readonly perplexityIncrease: number };

/**
 * A plan that gives each matrix the candidate that it needs: the least cost within the bytes, or the fewest bytes within
 * the cost. Costs are measured by changing one matrix at a time; that they add up holds for small ones.
 * @throws ArgumentError where no candidate is small or good enough
 */
export async function budgetPlan(
  model: { readonly config: DecoderConfig; readonly weights: Weights },
  windows: HostTensor,
  candidates: readonly MatrixMethod[],
  budget: Budget,
  options: SensitivityOptions = {},
): Promise<{ readonly plan: Plan; readonly selection: Selection<MeasuredChoice> }> {
  const items = await sensitivity(model, windows, candidates, options);
  const selection =
    "bytes" in budget
      ? knapsack(items, budget.bytes - fixedBytes(model.weights, new Set(items.map(({ name }) => name))))
      : smallest(items, Math.log1p(budget.perplexityIncrease));
  return { plan: (name) => selection.chosen[name]?.method ?? null, selection };
}

/** Bytes of what is not up for choice. */
function fixedBytes(weights: Weights, chosen: ReadonlySet<string>): number {
  return Object.entries(weights).reduce(
    (sum, [name, w]) => sum + (!chosen.has(name) && (w instanceof Weight || isHostTensor(w)) ? w.bytes : 0),
    0,
  );
}
