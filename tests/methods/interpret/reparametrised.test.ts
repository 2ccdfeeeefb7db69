import { describe, expect, it } from "vitest";
import { svd } from "../../../src/linalg/index.ts";
import { type Scramble, scrambleGeometry, withSpectralAdapters } from "../../../src/methods/index.ts";
import { type DecoderConfig, decoderLogits, type Weights } from "../../../src/models/index.ts";
import { type Dense, HalfWeight, type LowRank, type SumWeight } from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import { flattenTree, HostTensor, isHostTensor, Rng } from "../../../src/tensor/index.ts";
import { isLora, mergeLora } from "../../../src/train/index.ts";
import { tinyModel, windowedGemma } from "../../generate/models.ts";

async function logits(config: DecoderConfig, weights: Weights): Promise<number[]> {
  const ids = HostTensor.from([new Rng(4).integers(9, 20).map(BigInt)]);
  await using program = await compile((tokens) => decoderLogits(config, weights, tokens), [ids], { threads: 1 });
  return (await program(ids)).toArray();
}

function near(found: readonly number[], expected: readonly number[]): void {
  expect(found).toHaveLength(expected.length);
  for (const [i, x] of expected.entries()) expect(Math.abs(found[i]! - x)).toBeLessThan(1e-4 * (1 + Math.abs(x)));
}

const values = (weights: Weights, name: string): number[] => flattenTree(weights, isHostTensor)[name]!.toArray();

const families: Record<string, Record<string, unknown>> = {
  "a Llama with shared keys": {},
  "a Qwen2 with biases": { model_type: "qwen2" },
  "a Gemma with windows": windowedGemma,
  "a GPT-2": {
    model_type: "gpt2",
    n_embd: 16,
    n_head: 4,
    n_layer: 2,
    n_positions: 40,
    n_inner: 24,
    num_key_value_heads: 4,
  },
};
const kinds: readonly Scramble[] = ["vo", "qk", "heads", "ffn"];

describe.each(Object.keys(families))("scrambled, %s", (family) => {
  it("computes what it did with other weights", async () => {
    const { config, weights } = tinyModel(families[family]);
    const original = await logits(config, weights);
    const rng = new Rng(2);
    for (const kind of kinds.filter((kind) => kind !== "qk" || !config.qkNorm)) {
      const scrambled = await scrambleGeometry(config, weights, { layers: [1], kinds: [kind], rng });
      near(await logits(config, scrambled), original);
      const moved = { vo: "self_attn.v_proj", qk: "self_attn.k_proj", heads: "self_attn.q_proj", ffn: "mlp.down_proj" }[
        kind
      ];
      const path = `.${moved}.weight.values`;
      expect(values(scrambled, `model.layers.1${path}`)).not.toEqual(values(weights, `model.layers.1${path}`));
      expect(values(scrambled, `model.layers.0${path}`)).toEqual(values(weights, `model.layers.0${path}`));
    }
    const all = kinds.filter((kind) => kind !== "qk" || !config.qkNorm);
    near(await logits(config, await scrambleGeometry(config, weights, { layers: [0, 1], kinds: all, rng })), original);
  });
});

describe("scrambleGeometry", () => {
  const { config, weights } = tinyModel();

  it("keeps singular values where it only rotates", async () => {
    const scrambled = await scrambleGeometry(config, weights, { layers: [0], kinds: ["vo", "qk"], rng: new Rng(1) });
    const name = "model.layers.0.self_attn.v_proj.weight.values";
    const [a, b] = [weights, scrambled].map((w) => flattenTree(w, isHostTensor)[name]!.cast("f64"));
    near((await svd(b!)).s.toArray(), (await svd(a!)).s.toArray());
  });

  it("refuses a layer that is none, gains between rotations, and packed weights", async () => {
    const rng = new Rng(1);
    await expect(scrambleGeometry(config, weights, { layers: [2], kinds: ["vo"], rng })).rejects.toThrow(
      "the model has the layers 0 to 1, and no layer 2",
    );
    const qwen = tinyModel({ model_type: "qwen3", head_dim: 4 });
    await expect(scrambleGeometry(qwen.config, qwen.weights, { layers: [0], kinds: ["qk"], rng })).rejects.toThrow(
      'queries and keys of a qwen3 go through norms with a gain for each number, which no rotation leaves as they are; leave "qk" out',
    );
    const name = "model.layers.0.self_attn.v_proj.weight";
    const half = { ...weights, [name]: new HalfWeight(((weights[name] as Dense).values as HostTensor).cast("f16")) };
    await expect(scrambleGeometry(config, half, { layers: [0], kinds: ["vo"], rng })).rejects.toThrow(
      `"${name}" is represented as half; only dense weights can be rotated`,
    );
  });
});

describe("spectral adapters", () => {
  const { config, weights } = tinyModel();
  const name = "model.layers.0.mlp.up_proj.weight";

  it.each(["principal", "minor"] as const)("hold the %s part of the spectrum beside the rest", async (part) => {
    const adapted = await withSpectralAdapters(weights, { rank: 3, part });
    near(await logits(config, adapted), await logits(config, weights));
    const paths = Object.keys(flattenTree(adapted, isHostTensor));
    expect(paths.filter(isLora)).toHaveLength(2 * 7 * 2);
    const { s } = await svd(((weights[name] as Dense).values as HostTensor).cast("f64"));
    const [rest, adapter] = (adapted[name] as SumWeight).terms;
    const left = await svd(((rest!.weight as Dense).values as HostTensor).cast("f64"));
    const kept = part === "principal" ? s.toArray().slice(3) : s.toArray().slice(0, -3);
    near(left.s.toArray().slice(0, kept.length), kept);
    for (const zero of left.s.toArray().slice(kept.length)) expect(zero).toBeLessThan(1e-5);
    expect((adapter!.weight as LowRank).rank).toBe(3);
    const merged = await mergeLora(adapted, { threads: 1 });
    near(
      ((merged[name] as Dense).values as HostTensor).toArray(),
      ((weights[name] as Dense).values as HostTensor).toArray(),
    );
  });

  it("refuse ranks and targets that there are not", async () => {
    await expect(withSpectralAdapters(weights, { rank: 17, part: "minor" })).rejects.toThrow(
      /the rank of an adapter of "model\.layers\.0\.self_attn\.q_proj\.weight" is a whole number from 1 to 16, not 17/,
    );
    await expect(withSpectralAdapters(weights, { rank: 1, part: "minor", targets: () => false })).rejects.toThrow(
      "no matrix of the model is a target of the adapter",
    );
    const half = { ...weights, [name]: new HalfWeight(((weights[name] as Dense).values as HostTensor).cast("f16")) };
    await expect(withSpectralAdapters(half, { rank: 1, part: "minor" })).rejects.toThrow(
      `"${name}" is represented as half; a spectrum is taken of dense weights`,
    );
  });
});
