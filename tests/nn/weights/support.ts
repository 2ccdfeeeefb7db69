import { InferenceSession, Tensor } from "onnxruntime-node";
import { expect } from "vitest";
import type { Weight } from "../../../src/nn/index.ts";
import { makeGraph, modelOf, OPSET, toOnnx } from "../../../src/onnx/index.ts";
import { type CompileOptions, compile } from "../../../src/runtime/index.ts";
import { HostTensor, input, isHostTensor, leavesOf, Rng } from "../../../src/tensor/index.ts";

/** A matrix of normal numbers. */
export const normal = (seed: number, ...shape: number[]): HostTensor => new Rng(seed).normalTensor(shape);

/** `x [n, in]` times the transpose of `matrix [out, in]`, by plain loops. */
export function plainProduct(x: HostTensor, matrix: ArrayLike<number>, out: number): number[] {
  const [n, width] = x.shape as [number, number];
  const result: number[] = [];
  for (let i = 0; i < n; i++)
    for (let o = 0; o < out; o++) {
      let total = 0;
      for (let k = 0; k < width; k++) total += x.at(i * width + k) * matrix[o * width + k]!;
      result.push(total);
    }
  return result;
}

/** Root mean square of the difference over that of `expected`. */
export function relativeError(actual: ArrayLike<number>, expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length);
  const square = (f: (i: number) => number): number => expected.reduce((sum, _, i) => sum + f(i) ** 2, 0);
  return Math.sqrt(
    square((i) => actual[i]! - expected[i]!) /
      Math.max(
        square((i) => expected[i]!),
        1e-30,
      ),
  );
}

/** `x` times the transpose of the weight, two of its rows (the last, the first), and the matrix. */
export async function evaluate(weight: Weight, x: HostTensor, options: CompileOptions = {}) {
  const ids = HostTensor.from([BigInt(weight.shape[0] - 1), 0n]);
  await using program = await compile(
    (t, i) => ({ product: weight.apply(t), rows: weight.rows(i), dense: weight.dense() }),
    [x, ids],
    { threads: 1, ...options },
  );
  return await program(x, ids);
}

/** As `evaluate`, with the weight's parts fed instead of being constants. */
export async function evaluateFed(weight: Weight, x: HostTensor) {
  await using program = await compile((w, t) => ({ product: w.apply(t), dense: w.dense() }), [weight, x], {
    threads: 1,
  });
  return await program(weight as never, x);
}

/** `x` times the transpose of the weight, from a file of standard operators only. */
export async function evaluatePortable(weight: Weight, x: HostTensor): Promise<number[]> {
  const t = input("x", x);
  const graph = makeGraph([{ name: "x", tensor: t }], [{ name: "y", tensor: weight.apply(t) }]);
  expect(modelOf(graph, { portable: true }).opsetImport).toEqual([{ domain: "", version: OPSET }]);
  const session = await InferenceSession.create(toOnnx(graph, { portable: true }), { intraOpNumThreads: 1 });
  const outputs = await session.run({ x: new Tensor("float32", x.data as Float32Array, x.shape) });
  await session.release();
  return Array.from(outputs.y!.data as Float32Array);
}

/**
 * Checks a weight against the matrix that it stands for: `dense`, `rows` and `apply`, as a constant of the program and
 * fed to it. `tolerance` is for products, in relation to their size.
 */
export async function expectWeight(weight: Weight, matrix: ArrayLike<number>, tolerance = 1e-5): Promise<void> {
  const [out, width] = weight.shape;
  const x = normal(7, 3, width);
  const want = plainProduct(x, matrix, out);
  const fixed = await evaluate(weight, x);
  // onnxruntime takes no bf16 arguments.
  const fed = leavesOf(weight, isHostTensor).some(({ leaf }) => leaf.dtype === "bf16")
    ? fixed
    : await evaluateFed(weight, x);
  const values = Array.from(matrix);
  for (const dense of [fixed.dense, fed.dense]) {
    expect(dense.shape).toEqual([out, width]);
    expect(dense.toArray()).toEqual(values);
  }
  expect(fixed.rows.shape).toEqual([2, width]);
  expect(fixed.rows.toArray()).toEqual([...values.slice((out - 1) * width), ...values.slice(0, width)]);
  for (const product of [fixed.product, fed.product]) {
    expect(product.shape).toEqual([3, out]);
    expect(relativeError(product.toArray(), want)).toBeLessThan(tolerance);
  }
}
