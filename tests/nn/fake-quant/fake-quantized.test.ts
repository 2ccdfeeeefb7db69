import { describe, expect, it } from "vitest";
import {
  blockRounding,
  Dense,
  type FakeQuantization,
  FakeQuantized,
  fakeQuantized,
  optim,
  packedWeights,
  straightThrough,
  tokenRounding,
  type Weight,
} from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import {
  grad,
  HostTensor,
  linear,
  mean,
  mul,
  round,
  square,
  sub,
  sum,
  type Tensor,
} from "../../../src/tensor/index.ts";
import { train } from "../../../src/train/index.ts";
import { evaluate, normal, relativeError } from "../weights/support.ts";

const int4: FakeQuantization = { weight: blockRounding({ format: "int4", block: 16 }) };

describe("straightThrough", () => {
  it("passes the gradient on as if nothing had happened, or times a mask", async () => {
    const x = HostTensor.from([0.2, 1.4, -2.6]);
    await using program = await compile(
      (t: Tensor) => {
        const weights = HostTensor.from([1, 2, 3]);
        const masked = straightThrough(t, round, (value) => round(mul(value, 0.4)));
        return [grad(sum(mul(straightThrough(t, round), weights)), t), grad(sum(mul(masked, weights)), t), round(t)];
      },
      [x],
      { threads: 1 },
    );
    const [plain, masked, values] = await program(x);
    expect([...plain!.data]).toEqual([1, 2, 3]);
    expect([...masked!.data]).toEqual([0, 2, -3]);
    expect([...values!.data]).toEqual([0, 1, -3]);
  });
});

describe("blockRounding", () => {
  it("puts every entry on its block's grid of sixteen values", async () => {
    const weight = FakeQuantized.of(normal(1, 4, 32), int4);
    await using program = await compile(() => weight.dense(), [], { threads: 1 });
    const { data } = await program();
    for (let block = 0; block < 8; block++) {
      const latent = [...(weight.latent as HostTensor).data].slice(16 * block, 16 * block + 16) as number[];
      const step = Math.max(...latent.map(Math.abs)) / 7;
      latent.forEach((value, i) => {
        expect(data[16 * block + i]).toBeCloseTo(step * Math.max(-8, Math.min(7, Math.round(value / step))), 5);
      });
    }
  });

  it.each(["int8", "int4", "int3", "int2"] as const)("packs %s into blocks that compute the same", async (format) => {
    for (const block of [16, "channel"] as const) {
      const weight = FakeQuantized.of(normal(2, 8, 48), { weight: blockRounding({ format, block }) });
      const x = normal(3, 5, 48);
      const [trained, packed] = [await evaluate(weight, x), await evaluate(await weight.packed(), x)];
      expect(relativeError(packed.dense.data as Float32Array, [...(trained.dense.data as Float32Array)])).toBeLessThan(
        1e-6,
      );
      expect(
        relativeError(packed.product.data as Float32Array, [...(trained.product.data as Float32Array)]),
      ).toBeLessThan(1e-5);
    }
  });

  it("stays finite for a matrix of zeros", async () => {
    const weight = FakeQuantized.of(HostTensor.zeros("f32", [2, 16]), int4);
    const { dense } = await evaluate(weight, normal(1, 1, 16));
    expect([...dense.data]).toEqual(new Array(32).fill(0));
  });
});

describe("FakeQuantized", () => {
  it("turns matrix and input before it rounds them, which changes next to nothing at 8 bits", async () => {
    const matrix = normal(4, 6, 64);
    const x = normal(5, 3, 64);
    const how: FakeQuantization = {
      weight: blockRounding({ format: "int8", block: "channel" }),
      input: tokenRounding(8),
      hadamard: 32,
    };
    const weight = FakeQuantized.of(matrix, how);
    const { product, dense } = await evaluate(weight, x);
    const plain = await evaluate(new Dense(matrix), x);
    expect(relativeError(dense.data as Float32Array, [...(matrix.data as Float32Array)])).toBeLessThan(0.01);
    expect(relativeError(product.data as Float32Array, [...(plain.product.data as Float32Array)])).toBeLessThan(0.02);
    const packed = await evaluate(await weight.packed(), x);
    expect(relativeError(packed.product.data as Float32Array, [...(product.data as Float32Array)])).toBeLessThan(1e-4);
    expect(
      relativeError(packed.rows.data as Float32Array, [...(await evaluate(weight, x)).rows.data] as number[]),
    ).toBeLessThan(1e-4);
  });

  it("trains through its rounding, and the packed weight is what was trained", async () => {
    const target = normal(6, 4, 16);
    const x = normal(7, 64, 16);
    const weights = { w: FakeQuantized.of(normal(8, 4, 16), int4) };
    let batches = 0;
    const { params, log } = await train({
      params: weights,
      data: { next: () => ({ x }), state: () => batches++, restore: () => undefined },
      steps: 150,
      loss: (p, batch) => mean(square(sub(p.w.apply(batch.x), linear(batch.x, target)))),
      optimizer: optim.adamw({ weightDecay: 0 }),
      schedule: optim.linearDecay(0.05, 150),
      threads: 1,
    });
    const losses = log.map(({ values }) => values["loss"]!);
    expect(losses.at(-1)).toBeLessThan(0.03 * losses[0]!);
    const trained = await evaluate(params.w, x);
    const packed = await evaluate((await packedWeights(params))["w"] as Weight, x);
    expect(
      relativeError(packed.product.data as Float32Array, [...(trained.product.data as Float32Array)]),
    ).toBeLessThan(1e-5);
  });

  it("refuses matrices that cannot be rounded so, by name", async () => {
    const bad = HostTensor.from([1, 2, Number.NaN, 4], { shape: [2, 2] });
    await expect(fakeQuantized({ "a.weight": bad }, () => int4)).rejects.toThrow(
      '"a.weight": the matrix holds NaN in row 1, column 0; only finite numbers can be rounded',
    );
    await expect(fakeQuantized({ "a.weight": normal(1, 4, 24) }, () => int4)).rejects.toThrow(
      '"a.weight": a width of 24 is not made of blocks of 16; choose a block that divides it',
    );
    expect(() => FakeQuantized.of(normal(1, 4, 24), { ...int4, hadamard: 16 })).toThrow(
      "an input of 24 entries cannot be turned in blocks of 16",
    );
  });

  it("leaves vectors and what is not chosen alone", async () => {
    const weights = { "norm.weight": normal(1, 16), "a.weight": normal(2, 4, 16), "b.weight": normal(3, 4, 16) };
    const result = await fakeQuantized(weights, (name) => (name === "b.weight" ? int4 : null));
    expect(result["norm.weight"]).toBe(weights["norm.weight"]);
    expect(result["a.weight"]).toBe(weights["a.weight"]);
    expect((result["b.weight"] as Weight).kind).toBe("fake-quantized");
  });
});
