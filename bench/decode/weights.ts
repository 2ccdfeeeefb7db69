import { roundedMatrices } from "../../src/evaluate/index.ts";
import type { Weights } from "../../src/models/index.ts";
import { type Precision, precisions } from "./shapes.ts";

/** The weights of a model at a precision: all matrices packed, the embedding table and a tied head with them. */
export function quantized(weights: Weights, precision: Precision): Weights {
  const { rounding } = precisions[precision];
  return rounding ? roundedMatrices(weights, rounding) : weights;
}
