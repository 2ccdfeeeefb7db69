/** File formats: everything that reads what it did not write. Files on disk are in `pare/formats/node`. */
export * from "./bytes.ts";
export * from "./errors.ts";
export * from "./gguf/dequantize.ts";
export * from "./gguf/gguf.ts";
export * from "./gguf/llama.ts";
export type { Metadata as GgufMetadata, MetadataValue as GgufValue } from "./gguf/metadata.ts";
export * from "./gguf/quantize.ts";
export * from "./gguf/types.ts";
export * from "./gguf/write.ts";
export { ggufLimits, type Limits, llama2cLimits, safetensorsLimits } from "./limits.ts";
export * from "./llama-config.ts";
export * from "./llama2c.ts";
export * from "./llama2c-tokenizer.ts";
export * from "./safetensors.ts";
export * from "./safetensors-shards.ts";
export * from "./safetensors-write.ts";
export * from "./tensor-file.ts";
