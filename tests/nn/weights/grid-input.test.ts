import { describe, expect, it } from "vitest";
import { Dense, GridInput, gaussianScale, restoreWeights, storeWeights, type Weight } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { evaluate, normal, relativeError } from "./support.ts";

const matrix = normal(1, 6, 16);

/** Rows at the nearest of `levels` numbers, the outermost at `scale` roots of each row's mean square. */
function rounded(x: HostTensor, levels: number, scale: number): HostTensor {
  const [rows, width] = x.shape as [number, number];
  const result = HostTensor.zeros("f32", x.shape);
  for (let r = 0; r < rows; r++) {
    const row = Array.from({ length: width }, (_, i) => x.at(r * width + i));
    const outer = scale * Math.sqrt(row.reduce((sum, v) => sum + v * v, 0) / width);
    const grid = Array.from({ length: levels }, (_, k) => outer * ((2 * k) / (levels - 1) - 1));
    row.forEach((v, i) => {
      result.set(
        r * width + i,
        grid.reduce((a, b) => (Math.abs(b - v) < Math.abs(a - v) ? b : a)),
      );
    });
  }
  return result;
}

describe("GridInput", () => {
  it.each([
    [2, gaussianScale(1)],
    [3, gaussianScale(1.585)],
    [16, gaussianScale(4)],
  ])("rounds each token to %i levels of its own", async (levels, scale) => {
    const x = normal(2, 5, 16);
    const { product, dense } = await evaluate(new GridInput(new Dense(matrix), { levels, scale }), x);
    const expected = await evaluate(new Dense(matrix), rounded(x, levels, scale));
    expect(relativeError(product.data as Float32Array, [...expected.product.data] as number[])).toBeLessThan(1e-5);
    expect([...dense.data]).toEqual([...matrix.data]);
  });

  it("is defined for a token of zeros, and for numbers whose squares are beyond half precision", async () => {
    const weight = new GridInput(new Dense(matrix), { levels: 2, scale: 0.8 });
    const zeros = await evaluate(weight, HostTensor.zeros("f32", [1, 16]));
    for (const value of zeros.product.data as Float32Array) expect(Math.abs(value)).toBeLessThan(1e-6);
    const large = HostTensor.from(new Float32Array(16).fill(1000), { shape: [1, 16] }).cast("f16");
    const half = new GridInput(new Dense(matrix.cast("f16")), { levels: 16, scale: 1 });
    const { product } = await evaluate(half, large);
    for (const value of product.toArray() as number[]) expect(Number.isFinite(value)).toBe(true);
  });

  it("rounds all tokens to one grid where the step is fixed, and survives being stored", async () => {
    const weight = new GridInput(new Dense(matrix), { levels: 4, step: HostTensor.from(0.5) });
    const x = normal(3, 4, 16);
    const { tensors, description } = storeWeights({ w: weight, v: new GridInput(weight, { levels: 3, scale: 1.5 }) });
    const again = restoreWeights(JSON.parse(JSON.stringify(description)), tensors);
    expect(again["v"]).toMatchObject({ kind: "grid-input", levels: 3, scale: 1.5, step: undefined });
    const [before, after] = [await evaluate(weight, x), await evaluate(again["w"] as Weight, x)];
    expect([...after.product.data]).toEqual([...before.product.data]);
    const ones = await evaluate(weight, HostTensor.from(new Float32Array(16).fill(3), { shape: [1, 16] }));
    const cut = await evaluate(new Dense(matrix), HostTensor.from(new Float32Array(16).fill(0.75), { shape: [1, 16] }));
    expect(relativeError(ones.product.data as Float32Array, [...cut.product.data] as number[])).toBeLessThan(1e-6);
  });

  it("refuses grids that are none", () => {
    const inner = new Dense(matrix);
    expect(() => new GridInput(inner, { levels: 1, scale: 1 })).toThrow("inputs are rounded to 2 to 256 levels, not 1");
    expect(() => new GridInput(inner, { levels: 4 })).toThrow(
      "a grid of inputs has a scale above 0 or a fixed step, not the scale 0",
    );
    expect(() => new GridInput(inner, { levels: 4, scale: 1, step: HostTensor.from(1) })).toThrow(
      "not the scale 1 and a step",
    );
    expect(() => new GridInput(inner, { levels: 4, step: HostTensor.from([1, 2]) })).toThrow(
      "the step of an input's grid is one number, not [2]",
    );
  });
});
