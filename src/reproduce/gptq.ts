import { packedDecodeSpeeds, size100m } from "../evaluate/index.ts";
import { nearest, gptq as rounding } from "../methods/index.ts";
import { lowerPerplexity } from "./lower-perplexity.ts";
import { blockNotes } from "./post-training.ts";
import type { System } from "./system.ts";

/** GPTQ against rounding to nearest on the same grids, from 4 bits down to 2. */
export const gptq: System = {
  name: "GPTQ",
  family: "weights",
  summary: "rounds a trained model to few bits, column by column, each making up for the error of those before",
  paper: {
    title: "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers",
    authors: "Frantar, Ashkboos, Hoefler, Alistarh",
    year: 2023,
    url: "https://arxiv.org/abs/2210.17323",
  },
  file: "src/methods/weights/gptq.ts",
  command: "npx pare compress <model> --to 4bit --method gptq --calibrate <text> --out <folder>",
  claim: "at 4 and 3 bits GPTQ loses far less perplexity than rounding to nearest, and it makes 2 bits usable",
  bar: "lower held-out perplexity than nearest at 4, 3 and 2 bits, blocks of 128; in the full proof, a model of 100 million weights decodes faster at 4 bits than in f32",
  async experiment(setting) {
    const finding = await lowerPerplexity(setting, ({ block }) =>
      (["int4", "int3", "int2"] as const).map((format) => {
        const grid = { format, block, symmetric: false };
        return { what: format, ours: rounding({ ...grid, activationOrder: true }), baseline: nearest(grid) };
      }),
    );
    const notes = blockNotes(await setting.bench.languageModel());
    if (!setting.full) return { ...finding, notes };
    const { f32, int4 } = await packedDecodeSpeeds(size100m, setting);
    setting.log(`100 million weights: ${int4.toFixed(1)} tokens/s at 4 bits, ${f32.toFixed(1)} in f32`);
    const what = "tokens/s of 100 million weights, int4 against f32";
    return {
      checks: [...finding.checks, { what, ours: int4, baseline: f32, holds: int4 > f32 }],
      metrics: { ...finding.metrics, [what]: int4 },
      baseline: { ...finding.baseline, [what]: f32 },
      notes: [...notes, "speeds are of random weights, greedily decoded behind 32 tokens"],
    };
  },
};
