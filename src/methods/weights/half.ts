import { HalfWeight } from "../../nn/index.ts";
import type { MatrixMethod } from "./method.ts";

/** Half precision, which is computed in `f32`. */
export function half(dtype: "f16" | "bf16"): MatrixMethod {
  return { name: dtype, calibrated: false, compress: async ({ weight }) => new HalfWeight(weight.cast(dtype)) };
}
