import { describe, expect, it } from "vitest";
import { decoderConfig, decoderLogits, initDecoder, type Weights } from "../../src/models/index.ts";
import { asWeight, crossEntropy, optim, roundToBlocks } from "../../src/nn/index.ts";
import { compile } from "../../src/runtime/index.ts";
import { flattenTree, HostTensor, isHostTensor, Rng } from "../../src/tensor/index.ts";
import { drawnBatches, isLora, mergeLora, tokenBatch, train, trainableOf, withLora } from "../../src/train/index.ts";

const config = decoderConfig({
  model_type: "llama",
  vocab_size: 32,
  hidden_size: 32,
  intermediate_size: 48,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 32,
  tie_word_embeddings: true,
});
const base = {
  ...initDecoder(config, new Rng(1)),
  // Large enough for a frozen head to tell tokens apart.
  "model.embed_tokens.weight": new Rng(5).normalTensor([32, 32], { std: 0.5 }),
};
const ids = HostTensor.from(
  new Rng(2).integers(16, 32).map((n) => BigInt(n)),
  { shape: [2, 8] },
);

async function logitsOf(weights: Weights): Promise<Float32Array> {
  await using program = await compile((t) => decoderLogits(config, weights, t), [ids], { threads: 1 });
  return (await program(ids)).data as Float32Array;
}

const lessons = drawnBatches(new Rng(3), (rng) => tokenBatch(rng.integers(36, 8), [0, 9, 18, 27], 8));

async function trained(weights: Weights): Promise<Weights> {
  const { params, log } = await train({
    params: weights,
    data: lessons,
    steps: 20,
    loss: (p, batch) => crossEntropy(decoderLogits(config, p as Weights, batch.ids), batch.targets),
    optimizer: optim.adamw(),
    schedule: optim.constantRate(0.02),
    trainable: isLora,
    threads: 1,
  });
  expect(log.at(-1)!.values["loss"]).toBeLessThan(log[0]!.values["loss"]! - 0.2);
  return params;
}

describe("withLora", () => {
  it("leaves what the model computes as it is, and trains the adapters alone", async () => {
    const weights = withLora(base, { rank: 2, rng: new Rng(4) });
    expect(await logitsOf(weights)).toEqual(await logitsOf(base));
    expect(Object.keys(trainableOf(weights, isLora))).toHaveLength(2 * 2 * 7);
    const before = flattenTree(weights, isHostTensor);
    const after = flattenTree(await trained(weights), isHostTensor);
    for (const [path, tensor] of Object.entries(after))
      expect([path, tensor.data.every((value, i) => value === before[path]!.data[i])]).toEqual([path, !isLora(path)]);
  });

  it("stands on matrices in few bits as well", async () => {
    const name = "model.layers.0.mlp.up_proj.weight";
    const matrix = (flattenTree(base, isHostTensor) as Record<string, HostTensor>)[`${name}.values`]!;
    const packed = { ...base, [name]: roundToBlocks(matrix, { format: "int4", block: 32, exact: true }) };
    await trained(withLora(packed, { rank: 2, rng: new Rng(4) }));
  });

  it("merges into plain matrices that compute the same", async () => {
    const weights = await trained(withLora(base, { rank: 2, alpha: 3, rng: new Rng(4) }));
    const merged = await mergeLora(weights);
    expect(asWeight(merged["model.layers.1.self_attn.q_proj.weight"]!).kind).toBe("dense");
    const [theirs, ours] = [await logitsOf(weights), await logitsOf(merged)];
    ours.forEach((value, i) => void expect(value).toBeCloseTo(theirs[i]!, 4));
  });

  it("refuses ranks that are none, and targets that there are not", () => {
    expect(() => withLora(base, { rank: 0, rng: new Rng(1) })).toThrow(
      "the rank of an adapter is a whole number from 1, not 0",
    );
    expect(() => withLora(base, { rank: 2, targets: () => false, rng: new Rng(1) })).toThrow(
      "no matrix of the model is a target of the adapter",
    );
  });
});
