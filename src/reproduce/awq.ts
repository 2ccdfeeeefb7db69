import { awqScales, foldScales, memorySource, nearest } from "../methods/index.ts";
import { outlierNote, withOutliers } from "./outliers.ts";
import { PostTraining } from "./post-training.ts";
import type { Check, System } from "./system.ts";

/** AWQ against rounding to nearest on the same grids, as the model is and with outlier channels. */
export const awq: System = {
  name: "AWQ",
  family: "weights",
  summary: "rounds a trained model to few bits after scaling up the weights that meet the most active channels",
  paper: {
    title: "AWQ: Activation-aware Weight Quantization for On-Device LLM Compression and Acceleration",
    authors: "Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han",
    year: 2024,
    url: "https://arxiv.org/abs/2306.00978",
  },
  file: "src/methods/weights/awq.ts",
  claim: "protecting the weights of salient channels by scaling loses less perplexity than rounding to nearest",
  bar: "lower held-out perplexity than nearest at 4 and 3 bits in blocks of 128, and at 3 bits with outlier channels",
  async experiment(setting) {
    const work = await PostTraining.on(setting);
    const original = await work.perplexityWith(null);
    const plain = { name: "", source: memorySource(work.model) };
    const outliers = { name: "with outliers", source: withOutliers(plain.source, setting.seed) };
    const checks: Check[] = [];
    for (const [format, prepared] of [
      ["int4", plain],
      ["int3", plain],
      ["int3", outliers],
    ] as const) {
      const grid = { format, block: 128, symmetric: false } as const;
      const baseline = await work.perplexityWith(nearest(grid), prepared);
      const source = foldScales(prepared.source, await awqScales(prepared.source, work.windows, grid));
      const ours = await work.perplexityWith(nearest(grid), { name: `${prepared.name} awq`.trim(), source });
      checks.push({ what: `perplexity at ${format} ${prepared.name}`.trim(), ours, baseline, holds: ours < baseline });
    }
    const named = (which: "ours" | "baseline") => Object.fromEntries(checks.map((c) => [c.what, c[which]]));
    return { checks, metrics: { original, ...named("ours") }, baseline: named("baseline"), notes: [outlierNote] };
  },
};
