import { decoderConfig, decoderShapes } from "../../src/models/index.ts";
import { type HostTensor, Rng } from "../../src/tensor/index.ts";

export type Json = Readonly<Record<string, unknown>>;

const sizes = {
  vocab_size: 270,
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 16,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  rope_theta: 10_000,
  hidden_act: "silu",
};

const gemma = { hidden_act: "gelu_pytorch_tanh", hidden_activation: "gelu_pytorch_tanh", tie_word_embeddings: true };

/** A small configuration of each architecture, as its config.json has it; windows are shorter than what is generated. */
export const family: Readonly<Record<string, Json>> = {
  llama: { ...sizes, model_type: "llama", tie_word_embeddings: false },
  "llama, tied": { ...sizes, model_type: "llama", tie_word_embeddings: true },
  "llama, its rotary frequencies scaled": {
    ...sizes,
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
  mistral: { ...sizes, model_type: "mistral", tie_word_embeddings: false, sliding_window: 24 },
  qwen2: { ...sizes, model_type: "qwen2", tie_word_embeddings: true },
  qwen3: { ...sizes, model_type: "qwen3", head_dim: 32, tie_word_embeddings: false },
  gemma2: {
    ...sizes,
    ...gemma,
    model_type: "gemma2",
    query_pre_attn_scalar: 16,
    sliding_window: 24,
    attn_logit_softcapping: 2,
    final_logit_softcapping: 1,
  },
  gemma3_text: {
    ...sizes,
    ...gemma,
    model_type: "gemma3_text",
    num_hidden_layers: 6,
    query_pre_attn_scalar: 16,
    sliding_window: 24,
    rope_theta: 1_000_000,
    rope_local_base_freq: 10_000,
  },
  gpt2: { model_type: "gpt2", vocab_size: 270, n_embd: 64, n_layer: 2, n_head: 4, n_positions: 128, n_inner: null },
};

/** Weights large enough that every part matters, gains and biases included. */
export function randomWeights(json: Json): Map<string, HostTensor> {
  const config = decoderConfig(json);
  const rng = new Rng(11);
  return new Map(
    Array.from(decoderShapes(config), ([name, shape]) => {
      const gain = shape.length === 1 && !name.endsWith(".bias") && !config.normPlusOne;
      // Small embeddings, since a tied head would otherwise answer with the token itself.
      const std = shape.length === 1 ? 0.3 : (name.includes("embed") ? 0.3 : 1.2) / Math.sqrt(shape[1]!);
      return [name, rng.fork(name).normalTensor(shape, { mean: gain ? 1 : 0, std })];
    }),
  );
}
