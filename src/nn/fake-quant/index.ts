/** Training for few bits: matrices and inputs that are rounded forward, and have gradients of their own backward. */
export * from "./block-rounding.ts";
export * from "./fake-quantized.ts";
export * from "./gaussian-scale.ts";
export * from "./input-rounding.ts";
export * from "./level-packing.ts";
export * from "./lsq.ts";
export * from "./rounding.ts";
export * from "./row-scale.ts";
export * from "./unrounded.ts";
