import { magnitude, sparseGpt } from "../methods/index.ts";
import { lowerPerplexity } from "./lower-perplexity.ts";
import type { System } from "./system.ts";

/** SparseGPT against magnitude pruning, unstructured and 2:4. */
export const sparsegpt: System = {
  name: "SparseGPT",
  family: "weights",
  summary: "drops half of a trained model's weights at once, each column making up for what those before it lost",
  paper: {
    title: "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
    authors: "Frantar, Alistarh",
    year: 2023,
    url: "https://arxiv.org/abs/2301.00774",
  },
  file: "src/methods/weights/sparsegpt.ts",
  command: "npx pare compress <model> --to sparse --keep 0.5 --method sparsegpt --calibrate <text> --out <folder>",
  claim:
    "with the remaining weights updated, half of all weights go at a small loss, where magnitude pruning breaks the model",
  bar: "lower held-out perplexity than magnitude pruning at sparsity 0.5 and at 2:4",
  experiment: (setting) =>
    lowerPerplexity(setting, () =>
      Object.entries({ "sparsity 0.5": { sparsity: 0.5 }, "2:4": { keep: 2, of: 4 } }).map(([what, pattern]) => ({
        what,
        ours: sparseGpt(pattern),
        baseline: magnitude(pattern),
      })),
    ),
};
