import type { DecoderConfig, Weights } from "../../models/index.ts";
import { Weight } from "../../nn/index.ts";
import { type HostTensor, isHostTensor } from "../../tensor/index.ts";
import { type Choice, type Item, knapsack, type Selection, smallest } from "./knapsack.ts";
import type { MatrixMethod } from "./method.ts";
import type { Plan } from "./plan.ts";
import { type MeasuredChoice, type SensitivityOptions, sensitivity } from "./sensitivity.ts";

export interface BudgetPlan {
  readonly plan: Plan;
  readonly selection: Selection<MeasuredChoice>;
  /** What it was selected from. */
  readonly items: readonly Item<MeasuredChoice>[];
}

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
): Promise<BudgetPlan> {
  const items = await sensitivity(model, windows, candidates, options);
  const selection = budgetSelection(items, budget, model.weights);
  return { plan: (name) => selection.chosen[name]?.method ?? null, selection, items };
}

/**
 * The choices that a budget for a whole model leaves.
 * @param weights of the model; those that are no items stay as they are
 * @throws as `budgetPlan`
 */
export function budgetSelection<C extends Choice>(
  items: readonly Item<C>[],
  budget: Budget,
  weights: Weights,
): Selection<C> {
  return "bytes" in budget
    ? knapsack(items, budget.bytes - fixedBytes(weights, new Set(items.map(({ name }) => name))))
    : smallest(items, Math.log1p(budget.perplexityIncrease));
}

/** Bytes of what is not up for choice. */
function fixedBytes(weights: Weights, chosen: ReadonlySet<string>): number {
  return Object.entries(weights).reduce(
    (sum, [name, w]) => sum + (!chosen.has(name) && (w instanceof Weight || isHostTensor(w)) ? w.bytes : 0),
    0,
  );
}
