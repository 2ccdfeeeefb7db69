import { svd, whitenedSvd } from "../methods/index.ts";
import { lowerPerplexity } from "./lower-perplexity.ts";
import type { System } from "./system.ts";

/** Whitened against plain truncated singular values, at equal rank. */
export const svdLlm: System = {
  name: "SVD-LLM",
  family: "weights",
  summary: "replaces matrices by two thin factors that are nearest to them on the inputs that they really get",
  paper: {
    title: "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model Compression",
    authors: "Wang, Zheng, Wan, Zhang",
    year: 2024,
    url: "https://arxiv.org/abs/2403.07378",
  },
  file: "src/methods/weights/svd.ts",
  command: "npx pare compress <model> --to lowrank --keep 0.6 --method svd-llm --calibrate <text> --out <folder>",
  claim:
    "singular values of whitened weights stand for losses of the output, so that dropping the least of them costs far less",
  bar: "lower held-out perplexity than plain truncation at equal rank, with 80 % and with 60 % of the parameters kept",
  experiment: (setting) =>
    lowerPerplexity(setting, () =>
      [0.8, 0.6].map((ratio) => ({
        what: `${100 * ratio} % of the parameters`,
        ours: whitenedSvd({ ratio }),
        baseline: svd({ ratio }),
      })),
    ),
};
