/** What training changed in a model's weights, and training of what it should change. */
export * from "./analyze.ts";
export * from "./bfloat.ts";
export * from "./bit-mask.ts";
export { type Check, type PerturbationBounds, perturbationBounds } from "./bounds.ts";
export * from "./scramble.ts";
export * from "./spectral-adapters.ts";
export { lowMagnitudeMask, principalMask, type Rank, safeMask } from "./spectrum.ts";
export * from "./summary.ts";
export * from "./training-masks.ts";
