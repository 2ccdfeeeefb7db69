import { expect } from "vitest";
import { HostTensor } from "../../src/tensor/index.ts";

/** Host tensor of numbers that `value(i)` gives, `f64` unless said otherwise. */
export function hostOf(
  shape: readonly number[],
  value: (i: number) => number,
  dtype: HostTensor["dtype"] = "f64",
): HostTensor {
  const host = HostTensor.zeros(dtype, shape);
  for (let i = 0, n = host.size; i < n; i++) host.set(i, value(i));
  return host;
}

/** A fixed, patternless function of `i` with values in (-1, 1), for cotangents and test data. */
export const wave = (i: number): number => Math.sin(12.9898 * i + 78.233) * Math.cos(0.37 * i * i + 1);

/** Every number within `tolerance` of its match, absolutely for small and relatively for large ones. */
export function expectClose(
  actual: readonly number[],
  expected: readonly number[],
  tolerance: number,
  what = "",
): void {
  expect(actual.length, `${what}: count`).toBe(expected.length);
  actual.forEach((a, i) => {
    const e = expected[i]!;
    if (Object.is(a, e) || a === e) return;
    const error = Math.abs(a - e) / Math.max(1, Math.abs(e));
    expect(error, `${what} [${i}]: ${a} against ${e}`).toBeLessThanOrEqual(tolerance);
  });
}
