/** Training for few bits: matrices and inputs that are rounded forward, and have gradients of their own backward. */
export * from "./block-rounding.ts";
export * from "./fake-quantized.ts";
export * from "./input-rounding.ts";
export * from "./rounding.ts";
