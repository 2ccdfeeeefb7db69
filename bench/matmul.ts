import { compile, type Program } from "../src/runtime/index.ts";
import { HostTensor, matmul, Rng, spec } from "../src/tensor/index.ts";
import type { Participant } from "./harness.ts";

const size = 1024;

/** Floating-point operations of the product that all throughputs are compared to. */
export const productFlops = 2 * size ** 3;

/** onnxruntime's MatMul of two 1024 x 1024 `f32` matrices, alone in a graph. */
export function create(threads: number): Participant {
  const rng = new Rng(0);
  const random = () =>
    new HostTensor(
      "f32",
      [size, size],
      Float32Array.from({ length: size ** 2 }, () => rng.uniform(-1, 1)),
    );
  const [a, b] = [random(), random()];
  const type = spec("f32", [size, size]);
  let program: Program<[typeof type, typeof type], unknown>;
  return {
    async setup() {
      program = await compile((x, y) => matmul(x, y), [type, type], { threads, spin: true });
    },
    async step() {
      return ((await program(a, b)) as HostTensor).at(0);
    },
    async dispose() {
      await program.dispose();
    },
  };
}
