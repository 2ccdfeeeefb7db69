export * from "./elementwise.ts";
export * from "./fill.ts";
export * from "./linalg.ts";
export * from "./reduce.ts";
export * from "./shape.ts";
