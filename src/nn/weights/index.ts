/** What compression makes of a weight matrix. */
export * from "./affine-input.ts";
export { type BlockFormat, blockFormats } from "./block-format.ts";
export { type BlockLayout, type BlockParts, BlockWeight } from "./blocks.ts";
export * from "./codebook.ts";
export * from "./compressed-tensors.ts";
export * from "./exact-blocks.ts";
export * from "./grid-input.ts";
export * from "./hadamard.ts";
export * from "./half.ts";
export * from "./kept-rows.ts";
export * from "./low-rank.ts";
export * from "./round.ts";
export * from "./rounded-input.ts";
export * from "./sparse.ts";
export * from "./sparse24.ts";
export * from "./store.ts";
export * from "./sum.ts";
export * from "./transformed.ts";
