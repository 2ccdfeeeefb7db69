import { exactBlocks, LEAST_SCALE, straightThrough, type WeightRounding } from "../../nn/index.ts";
import {
  abs,
  clip,
  div,
  less,
  max,
  maximum,
  mean,
  mul,
  round,
  scalar,
  type Tensor,
  where,
} from "../../tensor/index.ts";

/** A rounding whose scale, one for each row, follows from the row at every step; the gradient passes straight through. */
function rowRounding(
  name: string,
  format: "binary" | "ternary",
  scaleOf: (rows: Tensor) => Tensor,
  onto: (z: Tensor) => Tensor,
): WeightRounding {
  return {
    name,
    apply: (latent) =>
      straightThrough(latent, (w) => {
        const scale = maximum(scaleOf(w), LEAST_SCALE);
        return mul(onto(div(w, scale)), scale);
      }),
    pack: ({ rounded }) => exactBlocks(rounded, { format, block: "channel", exact: true }),
  };
}

const along = { axes: [1], keepDims: true };
const largest = (w: Tensor): Tensor => max(abs(w), along);
const toThree = (z: Tensor): Tensor => clip(round(z), -1, 1);

/**
 * The grid of LLM-QAT, from the largest magnitude down, whose codes are one side of zero only: at 2 bits as at ternary -1, 0 and
 * 1 times the largest, at 1 bit its sign.
 */
export function minMax(bits: 1 | 1.58 | 2): WeightRounding {
  const signs = (z: Tensor): Tensor => where(less(z, 0), scalar(-1, z.dtype), 1);
  return rowRounding(
    `min-max to ${bits} bits`,
    bits === 1 ? "binary" : "ternary",
    largest,
    bits === 1 ? signs : toThree,
  );
}

/** Ternary as BitNet b1.58 has it (Ma et al. 2024), with the mean magnitude as the scale, here of each row. */
export const absMean: WeightRounding = rowRounding("absmean ternary", "ternary", (w) => mean(abs(w), along), toThree);
