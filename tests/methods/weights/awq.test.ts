import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  awqScales,
  compressDecoder,
  type DecoderSource,
  denseValues,
  foldScales,
  layerInputs,
  memorySource,
  nearest,
  planFor,
  scalablePoints,
} from "../../../src/methods/index.ts";
import type { DecoderConfig } from "../../../src/models/index.ts";
import { roundToBlocks } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { difference, randomScales } from "./equivalent.ts";
import { randomWindows } from "./methods.ts";

const device = { threads: 1 };
const ids = randomWindows(23, 2, 12);

const members: Record<string, Record<string, unknown>> = {
  llama: {},
  "qwen2, with biases": { model_type: "qwen2" },
  "llama with biases everywhere": { attention_bias: true, mlp_bias: true },
  "qwen3, with norms of queries and keys": { model_type: "qwen3", head_dim: 4 },
  "gpt-2, with layer norms and no gate": { model_type: "gpt2", n_embd: 16, n_layer: 2, n_head: 4, n_positions: 40 },
  "gemma 2, with four norms": { model_type: "gemma2", head_dim: 4, query_pre_attn_scalar: 4 },
};

/** Random scales at every point, shared by query heads where they must be. */
function scalesFor(config: DecoderConfig, seed: number): Map<string, Float32Array> {
  const { heads, kvHeads, headDim } = config;
  const scales = new Map<string, Float32Array>();
  for (let layer = 0; layer < config.layers; layer++)
    for (const [point, width] of scalablePoints(config, layer)) {
      const values = randomScales(seed + scales.size, width);
      if (point.endsWith("attn.mix"))
        for (let c = 0; c < width; c++) {
          const head = Math.floor(c / headDim);
          values[c] = values[(head - (head % (heads / kvHeads))) * headDim + (c % headDim)]!;
        }
      scales.set(point, values);
    }
  return scales;
}

describe("folded scales", () => {
  test.each(Object.entries(members))("leave a model's outputs as they are: %s", async (_, changes) => {
    const model = tinyModel(changes);
    await fc.assert(
      fc.asyncProperty(fc.nat(1000), async (seed) => {
        const folded = foldScales(memorySource(model), scalesFor(model.config, seed));
        expect(await difference(model, folded, ids)).toBeLessThan(1e-4);
      }),
      { numRuns: 3, seed: 1 },
    );
  });

  test("are folded where they belong", async () => {
    const model = tinyModel();
    const source = memorySource(model);
    const scales = new Map([["model.layers.1.mlp.in", new Float32Array(16).fill(4)]]);
    const folded = foldScales(source, scales);
    const entry = async (from: DecoderSource, name: string) => {
      const weight = await from.read(name);
      return (weight instanceof HostTensor ? weight : (weight as unknown as { values: HostTensor }).values).at(5);
    };
    for (const [name, factor] of [
      ["model.layers.1.post_attention_layernorm.weight", 1 / 4],
      ["model.layers.1.mlp.gate_proj.weight", 4],
      ["model.layers.1.mlp.up_proj.weight", 4],
      ["model.layers.1.mlp.down_proj.weight", 1],
      ["model.layers.0.mlp.up_proj.weight", 1],
    ] as const)
      expect(await entry(folded, name), name).toBeCloseTo(factor * (await entry(source, name)), 5);
  });

  test("are refused where they would change the model", () => {
    const source = memorySource(tinyModel());
    const fold = (point: string, values: Float32Array) => () => foldScales(source, new Map([[point, values]]));
    expect(fold("model.layers.0.attn.out", new Float32Array(16))).toThrow(
      'channels at "model.layers.0.attn.out" cannot be scaled; they can at model.layers.0.attn.in',
    );
    expect(fold("model.layers.2.mlp.in", new Float32Array(16))).toThrow("cannot be scaled");
    expect(fold("model.layers.0.mlp.in", new Float32Array(15))).toThrow("takes 16 scales, not 15");
    expect(fold("model.layers.0.mlp.in", new Float32Array(16))).toThrow("scale 0 at");
    expect(fold("model.layers.0.mlp.in", new Float32Array(16).fill(NaN))).toThrow("is NaN; scales are finite");
    const uneven = new Float32Array(16).fill(1);
    uneven[5] = 2;
    expect(fold("model.layers.0.attn.mix", uneven)).toThrow(
      "differs from that of a query head with the same value head",
    );
    const ungated = { ...source.config, gated: false };
    expect([...scalablePoints(ungated, 0).keys()]).not.toContain("model.layers.0.mlp.act");
  });
});

describe("AWQ", () => {
  const grid = { format: "int3", block: 16 } as const;

  test("chooses, at each point, the strength with the least output error", async () => {
    const model = tinyModel();
    const source = memorySource(model);
    const windows = randomWindows(23, 4, 16);
    const scales = await awqScales(source, windows, grid, device);
    const points = (layer: number) => scalablePoints(model.config, layer);
    expect([...scales.keys()]).toEqual([...points(0).keys(), ...points(1).keys()]);
    for await (const { index, weights, inputs } of layerInputs(source, windows, points, device)) {
      const point = `model.layers.${index}.mlp.act`;
      const { gram, absMean } = inputs.get(point)!;
      const { values } = weights[`model.layers.${index}.mlp.down_proj.weight`] as unknown as { values: HostTensor };
      const [out, width] = values.shape as [number, number];
      const lossOf = async (s: ArrayLike<number>): Promise<number> => {
        const stretched = HostTensor.from(
          Float32Array.from({ length: values.size }, (_, i) => values.at(i) * s[i % width]!),
          { shape: [out, width] },
        );
        const rounded = await denseValues(roundToBlocks(stretched, grid), device);
        const off = (r: number, c: number): number => rounded.at(r * width + c) / s[c]! - values.at(r * width + c);
        let loss = 0;
        for (let r = 0; r < out; r++)
          for (let i = 0; i < width; i++)
            for (let j = 0; j < width; j++) loss += off(r, i) * gram.at(i * width + j) * off(r, j);
        return loss;
      };
      const tried: number[] = [];
      for (let exponent = 0; exponent <= 20; exponent++)
        tried.push(await lossOf(Array.from({ length: width }, (_, c) => absMean.at(c) ** (exponent / 20))));
      const chosen = await lossOf(scales.get(point)!);
      expect(chosen).toBeLessThan(Math.min(...tried) * 1.02);
      expect(chosen).toBeLessThanOrEqual(tried[0]! * 1.0001);
    }
  });

  test("protects channels that matter: less output error than plain rounding", async () => {
    const model = tinyModel();
    const windows = randomWindows(23, 4, 16);
    // Salient channels: eight times as active, with weights that are as much smaller.
    const scales = new Map([0, 1].map((layer) => [`model.layers.${layer}.mlp.in`, new Float32Array(16).fill(1)]));
    for (const values of scales.values()) values[2] = values[11] = 1 / 8;
    const salient = foldScales(memorySource(model), scales);
    const plan = planFor(model.config, { layers: nearest(grid) });
    const errors = async (source: DecoderSource): Promise<number> => {
      const { reports } = await compressDecoder(source, plan, windows, device);
      return reports
        .filter(({ name }) => /gate|up/.test(name))
        .reduce((sum, { outputError }) => sum + (outputError ?? Infinity), 0);
    };
    const plain = await errors(salient);
    const ours = await errors(foldScales(salient, await awqScales(salient, windows, grid, device)));
    expect(ours).toBeLessThan(0.7 * plain);
  });

  test("refuses windows of another model", async () => {
    const source = memorySource(tinyModel());
    await expect(awqScales(source, randomWindows(400, 2, 8), grid, device)).rejects.toThrow(
      "but the model has 23 tokens",
    );
  });
});
