import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { LlamaConfig } from "../../src/formats/index.ts";
import { embeddedModel } from "../../src/models/node.ts";

/** Positions that every model of the bench has: room for the longest context and what is generated behind it. */
export const positions = 1024;

/** Numbers of tokens in the context when the speed of decoding is measured. */
export const contexts = [32, 512] as const;

/** Tokens of the prompt; the longest context is made of them. */
export const promptTokens = 512;

/** Tokens that one measured step decodes. */
export const decodedTokens = 16;

/**
 * How weights are stored: as llama.cpp and transformers.js call it, and how this engine rounds (transformers.js gets the
 * same weights). Blocks of 4 bits are as small as llama.cpp's; at 8 bits larger ones lose nothing that matters.
 */
export const precisions = {
  f32: { bits: 32, gguf: "F32", onnx: { dtype: "fp32", suffix: "" }, rounding: null },
  bits8: {
    bits: 8,
    gguf: "Q8_0",
    onnx: { dtype: "q8", suffix: "_quantized" },
    rounding: { format: "int8", block: 128 },
  },
  bits4: { bits: 4, gguf: "Q4_0", onnx: { dtype: "q4", suffix: "_q4" }, rounding: { format: "int4", block: 32 } },
} as const;

export type Precision = keyof typeof precisions;

/** A Llama with random weights and a tied head, by its size. */
function random(size: {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
  readonly vocab: number;
}): LlamaConfig {
  return {
    model_type: "llama",
    hidden_size: size.dim,
    intermediate_size: size.ffn,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    num_key_value_heads: size.kvHeads,
    head_dim: size.dim / size.heads,
    vocab_size: size.vocab,
    max_position_embeddings: positions,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: true,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
  };
}

/** A trained model: a small one that lies beside the repository, else the one that comes with it. */
const stories = fileURLToPath(new URL("../../../shared/data/lm/stories260K/stories260K.bin", import.meta.url));

/** The models by name: the path of one, or the configuration of one with random weights. */
export const shapes: Readonly<Record<string, string | LlamaConfig>> = {
  /** For tests. */
  tiny: random({ dim: 64, layers: 2, heads: 4, kvHeads: 2, ffn: 128, vocab: 512 }),
  /** 100.1 million weights. */
  "100m": random({ dim: 768, layers: 12, heads: 12, kvHeads: 4, ffn: 2048, vocab: 32_000 }),
  /** 502 million. */
  "500m": random({ dim: 1536, layers: 18, heads: 24, kvHeads: 8, ffn: 4096, vocab: 32_000 }),
  checkpoint: existsSync(stories) ? stories : embeddedModel,
};
