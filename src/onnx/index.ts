/** Graphs to and from ONNX files. */
export * from "./errors.ts";
export * from "./graph.ts";
export * from "./lower.ts";
export * from "./to-onnx.ts";
