/** QuEST: training language models from scratch with weights and activations of 1 to 4 bits. */
export * from "./alignment.ts";
export * from "./convert.ts";
export { keepLargerPairs } from "./pairs.ts";
export * from "./trust.ts";
