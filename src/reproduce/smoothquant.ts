import { foldScales, memorySource, nearest, roundedInputs, smoothScales } from "../methods/index.ts";
import { outlierNote, withOutliers } from "./outliers.ts";
import { PostTraining } from "./post-training.ts";
import type { Check, System } from "./system.ts";

/** SmoothQuant against plain rounding of weights and activations to 8 bits, as the model is and with outlier channels. */
export const smoothquant: System = {
  name: "SmoothQuant",
  family: "weights",
  summary: "moves outliers from activations into weights, so that both can be rounded to 8 bits",
  paper: {
    title: "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
    authors: "Xiao, Lin, Seznec, Wu, Demouth, Han",
    year: 2023,
    url: "https://arxiv.org/abs/2211.10438",
  },
  file: "src/methods/weights/smoothquant.ts",
  command: "npx pare compress <model> --to 8bit --method smoothquant --calibrate <text> --out <folder>",
  claim: "with activation outliers smoothed, 8-bit weights and activations lose next to nothing",
  bar: "lower held-out perplexity than plain rounding: one step a tensor as the model is; with outlier channels, one step a tensor, one a token, and the runtime's own 8-bit product",
  async experiment(setting) {
    const work = await PostTraining.on(setting);
    const original = await work.perplexityWith(null);
    const exact = nearest({ format: "int8", block: "channel", exact: true });
    const perTensor = { what: "one step a tensor", method: roundedInputs(exact, { bits: 8, per: "tensor" }) };
    const perToken = { what: "one step a token", method: roundedInputs(exact, { bits: 8, per: "token" }) };
    const runtime = { what: "runtime's product", method: nearest({ format: "int8", block: "channel" }) };
    const plain = memorySource(work.model);
    const checks: Check[] = [];
    for (const { regime, source, ways } of [
      { regime: "", source: plain, ways: [perTensor] },
      {
        regime: "with outliers",
        source: withOutliers(plain, setting.seed),
        ways: [perTensor, perToken, runtime],
      },
    ]) {
      const smooth = foldScales(source, await smoothScales(source, work.windows));
      for (const { what, method } of ways) {
        const baseline = await work.perplexityWith(method, { name: regime, source });
        const ours = await work.perplexityWith(method, { name: `${regime} smoothed`.trim(), source: smooth });
        checks.push({ what: `perplexity, ${what} ${regime}`.trim(), ours, baseline, holds: ours < baseline });
      }
    }
    const named = (which: "ours" | "baseline") => Object.fromEntries(checks.map((c) => [c.what, c[which]]));
    return {
      checks,
      metrics: { original, ...named("ours") },
      baseline: named("baseline"),
      notes: [
        outlierNote,
        "steps per tensor and per token are simulated: inputs are rounded, and multiplied in single precision",
      ],
    };
  },
};
