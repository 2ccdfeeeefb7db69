/** Weights and their representations, named points, losses, initial values. */
export * from "./init.ts";
export * from "./losses.ts";
export * from "./points.ts";
export * from "./weight.ts";
