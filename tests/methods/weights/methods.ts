import type { MatrixMethod } from "../../../src/methods/index.ts";
import { Dense } from "../../../src/nn/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";

/** A method that changes nothing. */
export const identity: MatrixMethod = {
  name: "identity",
  calibrated: false,
  compress: async ({ weight }) => new Dense(weight.clone()),
};

/** Rounds to a grid that all matrices share. */
export function coarse(step: number, calibrated = false): MatrixMethod {
  return {
    name: `coarse ${step}`,
    calibrated,
    compress: async ({ weight }) =>
      new Dense(
        new HostTensor(
          "f32",
          weight.shape,
          (weight.data as Float32Array).map((v) => Math.round(v / step) * step),
        ),
      ),
  };
}

/** `[count, length]` random tokens. */
export function randomWindows(vocab: number, count: number, length: number, seed = 1): HostTensor {
  return HostTensor.from(BigInt64Array.from(new Rng(seed).integers(count * length, vocab).map(BigInt)), {
    shape: [count, length],
  });
}
