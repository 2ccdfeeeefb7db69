import { describe, expect, it } from "vitest";
import { keepMostImportant, mostImportant, pruneDecoder } from "../../../../src/methods/index.ts";
import { checkWeights, decoderShapes, denseTensors, type Weights } from "../../../../src/models/index.ts";
import { Dense } from "../../../../src/nn/index.ts";
import type { HostTensor } from "../../../../src/tensor/index.ts";
import { tinyModel, wholeLogits } from "../../../generate/models.ts";

const ids = [3, 1, 4, 1, 5, 9, 2, 6];

/** The same weights with entries of some replaced: `change(value, row, column)` by the end of the name. */
function changed(
  weights: Weights,
  changes: Readonly<Record<string, (value: number, row: number, column: number) => number>>,
): Record<string, Dense | HostTensor> {
  return Object.fromEntries(
    Array.from(denseTensors(weights), ([name, tensor]) => {
      const copy = tensor.clone();
      const width = tensor.shape.at(-1)!;
      for (const [end, change] of Object.entries(changes))
        if (name.endsWith(end))
          for (let i = 0; i < copy.size; i++) copy.set(i, change(copy.at(i), Math.floor(i / width), i % width));
      return [name, copy.shape.length === 2 ? new Dense(copy) : copy];
    }),
  );
}

async function expectSameLogits(a: Parameters<typeof pruneDecoder>[0], b: typeof a): Promise<void> {
  const [one, other] = [
    await (await wholeLogits(a.config, a.weights))(ids),
    await (await wholeLogits(b.config, b.weights))(ids),
  ];
  one.forEach((v, i) => {
    expect(Math.abs(other[i]! - v)).toBeLessThan(1e-4 * (1 + Math.abs(v)));
  });
}

describe("pruneDecoder", () => {
  it("changes nothing by dropping neurons that write nothing", async () => {
    const { config, weights } = tinyModel();
    const silent = (neuron: number): boolean => neuron % 3 === 1;
    const model = {
      config,
      weights: changed(weights, { "down_proj.weight": (v, _, neuron) => (silent(neuron) ? 0 : v) }),
    };
    const left = Array.from({ length: config.ffn }, (_, i) => i).filter((i) => !silent(i));
    const pruned = pruneDecoder(model, { neurons: [left, left] });
    checkWeights(pruned.config, pruned.weights);
    expect(pruned.config.ffn).toBe(16);
    await expectSameLogits(model, pruned);
  });

  it("changes nothing by dropping a layer that writes nothing", async () => {
    const { config, weights } = tinyModel({ num_hidden_layers: 3 });
    const model = {
      config,
      weights: changed(weights, { "1.self_attn.o_proj.weight": () => 0, "1.mlp.down_proj.weight": () => 0 }),
    };
    const pruned = pruneDecoder(model, { layers: [0, 2] });
    checkWeights(pruned.config, pruned.weights);
    await expectSameLogits(model, pruned);
  });

  it("drops one set of channels everywhere", async () => {
    const { config, weights } = tinyModel({ rms_norm_eps: 1e-12 });
    const channels = [0, 1, 3, 4, 6, 7, 9, 10, 11, 12, 14, 15];
    const gone = (channel: number): boolean => !channels.includes(channel);
    const only = (v: number, row: number, column: number, axis: 0 | 1): number =>
      gone(axis === 0 ? row : column) ? 0 : v;
    // Nothing is ever written to those channels; the norms then average over fewer numbers when they are gone.
    const shrink = Math.sqrt(channels.length / config.dim);
    const writes = {
      "embed_tokens.weight": (v: number, r: number, c: number) => only(v, r, c, 1),
      "o_proj.weight": (v: number, r: number, c: number) => only(v, r, c, 0),
      "down_proj.weight": (v: number, r: number, c: number) => only(v, r, c, 0),
    };
    const zeroed = changed(weights, writes);
    const pruned = pruneDecoder({ config, weights: zeroed }, { channels });
    checkWeights(pruned.config, pruned.weights);
    expect(pruned.config.dim).toBe(12);
    const scaled = changed(zeroed, { "norm.weight": (v) => v * shrink });
    await expectSameLogits({ config, weights: scaled }, pruned);
  });

  it("slices as a hand would", () => {
    const model = tinyModel({ num_hidden_layers: 3, model_type: "qwen2", tie_word_embeddings: false });
    const [layers, channels] = [
      [0, 2],
      [1, 2, 5, 8, 13, 15],
    ];
    const neurons = [
      [0, 5, 7],
      [0, 1, 2],
      [4, 20, 23],
    ];
    const { config, weights } = pruneDecoder(model, { layers, neurons, channels });
    const before = denseTensors(model.weights);
    const after = denseTensors(weights);
    expect([...after.keys()]).toEqual([...decoderShapes(config).keys()]);
    const all = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
    for (const [name, rows, columns] of [
      ["model.embed_tokens", all(23), channels],
      ["lm_head", all(23), channels],
      ["model.layers.L.self_attn.q_proj", all(16), channels],
      ["model.layers.L.self_attn.k_proj", all(8), channels],
      ["model.layers.L.self_attn.v_proj", all(8), channels],
      ["model.layers.L.self_attn.o_proj", channels, all(16)],
      ["model.layers.L.mlp.gate_proj", null, channels],
      ["model.layers.L.mlp.up_proj", null, channels],
      ["model.layers.L.mlp.down_proj", channels, null],
    ] as const)
      layers.forEach((layer, i) => {
        const [r, c] = [rows ?? neurons[layer]!, columns ?? neurons[layer]!];
        const whole = before.get(`${name.replace("L", `${layer}`)}.weight`)!;
        const expected = r.map((row) => c.map((column) => whole.at(row * whole.shape[1]! + column)));
        const part = after.get(`${name.replace("L", `${i}`)}.weight`)!;
        expect(part.shape).toEqual([r.length, c.length]);
        expect(part.toArray()).toEqual(expected.flat());
      });
    const gain = "post_attention_layernorm.weight";
    expect(after.get(`model.layers.1.${gain}`)!.toArray()).toEqual(
      channels.map((c) => before.get(`model.layers.2.${gain}`)!.at(c)),
    );
    expect(after.get("model.layers.1.self_attn.q_proj.bias")).toEqual(
      before.get("model.layers.2.self_attn.q_proj.bias"),
    );
  });

  it("takes attention away, and narrows it, without touching the rest", async () => {
    const { config, weights } = tinyModel({ num_hidden_layers: 3 });
    const silent = { config, weights: changed(weights, { "1.self_attn.o_proj.weight": () => 0 }) };
    const pruned = pruneDecoder(silent, { window: [null, 0, null] });
    checkWeights(pruned.config, pruned.weights);
    expect(Object.keys(pruned.weights).filter((name) => name.startsWith("model.layers.1."))).toEqual(
      ["post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"].map(
        (name) => `model.layers.1.${name}.weight`,
      ),
    );
    await expectSameLogits(silent, pruned);
    const near = pruneDecoder({ config, weights }, { window: [ids.length, null, ids.length] });
    await expectSameLogits({ config, weights }, near);
    const shorter = pruneDecoder({ config, weights }, { layers: [0, 2], window: [2, 0] });
    expect(shorter.config.window).toEqual([2, 0]);
    checkWeights(shorter.config, shorter.weights);
  });

  it("refuses indices that make no model", () => {
    const model = tinyModel();
    const prune = (kept: Parameters<typeof pruneDecoder>[1]) => () => pruneDecoder(model, kept);
    expect(prune({ layers: [] })).toThrow("none of the 2 layers would be kept");
    expect(prune({ layers: [1, 0] })).toThrow(
      "the layers to keep must be increasing indices below 2; number 1 of them is 0",
    );
    expect(prune({ channels: [3, 16] })).toThrow(
      "the channels to keep must be increasing indices below 16; number 1 of them is 16",
    );
    expect(prune({ neurons: [[0, 1], [2]] })).toThrow(
      "layer 0 keeps 2 neurons and layer 1 1; all layers need equally many",
    );
    expect(prune({ window: [null] })).toThrow("1 kinds of attention were given for 2 layers");
    expect(prune({ window: [0, 0] })).toThrow("none of the 2 layers would have attention; at least one needs it");
    const skipping = pruneDecoder(model, { window: [0, null] });
    expect(() => pruneDecoder(skipping, { window: [null, null] })).toThrow(
      "layer 0 has no attention, so that layer 0 of the smaller model can have none",
    );
  });
});

describe("keepMostImportant", () => {
  it("keeps the largest scores, in the order of the model", () => {
    expect(mostImportant([3, 1, 4, 1, 5], 3, "layers")).toEqual([0, 2, 4]);
    expect(mostImportant([1, 1, 1], 2, "layers")).toEqual([0, 1]);
    const scores = { layers: [2, 3], neurons: [[1, 2, 3], new Float32Array([3, 2, 1])], channels: [0, 9, 1, 8] };
    expect(keepMostImportant(scores, { layers: 1, ffn: 2, dim: 2 })).toEqual({
      layers: [1],
      neurons: [
        [1, 2],
        [0, 1],
      ],
      channels: [1, 3],
    });
    expect(keepMostImportant(scores, {})).toEqual({});
  });

  it("refuses sizes that there are not, and to choose without scores", () => {
    expect(() => keepMostImportant({ layers: [1, 2] }, { layers: 3 })).toThrow(
      "cannot keep 3 layers of 2; give a number from 1 to 2",
    );
    expect(() => keepMostImportant({}, { ffn: 3 })).toThrow("fewer neurons need scores of neurons");
  });
});
