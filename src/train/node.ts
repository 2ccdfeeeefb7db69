/** Training on Node: checkpoints, logs and curves in files. */
export * from "./chart-page.node.ts";
export * from "./checkpoint.node.ts";
export * from "./curve.node.ts";
export * from "./run-log.node.ts";
