import { Dense } from "../weight.ts";
import type { WeightRounding } from "./rounding.ts";

/** Leaves a matrix as it is, for training in which only its inputs are rounded. */
export const unrounded: WeightRounding = {
  name: "not rounded",
  apply: (latent) => latent,
  pack: ({ rounded }) => new Dense(rounded),
};
