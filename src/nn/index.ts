/** Weights and their representations, named points, losses, initial values; update rules in `optim`. */
export * from "./fake-quant/index.ts";
export * from "./init.ts";
export * from "./losses.ts";
export * as optim from "./optim/index.ts";
export * from "./points.ts";
export * from "./weight.ts";
export * from "./weights/index.ts";
