/** A Llama in plain loops over doubles, to check weights' names and order by what they compute. */
import type { LlamaConfig } from "../../src/formats/llama-config.ts";
import { HostTensor } from "../../src/tensor/index.ts";
import { random } from "./malformed.ts";

/** Which channels of a head a rotary embedding turns together: i and i + d/2, or 2i and 2i + 1. */
export type Pairing = "halves" | "neighbours";

type Weights = ReadonlyMap<string, HostTensor>;

const sum = (n: number, term: (i: number) => number): number => {
  let total = 0;
  for (let i = 0; i < n; i++) total += term(i);
  return total;
};

function multiply(weight: HostTensor, x: readonly number[]): number[] {
  const [rows, columns] = weight.shape as [number, number];
  return Array.from({ length: rows }, (_, r) => sum(columns, (c) => (weight.data[r * columns + c] as number) * x[c]!));
}

function normalize(weight: HostTensor, x: readonly number[], eps: number): number[] {
  const scale = 1 / Math.sqrt(sum(x.length, (i) => x[i]! ** 2) / x.length + eps);
  return x.map((value, i) => value * scale * (weight.data[i] as number));
}

function rotate(x: readonly number[], position: number, config: LlamaConfig, pairing: Pairing): number[] {
  const d = config.head_dim;
  const turned = [...x];
  for (let start = 0; start < x.length; start += d) {
    for (let i = 0; i < d / 2; i++) {
      const [a, b] = pairing === "halves" ? [start + i, start + i + d / 2] : [start + 2 * i, start + 2 * i + 1];
      const angle = position * config.rope_theta ** ((-2 * i) / d);
      turned[a] = x[a]! * Math.cos(angle) - x[b]! * Math.sin(angle);
      turned[b] = x[a]! * Math.sin(angle) + x[b]! * Math.cos(angle);
    }
  }
  return turned;
}

/** Logits after the last of `tokens`. Weights are `f32` under Hugging Face's names. */
export function lastLogits(
  config: LlamaConfig,
  weights: Weights,
  tokens: readonly number[],
  pairing: Pairing = "halves",
): number[] {
  const { hidden_size: dim, head_dim: d, num_attention_heads: heads, rms_norm_eps: eps } = config;
  const group = heads / config.num_key_value_heads;
  const get = (name: string): HostTensor => weights.get(name)!;
  const embedding = get("model.embed_tokens.weight");
  let xs = tokens.map((t) => Array.from({ length: dim }, (_, i) => embedding.data[t * dim + i] as number));
  for (let layer = 0; layer < config.num_hidden_layers; layer++) {
    const w = (name: string): HostTensor => get(`model.layers.${layer}.${name}.weight`);
    const normed = xs.map((x) => normalize(w("input_layernorm"), x, eps));
    const q = normed.map((x, t) => rotate(multiply(w("self_attn.q_proj"), x), t, config, pairing));
    const k = normed.map((x, t) => rotate(multiply(w("self_attn.k_proj"), x), t, config, pairing));
    const v = normed.map((x) => multiply(w("self_attn.v_proj"), x));
    xs = xs.map((x, t) => {
      const mixed = Array.from({ length: heads * d }, () => 0);
      for (let h = 0; h < heads; h++) {
        const kv = Math.floor(h / group) * d;
        const scores = Array.from(
          { length: t + 1 },
          (_, s) => sum(d, (i) => q[t]![h * d + i]! * k[s]![kv + i]!) / Math.sqrt(d),
        );
        const weightsOf = scores.map((score) => Math.exp(score - Math.max(...scores)));
        const total = sum(weightsOf.length, (s) => weightsOf[s]!);
        for (let i = 0; i < d; i++) mixed[h * d + i] = sum(t + 1, (s) => (weightsOf[s]! / total) * v[s]![kv + i]!);
      }
      const out = multiply(w("self_attn.o_proj"), mixed);
      return x.map((value, i) => value + out[i]!);
    });
    xs = xs.map((x) => {
      const y = normalize(w("post_attention_layernorm"), x, eps);
      const up = multiply(w("mlp.up_proj"), y);
      const gated = multiply(w("mlp.gate_proj"), y).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]!);
      const out = multiply(w("mlp.down_proj"), gated);
      return x.map((value, i) => value + out[i]!);
    });
  }
  const head = config.tie_word_embeddings ? embedding : get("lm_head.weight");
  return multiply(head, normalize(get("model.norm.weight"), xs.at(-1)!, eps));
}

export function tinyConfig(changes: Partial<LlamaConfig> = {}): LlamaConfig {
  return {
    model_type: "llama",
    hidden_size: 64,
    intermediate_size: 96,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 16,
    vocab_size: 270,
    max_position_embeddings: 32,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    ...changes,
  };
}

/** Seeded weights of a model, large enough for attention to be far from uniform. */
export function randomWeights(config: LlamaConfig, seed: number): Map<string, HostTensor> {
  const { hidden_size: dim, intermediate_size: inner, head_dim: d, vocab_size: vocabulary } = config;
  const next = random(seed);
  const weights = new Map<string, HostTensor>();
  const add = (name: string, ...shape: number[]): void => {
    const size = shape.reduce((a, b) => a * b);
    const scale = shape.length === 1 ? 1 : 4 / Math.sqrt(shape[1]!);
    const data = Float32Array.from({ length: size }, () =>
      shape.length === 1 ? 0.5 + next() : scale * (next() - 0.5),
    );
    weights.set(name, new HostTensor("f32", shape, data));
  };
  add("model.embed_tokens.weight", vocabulary, dim);
  for (let i = 0; i < config.num_hidden_layers; i++) {
    const layer = `model.layers.${i}`;
    add(`${layer}.input_layernorm.weight`, dim);
    add(`${layer}.self_attn.q_proj.weight`, config.num_attention_heads * d, dim);
    add(`${layer}.self_attn.k_proj.weight`, config.num_key_value_heads * d, dim);
    add(`${layer}.self_attn.v_proj.weight`, config.num_key_value_heads * d, dim);
    add(`${layer}.self_attn.o_proj.weight`, dim, config.num_attention_heads * d);
    add(`${layer}.post_attention_layernorm.weight`, dim);
    add(`${layer}.mlp.gate_proj.weight`, inner, dim);
    add(`${layer}.mlp.up_proj.weight`, inner, dim);
    add(`${layer}.mlp.down_proj.weight`, dim, inner);
  }
  add("model.norm.weight", dim);
  if (!config.tie_word_embeddings) add("lm_head.weight", vocabulary, dim);
  return weights;
}

/** A vocabulary of llama2.c with a few pieces of text. */
export const tinyPieces: readonly { text: string; score: number }[] = [
  ...["<unk>", "\n<s>\n", "\n</s>\n"].map((text) => ({ text, score: 0 })),
  ...Array.from({ length: 256 }, (_, byte) => ({
    text: `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    score: 0,
  })),
  ...[" ", "a", "b", "c", "é", " a", "ab", "bc", " ab", "abc", " abc"].map((text, i) => ({ text, score: -i })),
];
