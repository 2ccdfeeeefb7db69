import { expect } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import { grad, HostTensor, mul, sum, type Tensor } from "../../src/tensor/index.ts";

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

/**
 * Holds the gradient rules inside `f` against central finite differences of `f` itself. `f` returns one tensor, made
 * of floating-point inputs; it is contracted with fixed weights into a scalar first.
 */
export async function expectGradient(
  f: (...inputs: Tensor[]) => Tensor,
  inputs: readonly HostTensor[],
  { step = 1e-5, tolerance = 1e-6 }: { step?: number; tolerance?: number } = {},
): Promise<void> {
  const program = await compile(
    (...args) => {
      const xs = args as unknown as Tensor[];
      const y = f(...xs);
      const weights = hostOf(y.shape as number[], (i) => 1 + wave(i), y.dtype);
      const loss = sum(mul(y, weights));
      return { loss, grads: grad(loss, xs) };
    },
    [...inputs],
    { threads: 1 },
  );
  try {
    const { grads } = await program(...inputs);
    for (const [k, x] of inputs.entries()) {
      const numeric: number[] = [];
      for (let i = 0; i < x.size; i++) {
        const at = async (shift: number): Promise<number> => {
          const moved = x.clone();
          moved.set(i, x.at(i) + shift);
          return (await program(...inputs.map((t, j) => (j === k ? moved : t)))).loss.item();
        };
        numeric.push(((await at(step)) - (await at(-step))) / (2 * step));
      }
      expectClose((grads as HostTensor[])[k]!.toArray(), numeric, tolerance, `gradient of input ${k}`);
    }
  } finally {
    await program.dispose();
  }
}

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
