import { HostTensor, type Rng } from "../tensor/index.ts";

/** He's initialisation for layers followed by a rectifier: deviation `sqrt(2 / fanIn)`, `f32` (He et al. 2015). */
export function heInit(shape: readonly number[], rng: Rng): HostTensor {
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  return rng.normalTensor(shape, { std: Math.sqrt(2 / fanIn) });
}

/** Ones, `f32`: the first value of norms' gains. */
export function onesInit(shape: readonly number[]): HostTensor {
  const result = HostTensor.zeros("f32", shape);
  (result.data as Float32Array).fill(1);
  return result;
}
