import { describe, expect, it } from "vitest";
import { FakeQuantized, lsqInputRounding, lsqRound, lsqRounding, roundToLevels } from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import { grad, HostTensor, mul, sum, type Tensor } from "../../../src/tensor/index.ts";
import { evaluate, normal, relativeError } from "../weights/support.ts";

const x = HostTensor.from([-3, -0.6, -0.2, 0.1, 0.7, 1.9]);
const dy = [1, -2, 3, 4, -5, 6];

async function gradients(step: number, levels: number) {
  await using program = await compile(
    (t: Tensor, s: Tensor) => {
      const result = lsqRound(t, s, levels);
      return [result, ...grad(sum(mul(result, HostTensor.from(dy))), [t, s])];
    },
    [x, HostTensor.from(step)],
    { threads: 1 },
  );
  return (await program(x, HostTensor.from(step))).map((t) => [...t.data] as number[]);
}

describe("lsqRound", () => {
  it("rounds to levels evenly around zero", async () => {
    expect((await gradients(1, 4))[0]).toEqual([-1.5, -0.5, -0.5, 0.5, 0.5, 1.5]);
    expect((await gradients(2, 2))[0]).toEqual([-1, -1, -1, 1, 1, 1]);
    expect((await gradients(1, 3))[0]).toEqual([-1, -1, 0, 0, 1, 1]);
  });

  it("has the gradients of Esser et al.", async () => {
    const [, toInput, toStep] = await gradients(1, 4);
    expect(toInput).toEqual([0, -2, 3, 4, -5, 0]);
    // Cut off: the level in steps; else the level less the number, in steps.
    const moves = [-1.5, -0.5 + 0.6, -0.5 + 0.2, 0.5 - 0.1, 0.5 - 0.7, 1.5];
    const expected = moves.reduce((total, move, i) => total + move * dy[i]!, 0) / Math.sqrt(6);
    expect(toStep![0]).toBeCloseTo(expected, 5);
  });
});

describe("LSQ of matrices and inputs", () => {
  it.each([1, 1.585, 2, 3, 4, 8])("packs %f bits into codes that compute the same", async (bits) => {
    const weight = FakeQuantized.of(normal(1, 6, 32), {
      weight: lsqRounding({ bits }),
      input: lsqInputRounding({ bits, rms: 1 }),
    });
    const inputs = normal(2, 5, 32);
    const trained = await evaluate(weight, inputs);
    expect(new Set(trained.dense.toArray()).size).toBeLessThanOrEqual(Math.round(2 ** bits));
    const packed = await evaluate(await weight.packed(), inputs);
    for (const part of ["dense", "product", "rows"] as const)
      expect(relativeError(packed[part].data as Float32Array, [...trained[part].data] as number[])).toBeLessThan(1e-5);
  });

  it("learns a step for each, and starts where normal numbers are rounded best", async () => {
    const weight = FakeQuantized.of(normal(1, 64, 64), {
      weight: lsqRounding({ bits: 2 }),
      input: lsqInputRounding({ bits: 1, rms: 3 }),
    });
    expect(Object.keys(weight.learned)).toEqual(["logStep", "inputLogStep"]);
    const [own, input] = Object.values(weight.learned).map((leaf) => Math.exp((leaf as HostTensor).item()));
    expect(own).toBeCloseTo((2 * 1.4935) / 3, 1);
    expect(input).toBeCloseTo(2 * 0.79788 * 3, 3);
  });

  it("refuses bits without a scale", () => {
    expect(() => lsqRounding({ bits: 9 })).toThrow("there is no Gaussian scale for 9 bits");
    expect(() => lsqInputRounding({ bits: 0, rms: 1 })).toThrow("there is no Gaussian scale for 0 bits");
  });
});

describe("roundToLevels", () => {
  it.each([2, 3, 4, 7, 16])("takes the nearest of %i levels", async (levels) => {
    const values = normal(5, 40);
    const step = HostTensor.from(0.37);
    await using program = await compile((t: Tensor, s: Tensor) => roundToLevels(t, s, levels), [values, step], {
      threads: 1,
    });
    const grid = Array.from({ length: levels }, (_, i) => 0.37 * (i - (levels - 1) / 2));
    const rounded = (await program(values, step)).data as Float32Array;
    for (const [i, value] of (values.data as Float32Array).entries()) {
      const nearest = Math.min(...grid.map((level) => Math.abs(level - value)));
      expect(Math.abs(rounded[i]! - value)).toBeCloseTo(nearest, 2);
    }
  });
});
