import { expect } from "vitest";
import { HostTensor } from "../../src/tensor/index.ts";

/** Central finite differences of `f` at `x`. */
export function differences(f: (x: Float64Array) => number, x: Float64Array, step = 1e-5): Float64Array {
  return x.map((value, i) => {
    const moved = x.slice();
    moved[i] = value + step;
    const up = f(moved);
    moved[i] = value - step;
    return (up - f(moved)) / (2 * step);
  });
}

/** Numbers between -1 and 1 that depend on `seed` alone (a linear congruential generator). */
export function noise(count: number, seed: number): Float64Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return Float64Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

export const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

export const f32 = (values: ArrayLike<number>, shape: readonly number[]): HostTensor =>
  new HostTensor("f32", shape, Float32Array.from(values));

export const f64 = (values: ArrayLike<number>, shape: readonly number[]): HostTensor =>
  new HostTensor("f64", shape, Float64Array.from(values));

/** Fails where `got` is further from `want` than `tolerance` times the largest number of `want` (at least 1). */
export function expectClose(got: HostTensor | undefined, want: ArrayLike<number>, tolerance = 1e-4): void {
  const values = got!.toArray();
  expect(values.length).toBe(want.length);
  const scale = Math.max(1, ...Array.from(want, Math.abs));
  values.forEach((v, i) => {
    if (!(Math.abs(v - want[i]!) <= tolerance * scale)) expect(values).toEqual(Array.from(want));
  });
}
