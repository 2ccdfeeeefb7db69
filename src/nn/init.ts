import { HostTensor, type Rng } from "../tensor/index.ts";

/** Normal numbers with mean 0 and the given standard deviation, `f32`. */
export function normalInit(shape: readonly number[], deviation: number, rng: Rng): HostTensor {
  const result = HostTensor.zeros("f32", shape);
  const data = result.data as Float32Array;
  for (let i = 0; i < data.length; i++) data[i] = deviation * rng.normal();
  return result;
}

/** Uniform numbers in `[-bound, bound]`, `f32`. */
export function uniformInit(shape: readonly number[], bound: number, rng: Rng): HostTensor {
  const result = HostTensor.zeros("f32", shape);
  const data = result.data as Float32Array;
  for (let i = 0; i < data.length; i++) data[i] = bound * (2 * rng.uniform() - 1);
  return result;
}

/** He's initialisation for layers followed by a rectifier: deviation `sqrt(2 / fanIn)` (He et al. 2015). */
export function heInit(shape: readonly number[], rng: Rng): HostTensor {
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  return normalInit(shape, Math.sqrt(2 / fanIn), rng);
}

export function onesInit(shape: readonly number[]): HostTensor {
  const result = HostTensor.zeros("f32", shape);
  (result.data as Float32Array).fill(1);
  return result;
}
