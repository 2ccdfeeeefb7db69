import { describe, expect, it } from "vitest";
import {
  type Adapter,
  decodeAdapter,
  encodeAdapter,
  mergeAdapter,
  outlierReport,
  quantizeBoth,
  rolora,
  roloraTraining,
  rotateDecoder,
} from "../../../src/methods/index.ts";
import { type DecoderConfig, decoderConfig, type Weights } from "../../../src/models/index.ts";
import { BlockGrid, type Dense, type TransformedWeight, type Weight } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { type Example, ExampleBatches } from "../../../src/train/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { normal, relativeError } from "../../nn/weights/support.ts";
import { logits, outlierModel } from "./equivalent.ts";
import { randomWindows } from "./methods.ts";

const ids = randomWindows(23, 2, 12);
const examples: Example[] = Array.from({ length: 12 }, (_, i) => ({
  ids: [i, i + 1, 20, (2 * i) % 20, 21],
  learned: [false, false, false, true, true],
}));
const data = () => new ExampleBatches(examples, { batch: 6, length: 6, seed: 1 });
const tuning = { rank: 2, steps: 30, rate: 1e-2, threads: 1 };

async function differ(a: { config: DecoderConfig; weights: Weights }, b: typeof a): Promise<number> {
  const [x, y] = [await logits(a, ids), await logits(b, ids)];
  return x.reduce((most, value, i) => Math.max(most, Math.abs(value - y[i]!)), 0) / Math.max(...x.map(Math.abs));
}

describe("rotateDecoder", () => {
  it.each([
    ["blocks", {}],
    ["blocks", { hidden_size: 56, num_attention_heads: 2, num_key_value_heads: 1 }],
    ["hadamard", { hidden_size: 12, num_attention_heads: 2, num_key_value_heads: 1 }],
    ["orthogonal", { hidden_size: 56, num_attention_heads: 2, num_key_value_heads: 1 }],
    ["orthogonal", { tie_word_embeddings: true, attention_bias: true, mlp_bias: true }],
  ] as const)("changes nothing of what is computed: %s, %o", async (mode, changes) => {
    const model = tinyModel(changes);
    for (const downProj of [true, false])
      expect(await differ(model, await rotateDecoder(model, { mode, downProj, seed: 4 }))).toBeLessThan(1e-4);
  });

  it("turns the inputs of down projections at run time, and says what it did to a tied head", async () => {
    const model = tinyModel({ tie_word_embeddings: true });
    const { weights, config, notices, rotation } = await rotateDecoder(model, { seed: 3 });
    expect(rotation).toEqual({ seed: 3, mode: "blocks", downProj: true });
    expect(config.tied).toBe(false);
    expect(notices).toEqual(["the head shared the embedding's matrix; it has its own now, of 368 parameters"]);
    for (const layer of [0, 1])
      expect(weights[`model.layers.${layer}.mlp.down_proj.weight`]).toMatchObject({ kind: "transformed", hadamard: 8 });
    expect((await rotateDecoder(tinyModel())).notices).toEqual([]);
  });

  it("refuses what cannot be turned so", async () => {
    const odd = tinyModel({ hidden_size: 56, num_attention_heads: 2, num_key_value_heads: 1 });
    await expect(rotateDecoder(odd, { mode: "hadamard" })).rejects.toThrow(
      'there is no Hadamard matrix here of the width 56, only of 2^k, 12 * 2^k and 20 * 2^k; turn it with mode "orthogonal", or in blocks of 8 with mode "blocks"',
    );
    const rotated = await rotateDecoder(tinyModel(), { seed: 7 });
    await expect(rotateDecoder(rotated)).rejects.toThrow(
      "the model is rotated already (seed 7); rotate the one that it was made from",
    );
    const config = decoderConfig({
      model_type: "gpt2",
      vocab_size: 23,
      n_embd: 16,
      n_head: 2,
      n_layer: 1,
      n_positions: 20,
    });
    const { weights } = tinyModel();
    await expect(rotateDecoder({ config, weights })).rejects.toThrow();
  });
});

describe("rolora", () => {
  it("learns in the turned space, and leaves the base alone", async () => {
    const model = tinyModel();
    const { base, merged, adapter, losses } = await rolora(model, data(), tuning);
    expect(losses.at(-1)).toBeLessThan(0.8 * losses[0]!);
    expect(await differ(model, base)).toBeLessThan(1e-4);
    expect(adapter.rotation).toEqual({ seed: 0, mode: "blocks", downProj: true });
    expect(merged.rotation).toEqual(adapter.rotation);
    const down = merged.weights["model.layers.0.mlp.down_proj.weight"] as TransformedWeight;
    expect(down.inner.kind).toBe("dense");
    expect(await differ(base, merged)).toBeGreaterThan(0.01);
    expect(Object.keys(adapter.tensors)).toContain("model.layers.0.mlp.down_proj.weight.inner.1.up.values");
  });

  it("is plain LoRA without rotation", async () => {
    const model = tinyModel();
    const { base, adapter, merged } = await rolora(model, data(), { ...tuning, rotate: false });
    expect(base).toBe(model);
    expect(adapter.rotation).toBeNull();
    expect(merged.rotation).toBeUndefined();
  });

  it("trains adapters on a base of 4 bits", async () => {
    const model = tinyModel();
    const { base, merged } = await rolora(model, data(), { ...tuning, baseBits: 4 });
    const down = base.weights["model.layers.1.mlp.down_proj.weight"] as TransformedWeight;
    expect([down.kind, down.inner.kind]).toEqual(["transformed", "blocks"]);
    expect((base.weights["model.layers.1.mlp.up_proj.weight"] as Weight).kind).toBe("blocks");
    expect((merged.weights["model.layers.1.mlp.up_proj.weight"] as Weight).kind).toBe("dense");
  });

  it("adapts the targets only", async () => {
    const { adapter } = await rolora(tinyModel(), data(), {
      ...tuning,
      steps: 2,
      targets: (name) => /[qv]_proj/.test(name),
    });
    expect(Object.keys(adapter.tensors).length).toBe(2 * 2 * 2);
    for (const path of Object.keys(adapter.tensors)) expect(path).toMatch(/\.[qv]_proj\.weight\.1\.(up|down)\.values$/);
  });
});

describe("an adapter", () => {
  const model = tinyModel();
  let tuned: Awaited<ReturnType<typeof rolora>> | undefined;
  const made = async () => (tuned ??= await rolora(model, data(), { ...tuning, steps: 5 }));

  it("survives a file, and merges into its base as before", async () => {
    const { adapter, base, merged } = await made();
    const again = await decodeAdapter(await encodeAdapter(adapter));
    expect({ ...again, tensors: {} }).toEqual({ ...adapter, tensors: {} });
    expect(await differ(merged, await mergeAdapter(base, again))).toBe(0);
  });

  it("is refused by other bases", async () => {
    const { adapter, base } = await made();
    await expect(mergeAdapter(model, adapter)).rejects.toThrow(
      "the adapter was trained on a model that is rotated (blocks, seed 0), and this one is not rotated; merge it into its own base",
    );
    await expect(mergeAdapter(base, { ...adapter, rotation: null })).rejects.toThrow(
      "the adapter was trained on a model that is not rotated, and this one is rotated (blocks, seed 0)",
    );
    await expect(mergeAdapter(await rotateDecoder(model, { seed: 1 }), adapter)).rejects.toThrow(
      "rotated (blocks, seed 0), and this one is rotated (blocks, seed 1)",
    );
    const name = "model.norm.weight";
    const norm = HostTensor.from(new Float32Array(16).fill(2));
    await expect(mergeAdapter({ ...base, weights: { ...base.weights, [name]: norm } }, adapter)).rejects.toThrow(
      /^the adapter was trained on another base: its digest is [0-9a-f]{12}\.\.\., and this one's [0-9a-f]{12}\.\.\.$/,
    );
  });

  it("is refused from files that hold none", async () => {
    const { adapter } = await made();
    const bytes = await encodeAdapter({ ...adapter, rank: "two" as unknown as number } as Adapter);
    await expect(decodeAdapter(bytes, "a.safetensors")).rejects.toThrow(
      'a.safetensors is no adapter of pare\'s: its metadata lack a whole "pare.adapter"',
    );
    await expect(decodeAdapter(new Uint8Array(4))).rejects.toThrow();
  });
});

describe("quantizeBoth", () => {
  it.each([4, 6, 8] as const)("rounds weights and inputs to %i bits", async (bits) => {
    const model = tinyModel();
    const off = await differ(model, await quantizeBoth(model, { weightBits: bits, inputBits: bits }));
    expect(off).toBeGreaterThan(1e-4);
    expect(off).toBeLessThan(8 / 2 ** (bits - 1));
  });

  it("rounds the turned inputs of down projections", async () => {
    const rotated = await rotateDecoder(tinyModel());
    const { weights, rotation } = await quantizeBoth(rotated, { weightBits: 4, inputBits: 4 });
    expect(rotation).toEqual(rotated.rotation);
    const down = weights["model.layers.0.mlp.down_proj.weight"] as TransformedWeight;
    expect(down).toMatchObject({ kind: "transformed", hadamard: 8 });
    expect(down.inner.kind).toBe("rounded-input");
    expect((weights["model.layers.0.mlp.up_proj.weight"] as Weight).kind).toBe("rounded-input");
  });

  it("loses less with GPTQ than with the nearest codes, and refuses it without text", async () => {
    const model = tinyModel();
    const windows = randomWindows(23, 16, 16);
    const of = async (method: "nearest" | "gptq") =>
      differ(model, await quantizeBoth(model, { weightBits: 3, inputBits: 8, method, windows }));
    expect(await of("gptq")).not.toBe(await of("nearest"));
    await expect(quantizeBoth(model, { weightBits: 4, inputBits: 4, method: "gptq" })).rejects.toThrow(
      "GPTQ calibrates on text; give windows of it, as calibrationWindows makes them",
    );
  });

  it("refuses bits that there are none of", async () => {
    const model = tinyModel();
    await expect(quantizeBoth(model, { weightBits: 4, inputBits: 1 })).rejects.toThrow(
      "inputs are rounded to 2 to 8 bits, not 1",
    );
    await expect(quantizeBoth(model, { weightBits: 5, inputBits: 8 })).rejects.toThrow(
      "weights are rounded to 2, 3, 4, 6, 8 bits, not 5",
    );
  });

  it("looks for scales by the errors to a power: as good as any by brute force", () => {
    const row = normal(9, 1, 64);
    const search = { power: 2.4, by: 0.01, count: 80 };
    const grid = new BlockGrid([1, 64], { format: "int4", block: "channel", search });
    grid.fit(row.data as Float32Array, 0, 0);
    const error = (scale: number): number =>
      (row.data as Float32Array).reduce((sum, v) => {
        const code = Math.max(-8, Math.min(7, Math.floor(v / scale + 0.5)));
        return sum + Math.abs(v - code * scale) ** 2.4;
      }, 0);
    const widest = Math.max(...(row.data as Float32Array).map(Math.abs)) / 7.5;
    const least = Math.min(...Array.from({ length: 80 }, (_, k) => error(widest * (1 - 0.01 * k))));
    expect(error(grid.scales[0]!)).toBeCloseTo(least, 4);
    expect(grid.scales[0]).toBeLessThan(widest);
  });
});

describe("outlierReport", () => {
  it("sees outliers, and that a rotation takes them away", async () => {
    const model = await outlierModel({ hidden_size: 64, intermediate_size: 64 });
    const plain = await outlierReport(model, ids);
    const rotated = await outlierReport(await rotateDecoder(model), ids);
    expect(plain.map(({ layer }) => layer)).toEqual(rotated.map(({ layer }) => layer));
    expect(plain.length).toBe(14);
    expect(plain[0]!.kurtosis).toBeGreaterThan(3 * rotated[0]!.kurtosis);
    expect(plain[0]!.maxOverRms).toBeGreaterThan(rotated[0]!.maxOverRms);
    expect(rotated[0]!.kurtosis).toBeLessThan(5);
  });
});

it("adapters of a transformed matrix see its turned input", async () => {
  const { base, adapter } = await rolora(tinyModel(), data(), { ...tuning, steps: 3 });
  const name = "model.layers.0.mlp.down_proj.weight";
  const inner = (base.weights[name] as TransformedWeight).inner as Dense;
  const merged = (await mergeAdapter(base, adapter)).weights[name] as TransformedWeight;
  const [up, down] = ["up", "down"].map((part) => adapter.tensors[`${name}.inner.1.${part}.values`]!);
  const [rows, columns] = merged.shape;
  const expected = Array.from({ length: rows * columns }, (_, i) => {
    const [r, c] = [Math.floor(i / columns), i % columns];
    let change = 0;
    for (let k = 0; k < 2; k++) change += up!.at(2 * r + k) * down!.at(columns * k + c);
    return (inner.values as HostTensor).at(i) + (adapter.alpha / adapter.rank) * change;
  });
  expect(relativeError(((merged.inner as Dense).values as HostTensor).data as Float32Array, expected)).toBeLessThan(
    1e-5,
  );
});

it("is a way to train: the model comes back rotated, and rounded where that is asked for", async () => {
  const model = tinyModel({ tie_word_embeddings: true });
  const plain = roloraTraining({ rank: 2, seed: 3 });
  const same = await plain.finish(await plain.start(model));
  expect(same.config.tied).toBe(false);
  expect(await differ(model, same)).toBeLessThan(1e-4);
  const rounding = roloraTraining({ rank: 2, seed: 3, bits: { weights: 4, inputs: 8 } });
  const { weights } = await rounding.finish(await rounding.start(model));
  expect((weights["model.layers.0.mlp.up_proj.weight"] as Weight).kind).toBe("rounded-input");
  expect((weights["model.layers.0.mlp.down_proj.weight"] as TransformedWeight).inner.kind).toBe("rounded-input");
});
