import { magnitude, wanda as pruning } from "../methods/index.ts";
import { lowerPerplexity } from "./lower-perplexity.ts";
import type { System } from "./system.ts";

/** Wanda against magnitude pruning, unstructured and 2:4. */
export const wanda: System = {
  name: "Wanda",
  family: "weights",
  summary: "drops half of a trained model's weights at once, by magnitude times the norm of their inputs",
  paper: {
    title: "A Simple and Effective Pruning Approach for Large Language Models",
    authors: "Sun, Liu, Bair, Kolter",
    year: 2024,
    url: "https://arxiv.org/abs/2306.11695",
  },
  file: "src/methods/weights/wanda.ts",
  command: "npx pare compress <model> --to 2:4 --method wanda --calibrate <text> --out <folder>",
  claim: "weights times input norms say far better than weights alone what a language model can do without",
  bar: "lower held-out perplexity than magnitude pruning at sparsity 0.5 and at 2:4",
  experiment: (setting) =>
    lowerPerplexity(setting, () =>
      Object.entries({ "sparsity 0.5": { sparsity: 0.5 }, "2:4": { keep: 2, of: 4 } }).map(([what, pattern]) => ({
        what,
        ours: pruning(pattern),
        baseline: magnitude(pattern),
      })),
    ),
};
