import { isLayerMatrix } from "../../../models/index.ts";
import {
  blockRounding,
  type FakeQuantization,
  fakeQuantized,
  packedWeights,
  type WholeFormat,
} from "../../../nn/index.ts";
import { type ParetoBits, paretoqRate, paretoqRounding } from "../paretoq/index.ts";
import { type QuestOptions, questPack, questWeights } from "../quest/index.ts";
import type { TrainingMethod } from "./method.ts";

/** Training through the rounding of all matrices of the layers, which are packed at the end. */
export function quantizedTraining(name: string, rate: number, how: FakeQuantization): TrainingMethod {
  return {
    name,
    rate,
    start: async ({ config, weights }) => ({
      config,
      weights: await fakeQuantized(weights, (matrix) => (isLayerMatrix(matrix) ? how : null)),
    }),
    finish: async ({ config, weights }) => ({ config, weights: await packedWeights(weights) }),
  };
}

/**
 * ParetoQ (Liu et al. 2025, arXiv:2502.02631) on all matrices of the layers: rounding with a learned scale for each row.
 * @param bits 1.58 is ternary
 */
export function paretoqTraining(bits: ParetoBits): TrainingMethod {
  return quantizedTraining(`paretoq, ${bits} bits`, paretoqRate(bits), { weight: paretoqRounding(bits) });
}

/**
 * QuEST (Panferov et al. 2025, arXiv:2502.05003) on all matrices of the layers: weights and their inputs turned by a
 * Hadamard transform and rounded to Gaussian grids, gradients through what is trusted.
 */
export function questTraining(options: QuestOptions): TrainingMethod {
  const { weightBits, inputBits } = options;
  return {
    name: `quest, ${weightBits}-bit weights, ${inputBits}-bit inputs`,
    rate: 5e-4,
    start: async ({ config, weights }) => ({ config, weights: await questWeights(weights, options) }),
    finish: async ({ config, weights }) => ({ config, weights: await questPack(weights) }),
  };
}

/**
 * Plain quantization-aware training: whole-number blocks whose scales follow the weights, gradients straight through
 * (Jacob et al. 2018, arXiv:1712.05877).
 */
export function blockTraining(format: WholeFormat, block: number | "channel"): TrainingMethod {
  const weight = blockRounding({ format, block });
  return quantizedTraining(`quantization-aware, ${weight.name}`, 2e-4, { weight });
}
