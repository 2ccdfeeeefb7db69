/** The script of the page that the tests open: what each does is a function of `scenarios`. */
import { compile, compileLoop, type CompileOptions } from "../../src/runtime/index.ts";
import { add, HostTensor, matmul, mul, spec } from "../../src/tensor/index.ts";
import { type Outcome, trainConvNet, trainDecoder } from "../devices/jobs.ts";

const scenarios = {
  isolated: (): boolean => crossOriginIsolated,
  hasWebGpu: async (): Promise<boolean> => (await navigator.gpu?.requestAdapter()) != null,
  trainDecoder: (options: CompileOptions): Promise<Outcome> => trainDecoder(options),
  trainConvNet: (options: CompileOptions): Promise<Outcome> => trainConvNet(options),
};

export type Scenarios = typeof scenarios;
Object.assign(globalThis, { scenarios });
