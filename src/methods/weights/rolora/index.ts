/** RoLoRA: low-rank fine-tuning of rotated models, which survive 4-bit weights and activations. */
export { type Adapter, adapterOf, decodeAdapter, encodeAdapter, mergeAdapter, weightsDigest } from "./adapter.ts";
export * from "./finetune.ts";
export * from "./outliers.ts";
export * from "./quantize.ts";
export * from "./rotate.ts";
