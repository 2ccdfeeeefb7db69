/** Structured pruning: which layers, neurons and channels of a decoder matter, and decoders of fewer of them. */
export * from "./importance.ts";
export * from "./prune.ts";
