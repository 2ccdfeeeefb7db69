/** Reinforcement learning of policies that write text, from rewards that a program can check. */
export * from "./advantages.ts";
export * from "./errors.ts";
export * from "./objective.ts";
export * from "./policy.ts";
export * from "./prompt-batches.ts";
export * from "./rollouts.ts";
export * from "./train-policy.ts";
export * from "./verifiers.ts";
