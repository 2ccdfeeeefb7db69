/** Ways to train a decoder: all of it, adapters, weights of few bits. */
export * from "./adapters.ts";
export * from "./full.ts";
export * from "./method.ts";
export * from "./parq.ts";
export * from "./quantized.ts";
export * from "./rolora.ts";
export * from "./spectral.ts";
