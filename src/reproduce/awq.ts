import { awqScales, clipped, foldScales, memorySource, nearest } from "../methods/index.ts";
import { outlierNote, withOutliers } from "./outliers.ts";
import { blockNotes, PostTraining } from "./post-training.ts";
import type { Check, System } from "./system.ts";

const wholeNote = "4 bits are measured on all of the held-out text, because they lose little";

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
  command: "npx pare compress <model> --to 4bit --method awq --calibrate <text> --out <folder>",
  claim: "protecting the weights of salient channels by scaling loses less perplexity than rounding to nearest",
  bar: "lower held-out perplexity than nearest at 4 and 3 bits in blocks of 128, and at 3 bits with outlier channels",
  async experiment(setting) {
    const work = await PostTraining.on(setting);
    const original = await work.perplexityWith(null);
    const plain = { name: "", source: memorySource(work.model) };
    const outliers = { name: "with outliers", source: withOutliers(plain.source, setting.seed) };
    const checks: Check[] = [];
    const alone: Record<string, number> = {};
    for (const [format, prepared] of [
      ["int4", plain],
      ["int3", plain],
      ["int3", outliers],
    ] as const) {
      const grid = { format, block: work.block, symmetric: false } as const;
      const what = `perplexity at ${format} ${prepared.name}`.trim();
      // At 4 bits little is lost at all: what tells the two apart takes more text than elsewhere.
      const measured = { whole: setting.full || format === "int4" };
      const baseline = await work.perplexityWith(nearest(grid), prepared, measured);
      const scales = await awqScales(prepared.source, work.windows, grid, { tokens: setting.full ? 8192 : 2048 });
      const scaled = { name: `${prepared.name} scaled`.trim(), source: foldScales(prepared.source, scales) };
      const ours = await work.perplexityWith(clipped(grid), scaled, measured);
      checks.push({ what, ours, baseline, holds: ours < baseline });
      if (!setting.full) continue;
      alone[`${what}, scaled only`] = await work.perplexityWith(nearest(grid), scaled);
      alone[`${what}, clipped only`] = await work.perplexityWith(clipped(grid), prepared);
    }
    const named = (which: "ours" | "baseline") => Object.fromEntries(checks.map((c) => [c.what, c[which]]));
    return {
      checks,
      metrics: { original, ...named("ours"), ...alone },
      baseline: named("baseline"),
      notes: [outlierNote, wholeNote, ...blockNotes(work.model)],
    };
  },
};
