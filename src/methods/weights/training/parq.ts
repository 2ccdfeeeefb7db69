import { isLayerMatrix } from "../../../models/index.ts";
import type { Weight } from "../../../nn/index.ts";
import type { Leaf } from "../../../tensor/index.ts";
import { type LevelBits, type ParqOptions, packQuantized, parq, type QuantGroup } from "../parq/index.ts";
import type { TrainingMethod } from "./method.ts";

/**
 * PARQ (Jin et al. 2025, arXiv:2503.15748) on all matrices of the layers, a set of levels for each row: weights glide onto
 * their levels over the first four fifths of the run, and stay on them for the rest.
 * @param bits 0 is ternary
 */
export function parqTraining(
  bits: LevelBits,
  { levels = "lsbq", ...options }: Partial<ParqOptions> & Pick<QuantGroup, "levels"> = {},
): TrainingMethod {
  const groups: readonly QuantGroup[] = [
    { match: (path) => isLayerMatrix(path.replace(/\.values$/, "")), bits, levels },
  ];
  return {
    name: `parq, ${bits === 0 ? "ternary" : `${bits} bits`}`,
    rate: 5e-4,
    start: async (model) => model,
    optimizer: (inner, steps) => parq(inner, groups, { annealEnd: Math.round(0.8 * steps), steepness: 10, ...options }),
    finish: async ({ config, weights }) => ({
      config,
      weights: packQuantized<Weight | Leaf>(weights, groups),
    }),
  };
}
