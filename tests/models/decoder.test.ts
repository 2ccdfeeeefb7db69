import { describe, expect, it } from "vitest";
import {
  attendingLayers,
  checkWeights,
  decode,
  decoderConfig,
  decoderLogits,
  decoderShapes,
  headLogits,
  initDecoder,
  ModelError,
  slidingWindow,
} from "../../src/models/index.ts";
import { capture, crossEntropy, Dense, optim } from "../../src/nn/index.ts";
import { compile } from "../../src/runtime/index.ts";
import { HostTensor, Rng, spec } from "../../src/tensor/index.ts";
import { TokenBatches, train } from "../../src/train/index.ts";
import { plainLogits } from "./plain-decoder.ts";

const small = {
  vocab_size: 23,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 64,
};

const members: Record<string, Record<string, unknown>> = {
  llama: { model_type: "llama", attention_bias: true, mlp_bias: true },
  "llama with layers without attention": {
    model_type: "llama",
    num_hidden_layers: 4,
    layer_types: ["no_attention", "full_attention", "no_attention", "sliding_attention"],
    sliding_window: 3,
  },
  "llama 3": {
    model_type: "llama",
    tie_word_embeddings: true,
    rope_theta: 500,
    rope_scaling: {
      rope_type: "llama3",
      factor: 4,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
    },
  },
  "llama with linear scaling": { model_type: "llama", rope_scaling: { type: "linear", factor: 2 } },
  "llama with factors": {
    model_type: "llama",
    rope_scaling: { rope_type: "longrope", short_factor: [1, 2.5], long_factor: [1, 2.5], attention_factor: 1 },
  },
  mistral: { model_type: "mistral", sliding_window: 4 },
  qwen2: { model_type: "qwen2" },
  qwen3: { model_type: "qwen3", head_dim: 8, tie_word_embeddings: true },
  gemma2: {
    model_type: "gemma2",
    head_dim: 8,
    query_pre_attn_scalar: 10,
    sliding_window: 4,
    attn_logit_softcapping: 5,
    final_logit_softcapping: 3,
    hidden_activation: "gelu_pytorch_tanh",
  },
  gemma3: {
    model_type: "gemma3_text",
    head_dim: 8,
    query_pre_attn_scalar: 8,
    sliding_window: 3,
    sliding_window_pattern: 2,
    hidden_activation: "gelu_pytorch_tanh",
  },
  gpt2: { model_type: "gpt2", n_embd: 16, n_inner: 24, n_layer: 2, n_head: 4, n_positions: 64 },
};

/** Weights large enough that every part matters, gains and biases included. */
function make(name: string) {
  const config = decoderConfig({ ...small, ...members[name] });
  const rng = new Rng(3);
  const weights = Object.fromEntries(
    [...decoderShapes(config)].map(([key, shape]) => {
      const t = rng.fork(key).normalTensor(shape, {
        std: shape.length === 2 ? 0.4 : 0.5,
        mean: shape.length === 1 && !key.endsWith("bias") && !config.normPlusOne ? 1 : 0,
      });
      return [key, shape.length === 2 ? new Dense(t) : t];
    }),
  );
  return { config, weights };
}

const ids = [3, 17, 0, 22, 8, 8, 1, 14, 5];
const row = (values: readonly number[]): HostTensor =>
  HostTensor.from(values.map(Number), { dtype: "i64", shape: [1, values.length] });

describe.each(Object.keys(members))("%s", (name) => {
  const { config, weights } = make(name);
  const expected = plainLogits(config, weights, ids);

  it("computes what plain loops compute, with numbers and names as dimensions", async () => {
    for (const shape of [
      [1, ids.length],
      ["batch", "seq"],
    ]) {
      await using program = await compile((tokens) => decoderLogits(config, weights, tokens), [spec("i64", shape)], {
        threads: 1,
      });
      const logits = await program(row(ids));
      expect(logits.shape).toEqual([1, ids.length, config.vocab]);
      for (const [i, v] of expected.flat().entries()) expect(logits.at(i)).toBeCloseTo(v, 3);
    }
  });

  it("continues behind cached tokens as if it had seen them all", async () => {
    const width = config.kvHeads * config.headDim;
    const cache = () =>
      attendingLayers(config).map(() => ({
        keys: spec("f32", [1, "past", width]),
        values: spec("f32", [1, "past", width]),
      }));
    await using program = await compile(
      (tokens, positions, mask, windowMask, layers) => {
        const { hidden, rows } = decode(config, weights, tokens, { layers, positions, mask, windowMask });
        return { logits: headLogits(config, weights, hidden), rows };
      },
      [
        spec("i64", [1, "seq"]),
        spec("i64", [1, "seq"]),
        spec("f32", ["seq", "past+seq"]),
        spec("f32", ["seq", "past+seq"]),
        cache(),
      ],
      { threads: 1 },
    );
    const reach = slidingWindow(config) ?? Number.POSITIVE_INFINITY;
    let layers = attendingLayers(config).map(() => ({
      keys: HostTensor.zeros("f32", [1, 0, width]),
      values: HostTensor.zeros("f32", [1, 0, width]),
    }));
    const join = (a: HostTensor, b: HostTensor) =>
      HostTensor.from([...a.toArray(), ...b.toArray()], { dtype: "f32", shape: [1, a.shape[1]! + b.shape[1]!, width] });
    for (const [from, to] of [
      [0, 4],
      [4, 5],
      [5, 9],
    ] as const) {
      const n = to - from;
      const masked = (window: number) =>
        HostTensor.from(
          Array.from({ length: n * to }, (_, i) =>
            i % to <= from + Math.floor(i / to) && i % to > from + Math.floor(i / to) - window ? 0 : -1e30,
          ),
          { shape: [n, to] },
        );
      const positions = row(Array.from({ length: n }, (_, i) => from + i));
      const out = await program(
        row(ids.slice(from, to)),
        positions,
        masked(Number.POSITIVE_INFINITY),
        masked(reach),
        layers,
      );
      for (const [i, v] of expected.slice(from, to).flat().entries()) expect(out.logits.at(i)).toBeCloseTo(v, 3);
      layers = layers.map(({ keys, values }, l) => ({
        keys: join(keys, out.rows[l]!.keys as never),
        values: join(values, out.rows[l]!.values as never),
      }));
    }
  });

  it("keeps batch rows apart", async () => {
    await using program = await compile(
      (tokens) => decoderLogits(config, weights, tokens),
      [spec("i64", [2, ids.length])],
      { threads: 1 },
    );
    const reversed = ids.toReversed();
    const logits = await program(
      HostTensor.from([...reversed, ...ids].map(Number), { dtype: "i64", shape: [2, ids.length] }),
    );
    const second = logits.toArray().slice(ids.length * config.vocab);
    for (const [i, v] of expected.flat().entries()) expect(second[i]).toBeCloseTo(v, 3);
  });
});

describe("decoder", () => {
  it("learns a pattern from its initial weights", async () => {
    const config = decoderConfig({ ...small, model_type: "llama", tie_word_embeddings: true });
    const weights = initDecoder(config, new Rng(1));
    const text = Array.from({ length: 2000 }, (_, i) => [1, 2, 3, 5, 8, 13][i % 6]!);
    const { log } = await train({
      params: weights,
      data: new TokenBatches(text, { batch: 4, length: 12 }),
      steps: 60,
      loss: (params, { ids: tokens, targets }) => crossEntropy(decoderLogits(config, params, tokens), targets),
      optimizer: optim.adamw(),
      schedule: optim.constantRate(0.02),
      threads: 1,
    });
    expect(log[0]!.values.loss).toBeCloseTo(Math.log(23), 1);
    expect(log.at(-1)!.values.loss).toBeLessThan(0.2);
  });

  it("names its points in the order of the pass", async () => {
    const { config, weights } = make("llama");
    const names: string[] = [];
    await using _program = await compile(
      (tokens) => {
        const { result, captured } = capture(
          () => true,
          () => decoderLogits(config, weights, tokens),
        );
        names.push(...Object.keys(captured));
        return result;
      },
      [spec("i64", [1, 3])],
    );
    const layer = (i: number) =>
      ["attn.in", "q", "k", "v", "attn.mix", "attn.out", "mlp.in", "mlp.act", "mlp.out", "out"].map(
        (p) => `model.layers.${i}.${p}`,
      );
    expect(names).toEqual(["model.embed", ...layer(0), ...layer(1), "model.norm"]);
  });

  it("names the tensor in which configuration and weights disagree, with both shapes", () => {
    const { config, weights } = make("llama");
    expect(() => checkWeights(config, weights)).not.toThrow();
    const { "model.layers.1.mlp.up_proj.weight": up, ...rest } = weights;
    expect(() => checkWeights(config, rest)).toThrow(
      new ModelError(
        'the weights lack "model.layers.1.mlp.up_proj.weight", which the configuration asks for with shape [24, 16]',
      ),
    );
    expect(() => checkWeights(config, { ...weights, "model.norm.weight": HostTensor.zeros("f32", [8]) })).toThrow(
      '"model.norm.weight" has shape [8], but the configuration asks for [16]',
    );
    expect(() => checkWeights(config, { ...weights, "model.extra.weight": up! })).toThrow(
      'the weights hold "model.extra.weight", which the configuration of a llama has no place for',
    );
  });

  it.each([
    [
      { model_type: "mamba" },
      'config.json: the model type "mamba" is not supported as a decoder; supported are llama, mistral, qwen2, qwen3, gemma2, gemma3_text, gpt2',
    ],
    [{ model_type: "llama", hidden_size: undefined }, 'config.json lacks "hidden_size"'],
    [{ model_type: "llama", hidden_size: -1 }, 'config.json: "hidden_size" must be a whole number from 1, not -1'],
    [{ model_type: "llama", num_hidden_layers: 20_000 }, "config.json: 20000 layers are more than any model has"],
    [
      { model_type: "llama", num_hidden_layers: 1e12 },
      'config.json: "num_hidden_layers" must be a whole number from 1, not 1000000000000',
    ],
    [
      { model_type: "llama", num_key_value_heads: 3 },
      "config.json: 4 attention heads are not a multiple of 3 key-value heads",
    ],
    [{ model_type: "llama", hidden_size: 12 }, "config.json: rotary positions need an even head size, not 3"],
    [
      { model_type: "llama", hidden_act: "relu" },
      'config.json: the activation "relu" is not supported; supported are silu and gelu_pytorch_tanh',
    ],
    [
      { model_type: "llama", rope_scaling: { rope_type: "yarn" } },
      'config.json: the rotary scaling "yarn" is not supported; supported are linear, llama3 and longrope',
    ],
    [
      { model_type: "llama", rope_scaling: { rope_type: "longrope", short_factor: [1, 0], long_factor: [1, 0] } },
      'config.json: "short_factor" must be a list of positive numbers',
    ],
    [
      {
        model_type: "llama",
        rope_scaling: { rope_type: "longrope", short_factor: [1, 1], long_factor: [1, 2], attention_factor: 1 },
      },
      'config.json: the rotary scaling "longrope" is supported where short_factor equals long_factor and attention_factor is 1',
    ],
    [{ model_type: "gpt2", n_embd: 16, n_layer: 2 }, 'config.json lacks "n_head"'],
    [
      { model_type: "gpt2", n_embd: 16, n_layer: 2, n_head: 3 },
      "config.json: a width of 16 is not a multiple of 3 heads",
    ],
    [
      { model_type: "gpt2", n_embd: 16, n_layer: 2, n_head: 4, activation_function: "relu" },
      'config.json: a GPT-2 is supported with "activation_function" "gelu_new", not "relu"',
    ],
    [{ model_type: "llama", rms_norm_eps: "small" }, 'config.json: "rms_norm_eps" must be a number, not "small"'],
  ])("refuses a configuration that makes no sense (%#)", (change, message) => {
    expect(() => decoderConfig({ ...small, ...change })).toThrow(new ModelError(message));
  });
});
