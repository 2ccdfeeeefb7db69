import {
  blockRounding,
  type FakeQuantization,
  fakeQuantized,
  packedWeights,
  type WholeFormat,
} from "../../../nn/index.ts";
import { isLayerMatrix, type TrainingMethod } from "./method.ts";

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
 * Plain quantization-aware training: whole-number blocks whose scales follow the weights, gradients straight through
 * (Jacob et al. 2018, arXiv:1712.05877).
 */
export function blockTraining(format: WholeFormat, block: number | "channel"): TrainingMethod {
  const weight = blockRounding({ format, block });
  return quantizedTraining(`quantization-aware, ${weight.name}`, 2e-4, { weight });
}
