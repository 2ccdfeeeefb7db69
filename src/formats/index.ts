/** File formats: everything that reads what it did not write. Files on disk are in `pare/formats/node`. */
export * from "./bytes.ts";
export * from "./errors.ts";
export * from "./safetensors.ts";
export * from "./safetensors-shards.ts";
export * from "./safetensors-write.ts";
export * from "./tensor-file.ts";
