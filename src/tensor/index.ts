/** Symbolic tensors: types, operations, differentiation. */
export * from "./dims.ts";
export * from "./dtype.ts";
export * from "./errors.ts";
export * from "./grad.ts";
export * from "./host.ts";
export * from "./known.ts";
export * from "./ops/index.ts";
export * from "./rng.ts";
export * from "./suggest.ts";
export * from "./tensor.ts";
export * from "./tree.ts";
export * from "./when.ts";
