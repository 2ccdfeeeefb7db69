import { describe, expect, it } from "vitest";
import {
  gradientAlignment,
  keepLargerPairs,
  type QuestBits,
  type QuestOptions,
  questPack,
  questQuantization,
  questWeights,
  trustRound,
  trustRounding,
} from "../../../src/methods/index.ts";
import {
  FakeQuantized,
  gaussianScale,
  hadamard,
  levelsOf,
  restoreWeights,
  storeWeights,
} from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import { grad, HostTensor, linear, mul, sum, type Tensor } from "../../../src/tensor/index.ts";
import { tokenBatch } from "../../../src/train/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { evaluate, normal, relativeError } from "../../nn/weights/support.ts";
import { logits } from "./equivalent.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };

/** `trustRound` of rows, and the gradient of the sum of its results. */
async function rounded(x: HostTensor, options: Parameters<typeof trustRound>[1]) {
  await using program = await compile(
    (t: Tensor) => {
      const result = trustRound(t, options);
      return [result, grad(sum(mul(result, 2)), t)];
    },
    [x],
    device,
  );
  const [values, gradient] = await program(x);
  return { values: values!.toArray() as number[], gradient: gradient!.toArray() as number[] };
}

describe("trustRound", () => {
  const x = normal(1, 6, 64);
  const rms = Array.from({ length: 6 }, (_, r) =>
    Math.sqrt(Array.from({ length: 64 }, (_, i) => x.at(r * 64 + i) ** 2).reduce((a, b) => a + b) / 64),
  );

  it.each([1, 1.585, 2, 3, 4])("rounds each row to its Gaussian grid of %f bits", async (bits) => {
    const { values, gradient } = await rounded(x, { bits });
    const levels = levelsOf(bits);
    values.forEach((value, i) => {
      const outer = gaussianScale(bits) * rms[Math.floor(i / 64)]!;
      const nearest = Math.min(
        ...Array.from({ length: levels }, (_, k) => Math.abs(outer * ((2 * k) / (levels - 1) - 1) - x.at(i))),
      );
      expect(Math.abs(value - x.at(i))).toBeCloseTo(nearest, 2);
      const trusted = Math.abs(x.at(i)) <= (bits === 1 ? 1.3 * outer : outer * (1 + 1 / (levels - 1)));
      expect(gradient[i]).toBe(trusted ? 2 : 0);
    });
    expect(gradient.includes(0)).toBe(true);
  });

  it("trusts as far as it is told, or everywhere", async () => {
    const distrusted = async (options: Omit<Parameters<typeof trustRound>[1], "bits">, bits: number) =>
      (await rounded(x, { bits, ...options })).gradient.filter((v) => v === 0).length;
    expect(await distrusted({ estimator: "straight-through" }, 1)).toBe(0);
    expect(await distrusted({ outerScale: 1.5 }, 1)).toBeLessThan(await distrusted({}, 1));
    expect(await distrusted({ trust: 0.5 }, 2)).toBeGreaterThan(await distrusted({}, 2));
  });

  it("is defined for rows of zeros", async () => {
    for (const bits of [1, 4]) {
      const { values, gradient } = await rounded(HostTensor.zeros("f32", [1, 8]), { bits });
      for (const value of values) expect(Math.abs(value)).toBeLessThan(1e-7);
      for (const value of gradient) expect([0, 2]).toContain(value);
    }
  });

  it("keeps the two larger of four pairs", async () => {
    const row = HostTensor.from([[1, 1, 0, 3, -2, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]);
    await using program = await compile((t: Tensor) => keepLargerPairs(t, t), [row], device);
    expect((await program(row)).toArray()).toEqual([0, 0, 0, 3, -2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    const { values, gradient } = await rounded(x, { bits: 4, sparsity: "2:4-pairs" });
    for (let i = 0; i < values.length; i += 8) {
      const zeros = values.slice(i, i + 8).filter((v) => v === 0).length;
      expect(zeros).toBe(4);
    }
    // A large number that became a zero is not trusted.
    values.forEach((value, i) => {
      const half = (gaussianScale(4) / 15) * rms[Math.floor(i / 64)]!;
      if (value === 0 && Math.abs(x.at(i)) > 1.01 * half) expect(gradient[i]).toBe(0);
    });
  });

  it("refuses rows without whole groups, and bits without a scale", async () => {
    await expect(rounded(normal(1, 2, 12), { bits: 2, sparsity: "2:4-pairs" })).rejects.toThrow(
      "2:4 sparsity in pairs needs rows of a multiple of 8 entries, not 12",
    );
    expect(() => trustRounding({ bits: 10 })).toThrow("there is no Gaussian scale for 10 bits");
  });
});

describe("a matrix in training by QuEST", () => {
  it("computes the product of the plain one but for rounding: the same transform on both sides", async () => {
    const [x, w] = [normal(2, 5, 96), normal(3, 7, 96)];
    await using program = await compile(
      (a: Tensor, b: Tensor) => [linear(a, b), linear(hadamard(a, 32), hadamard(b, 32))],
      [x, w],
      device,
    );
    const [plain, turned] = await program(x, w);
    expect(relativeError(turned!.data as Float32Array, plain!.toArray() as number[])).toBeLessThan(1e-4);
    const how = questQuantization(96, { weightBits: 8, inputBits: 8 })!;
    expect(how.hadamard).toBe(32);
    const { product } = await evaluate(FakeQuantized.of(w, how), x);
    expect(relativeError(product.data as Float32Array, plain!.toArray() as number[])).toBeLessThan(0.03);
  });

  const packings: [QuestBits, QuestBits, Partial<QuestOptions>][] = [
    [1, 1, {}],
    [1.585, 2, {}],
    [2, 2, {}],
    [3, 3, {}],
    [4, 4, {}],
    [6, 6, {}],
    [8, 8, {}],
    [4, 16, {}],
    [16, 4, {}],
    [4, 4, { hadamard: false }],
    [1, 4, { sparsity: "2:4-pairs" }],
    [2, 4, { sparsity: "2:4-pairs" }],
    [4, 4, { sparsity: "2:4-pairs" }],
  ];
  it.each(packings)("packs %f-bit weights and %f-bit inputs %o", async (weightBits, inputBits, more) => {
    const weight = FakeQuantized.of(normal(4, 6, 64), questQuantization(64, { weightBits, inputBits, ...more })!);
    const x = normal(5, 9, 64);
    const packed = await weight.packed();
    const { tensors, description } = storeWeights({ w: packed });
    const stored = restoreWeights(JSON.parse(JSON.stringify(description)), tensors)["w"] as typeof packed;
    const [trained, found] = [await evaluate(weight, x), await evaluate(stored, x)];
    expect(relativeError(found.product.data as Float32Array, trained.product.toArray() as number[])).toBeLessThan(1e-4);
    expect(relativeError(found.dense.data as Float32Array, trained.dense.toArray() as number[])).toBeLessThan(1e-4);
    if (weightBits === 16) return;
    await using program = await compile(() => weight.rounded(), [], device);
    const values = (await program()).toArray() as number[];
    for (let r = 0; r < 6; r++) {
      const codes = new Set(values.slice(64 * r, 64 * r + 64));
      expect(codes.size).toBeLessThanOrEqual(levelsOf(weightBits) + (more.sparsity ? 1 : 0));
      expect(codes.size).toBeGreaterThan(1);
    }
  });

  it("takes the bits that it promises", async () => {
    const bits = async (weightBits: QuestBits) => {
      const how = questQuantization(512, { weightBits, inputBits: 4 })!;
      return (await FakeQuantized.of(normal(4, 256, 512), how).packed()).bitsPerWeight;
    };
    expect(await bits(1)).toBeLessThan(1.1);
    expect(await bits(2)).toBeLessThan(2.3);
    expect(await bits(4)).toBeLessThan(4.3);
  });

  it("refuses what cannot be trained so", () => {
    const options = { weightBits: 4, inputBits: 4 } as const;
    expect(() => questQuantization(96, { ...options, block: 64 })).toThrow(
      "QuEST needs the input width to be a multiple of 64, not 96; choose block <= 32",
    );
    expect(() => questQuantization(96, { ...options, block: 48 })).toThrow(
      "QuEST turns inputs in blocks of a power of two, not of 48",
    );
    expect(() => questQuantization(15, options)).toThrow(
      "QuEST turns inputs in blocks of a power of two, which a width of 15 is not made of",
    );
    expect(() => questQuantization(64, { ...options, weightBits: 9 as QuestBits })).toThrow(
      "there is no Gaussian scale for 9 bits",
    );
    expect(questQuantization(64, { weightBits: 16, inputBits: 16 })).toBeNull();
  });
});

describe("a decoder in training by QuEST", () => {
  const model = tinyModel({ hidden_size: 32, intermediate_size: 48 });
  const ids = randomWindows(23, 2, 12);

  it.each([
    [1, 1],
    [2, 2],
    [4, 4],
  ] as const)("gives the same logits when packed to %i and %i bits", async (weightBits, inputBits) => {
    const weights = await questWeights(model.weights, { weightBits, inputBits }, device);
    const kinds = Object.entries(weights).filter(([, w]) => w instanceof FakeQuantized);
    expect(kinds.length).toBe(2 * 7);
    const trained = await logits({ config: model.config, weights }, ids);
    const packed = await logits({ config: model.config, weights: await questPack(weights, device) }, ids);
    const plain = await logits(model, ids);
    for (const [i, value] of trained.entries()) expect(Math.abs(packed[i]! - value)).toBeLessThan(1e-3);
    expect(relativeError(trained, [...plain])).toBeGreaterThan(0.01);
  });

  it("leaves alone what is skipped", async () => {
    const weights = await questWeights(
      model.weights,
      { weightBits: 4, inputBits: 4, skip: /layers\.0\.|down_proj/ },
      device,
    );
    const chosen = Object.entries(weights).flatMap(([name, w]) => (w instanceof FakeQuantized ? [name] : []));
    expect(chosen).toEqual(
      ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up"].map(
        (part) => `model.layers.1.${part}_proj.weight`,
      ),
    );
  });

  it("names the matrix of a width that cannot be turned", async () => {
    const odd = tinyModel({ intermediate_size: 21 });
    await expect(questWeights(odd.weights, { weightBits: 4, inputBits: 4 }, device)).rejects.toThrow(
      '"model.layers.0.mlp.down_proj.weight": QuEST turns inputs in blocks of a power of two, which a width of 21 is not made of',
    );
  });

  it("has gradients that align better, the more bits activations have", async () => {
    const tokens = Array.from({ length: 40 }, (_, i) => (7 * i * i + 3 * i) % 23);
    const batch = tokenBatch(tokens, [0, 11, 22], 12);
    const alignment = async (inputBits: QuestBits) =>
      gradientAlignment(
        model.config,
        await questWeights(model.weights, { weightBits: 4, inputBits }, device),
        batch,
        device,
      );
    const [none, eight, one] = [await alignment(16), await alignment(8), await alignment(1)];
    expect(none.length).toBe(2);
    for (const value of none) expect(value).toBeCloseTo(1, 5);
    eight.forEach((value, i) => {
      expect(value).toBeGreaterThan(0.9);
      expect(value).toBeGreaterThan(one[i]!);
      expect(Math.abs(one[i]!)).toBeLessThanOrEqual(1);
    });
  });
});
