/** File formats on disk. */
export * from "./files.node.ts";
export * from "./gguf/gguf.node.ts";
export * from "./hf-folder.node.ts";
export * from "./hub.node.ts";
export * from "./json-lines.node.ts";
export * from "./safetensors.node.ts";
