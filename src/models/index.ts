/** Architectures, and models in files. Opening what lies on disk is in `pare/models/node`. */
export * from "./decoder/config.ts";
export * from "./decoder/decoder.ts";
export * from "./decoder/resized.ts";
export * from "./decoder/weights.ts";
export * from "./errors.ts";
export { ggufStored, ggufWeights } from "./gguf/blocks.ts";
export * from "./gguf/read.ts";
export * from "./gguf/write.ts";
export * from "./load.ts";
export {
  asStored,
  describedWeights,
  descriptionIn,
  outlinesOf,
  type StoredWeight,
  type StoredWeights,
} from "./load-stored.ts";
export * from "./onnx-export.ts";
export { checkPacked } from "./pack-scheme.ts";
