import { AffineInput, roundAffine } from "../weights/affine-input.ts";
import { RoundedInput, roundInput } from "../weights/rounded-input.ts";
import type { InputRounding } from "./rounding.ts";

/**
 * Inputs rounded to `bits`-bit whole numbers around zero, with a step for each token from its largest magnitude; the
 * gradient passes straight through.
 */
export function tokenRounding(bits: number): InputRounding {
  return {
    name: `inputs to ${bits} bits a token`,
    apply: (x) => roundInput(x, bits),
    pack: (weight) => new RoundedInput(weight, { bits }),
  };
}

/** Inputs rounded to 8 bits between each token's least and greatest number; the gradient passes straight through. */
export const affineTokenRounding: InputRounding = {
  name: "inputs to 8 bits between a token's extremes",
  apply: roundAffine,
  pack: (weight) => new AffineInput(weight),
};
