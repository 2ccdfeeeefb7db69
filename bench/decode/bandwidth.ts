import { compile, type Program } from "../../src/runtime/index.ts";
import { HostTensor, matmul, spec } from "../../src/tensor/index.ts";
import type { Participant } from "../harness.ts";

const [rows, columns] = [4096, 8192];

/** Bytes that one step reads, 128 MiB: more than caches hold. */
export const bandwidthBytes = 4 * rows * columns;

/** onnxruntime's product of a vector and a large `f32` matrix, which does little but read the matrix. */
export function create(threads: number): Participant {
  const matrix = new HostTensor("f32", [rows, columns], new Float32Array(rows * columns).fill(1));
  const vector = new HostTensor("f32", [1, rows], new Float32Array(rows).fill(1));
  const type = spec("f32", [1, rows]);
  let program: Program<[typeof type], unknown>;
  return {
    async setup() {
      program = await compile((x) => matmul(x, matrix), [type], { threads, spin: true });
    },
    async step() {
      return ((await program(vector)) as HostTensor).at(0);
    },
    async dispose() {
      await program.dispose();
    },
  };
}
