import { type CompileOptions, compile } from "../../src/runtime/index.ts";
import type { HostTensor, Tensor } from "../../src/tensor/index.ts";

/** Traces `fn` on inputs of the given types, runs it once on onnxruntime's CPU device, and returns its outputs. */
export async function run(
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  ...inputs: HostTensor[]
): Promise<HostTensor[]> {
  return runOn({}, fn, ...inputs);
}

/** As `run`, with options such as the device. */
export async function runOn(
  options: CompileOptions,
  fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[],
  ...inputs: HostTensor[]
): Promise<HostTensor[]> {
  const program = await compile((...args) => [fn(...(args as unknown as Tensor[]))].flat() as Tensor[], inputs, {
    threads: 1,
    ...options,
  });
  try {
    return (await program(...inputs)) as unknown as HostTensor[];
  } finally {
    await program.dispose();
  }
}
