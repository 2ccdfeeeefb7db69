/** Post-training compression of weights: the driver, its calibration and plans, and the methods for one matrix. */
export * from "./calibration.ts";
export * from "./compress.ts";
export * from "./gptq.ts";
export * from "./hidden.ts";
export * from "./knapsack.ts";
export * from "./loss.ts";
export * from "./method.ts";
export { type BlockOptions, nearest } from "./nearest.ts";
export * from "./plan.ts";
export * from "./report.ts";
export * from "./sensitivity.ts";
export * from "./source.ts";
export * from "./statistics.ts";
