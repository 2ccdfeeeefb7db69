import type { MatrixMethod } from "../methods/index.ts";
import { PostTraining } from "./post-training.ts";
import type { Check, Finding, Setting } from "./system.ts";

/** A method, and the baseline that it is to beat. */
export interface Contest {
  readonly what: string;
  readonly ours: MatrixMethod;
  readonly baseline: MatrixMethod;
}

/** Whether methods lose less held-out perplexity than their baselines on the same model, calibrated on the same text. */
export async function lowerPerplexity(
  setting: Setting,
  contestsOn: (work: PostTraining) => readonly Contest[],
): Promise<Finding> {
  const work = await PostTraining.on(setting);
  const original = await work.perplexityWith(null);
  const checks: Check[] = [];
  for (const contest of contestsOn(work)) {
    const baseline = await work.perplexityWith(contest.baseline);
    const ours = await work.perplexityWith(contest.ours);
    checks.push({ what: `perplexity at ${contest.what}`, ours, baseline, holds: ours < baseline });
  }
  const named = (which: "ours" | "baseline") => Object.fromEntries(checks.map((c) => [c.what, c[which]]));
  return { checks, metrics: { original, ...named("ours") }, baseline: named("baseline") };
}
