/** Graphs to and from ONNX files. */
export * from "./check.ts";
export * from "./errors.ts";
export * from "./from-onnx.ts";
export * from "./fuse-norms.ts";
export * from "./graph.ts";
export * from "./lower.ts";
export { tensorProto } from "./node-writer.ts";
export type { ExternalData, ExternalRange } from "./read-tensor.ts";
export * from "./to-onnx.ts";
