/**
 * What most programs need of pare. Everything else is under the subpath of its floor, such as `pare/formats`.
 */

export * as nn from "./nn/index.ts";
export * as optim from "./nn/optim/index.ts";
export { type CompileOptions, compile, compileLoop, type Device, type Program } from "./runtime/index.ts";
export * as tensor from "./tensor/index.ts";
export { grad, HostTensor, PareError, spec, Tensor, valueAndGrad, vjp } from "./tensor/index.ts";
export { train } from "./train/index.ts";
