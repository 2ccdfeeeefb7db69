import { describe, expect, it } from "vitest";
import { checkModel, fuseNorms, lower, makeGraph, nodesOf, toOnnx } from "../../src/onnx/index.ts";
import { add, input, mul, rmsNorm, type Tensor } from "../../src/tensor/index.ts";
import { noiseTensor, runBytes } from "../support/foreign-model.ts";

const f32 = (name: string, ...shape: (number | string)[]): Tensor => input(name, { dtype: "f32", shape });

const NORM = "SimplifiedLayerNormalization";
const SKIP_NORM = "com.microsoft.SkipSimplifiedLayerNormalization";

function graphOf(outputs: Readonly<Record<string, Tensor>>, inputs: readonly Tensor[]) {
  return makeGraph(
    inputs.map((tensor, i) => ({ name: `in${i}`, tensor })),
    Object.entries(outputs).map(([name, tensor]) => ({ name, tensor })),
  );
}

/** Operators of a graph in order, without inputs and constants. */
const operators = (outputs: Readonly<Record<string, Tensor>>, inputs: readonly Tensor[]): string[] =>
  nodesOf(lower(graphOf(outputs, inputs)).outputs.map((p) => p.tensor))
    .map(({ op }) => op)
    .filter((op) => op !== "pare.Input" && op !== "Constant");

async function numbers(outputs: Readonly<Record<string, Tensor>>, inputs: readonly Tensor[], portable = false) {
  const bytes = toOnnx(graphOf(outputs, inputs), portable ? { portable } : {});
  checkModel(bytes);
  const feeds = inputs.map((t, i) => [`in${i}`, noiseTensor(t.shape as number[], i + 1)] as const);
  const results = await runBytes(bytes, Object.fromEntries(feeds));
  return Object.keys(outputs).map((name) => results[name]!.toArray() as number[]);
}

describe("fusing norms", () => {
  const inputs = [f32("x", 2, 3, 8), f32("y", 2, 3, 8), f32("g", 8)] as const;
  const [x, y, g] = inputs;
  const residual = (epsilon?: number): Record<string, Tensor> => {
    const sum = add(x, y);
    const first = rmsNorm(sum, g, epsilon === undefined ? {} : { epsilon });
    const next = add(sum, mul(first, 2));
    return { sum: next, last: rmsNorm(next, g) };
  };

  it("joins each addition with the norm behind it, and later readers of the sum read the same", () => {
    const before = residual();
    expect(operators(before, inputs)).toEqual(["Add", NORM, "Mul", "Add", NORM]);
    expect(operators(fuseNorms(before), inputs)).toEqual([SKIP_NORM, "Mul", SKIP_NORM]);
  });

  it.each([undefined, 0.3])("changes no number (epsilon %s), nor does its portable form", async (epsilon) => {
    const before = residual(epsilon);
    const expected = await numbers(before, inputs);
    for (const portable of [false, true])
      for (const [i, row] of (await numbers(fuseNorms(before), inputs, portable)).entries())
        for (const [j, v] of row.entries()) expect(v).toBeCloseTo(expected[i]![j]!, 5);
  });

  it("leaves alone what the kernel does not do", () => {
    const broadcast = { out: rmsNorm(add(x, g), g) };
    expect(operators(fuseNorms(broadcast), inputs)).toEqual(["Add", NORM]);
    const [a, h] = [f32("a", 3, 8), f32("h", 3, 8)];
    const wide = { out: rmsNorm(add(x, y), h, { axis: 1 }) };
    expect(operators(fuseNorms(wide), [...inputs, h])).toEqual(["Add", NORM]);
    const flat = { out: rmsNorm(add(a, h), g) };
    expect(operators(fuseNorms(flat), [a, h, g])).toEqual(["Add", NORM]);
    const plain = { out: rmsNorm(x, g), sum: add(x, y) };
    expect(fuseNorms(plain)).toEqual(plain);
  });
});
