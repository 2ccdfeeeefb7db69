import type { Weights } from "../../src/models/index.ts";
import { Dense, roundToBlocks } from "../../src/nn/index.ts";
import { isHostTensor } from "../../src/tensor/index.ts";
import { type Precision, precisions } from "./shapes.ts";

/** The weights of a model at a precision: all matrices packed, the embedding table and a tied head with them. */
export function quantized(weights: Weights, precision: Precision): Weights {
  const { rounding } = precisions[precision];
  if (!rounding) return weights;
  return Object.fromEntries(
    Object.entries(weights).map(([name, weight]) => {
      const matrix = weight instanceof Dense && isHostTensor(weight.values) ? weight.values : null;
      return [name, matrix ? roundToBlocks(matrix, rounding) : weight];
    }),
  );
}
