import { isLora, mergeLora } from "../../../train/index.ts";
import { withSpectralAdapters } from "../../interpret/index.ts";
import type { TrainingMethod } from "./method.ts";

/**
 * Adapters that hold a part of each matrix's spectrum, merged into it at the end: the largest singular directions (PiSSA;
 * Meng et al. 2024, arXiv:2404.02948), or the smallest (MiLoRA; Wang et al. 2024, arXiv:2406.09044).
 */
export function spectralTraining(kind: "pissa" | "milora", rank: number): TrainingMethod {
  const part = kind === "pissa" ? "principal" : "minor";
  return {
    name: `${kind} of rank ${rank}`,
    rate: 1e-3,
    start: async ({ config, weights }) => ({ config, weights: await withSpectralAdapters(weights, { rank, part }) }),
    trainable: isLora,
    finish: async ({ config, weights }) => ({ config, weights: await mergeLora(weights) }),
  };
}
