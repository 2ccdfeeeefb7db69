import { foldGains, memorySource, nearest, onlineHadamard, rotateResidual, roundedInputs } from "../methods/index.ts";
import { PostTraining } from "./post-training.ts";
import type { System } from "./system.ts";

/** How far perplexity may move when the model is only rotated, as a share. */
const UNCHANGED = 1e-4;

/** QuaRot against plain rounding of weights and activations to 4 bits. */
export const quarot: System = {
  name: "QuaRot",
  family: "weights",
  summary: "turns a model's hidden states so that they have no outliers, and rounds weights and activations to 4 bits",
  paper: {
    title: "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs",
    authors: "Ashkboos, Mohtashami, Croci, Li, Cameron, Jaggi, Alistarh, Hoefler, Hensman",
    year: 2024,
    url: "https://arxiv.org/abs/2404.00456",
  },
  file: "src/methods/weights/rotation.ts",
  command: "npx pare compress <model> --to 4bit --method quarot --activations 4bit --calibrate <text> --out <folder>",
  claim: "rotation leaves the model's function as it is, and makes 4-bit weights with 4-bit activations usable",
  bar: "perplexity unchanged to 0.01 % by rotation alone; lower than plain rounding at 4-bit weights and activations",
  async experiment(setting) {
    const work = await PostTraining.on(setting);
    const plain = memorySource(work.model);
    const rotated = { name: "rotated", source: rotateResidual(plain, setting) };
    const original = await work.perplexityWith(null);
    const turned = await work.perplexityWith(null, rotated);
    const rounding = roundedInputs(nearest({ format: "int4", block: "channel", search: true, exact: true }), {
      bits: 4,
      per: "token",
    });
    const baseline = await work.perplexityWith(rounding);
    const folded = await work.perplexityWith(rounding, { name: "gains folded", source: foldGains(plain) });
    const online = onlineHadamard(rounding);
    const except = { "*.*.*.mlp.down_proj.weight": online, "*.*.*.self_attn.o_proj.weight": online };
    const ours = await work.perplexityWith(rounding, { ...rotated, except });
    return {
      checks: [
        {
          what: "perplexity, rotated only",
          ours: turned,
          baseline: original,
          holds: Math.abs(turned / original - 1) < UNCHANGED,
        },
        { what: "perplexity, 4-bit weights and activations", ours, baseline, holds: ours < baseline },
      ],
      metrics: { original, "rotated only": turned, "4-bit weights and activations": ours },
      baseline: { "4-bit weights and activations": baseline, "the same with gains folded": folded },
      notes: [
        "activations are rounded per token before each matrix of the layers, simulated: products are in single precision",
        "the head gets a matrix of its own, which a tied model does not have otherwise",
      ],
    };
  },
};
