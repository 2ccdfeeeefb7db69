/** Training: steps, data, the trainer. Checkpoint folders, log files and curves are in `pare/train/node`. */
export * from "./answers.ts";
export * from "./data.ts";
export * from "./examples.ts";
export * from "./lora.ts";
export * from "./progress.ts";
export * from "./rl/index.ts";
export * from "./step.ts";
export * from "./trainer.ts";
