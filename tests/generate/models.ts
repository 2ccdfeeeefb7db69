import { expect } from "vitest";
import type { GenerationTokenizer } from "../../src/generate/index.ts";
import {
  type DecoderConfig,
  decoderConfig,
  decoderLogits,
  decoderShapes,
  type Weights,
} from "../../src/models/index.ts";
import { Dense } from "../../src/nn/index.ts";
import { compile } from "../../src/runtime/index.ts";
import { HostTensor, Rng, spec } from "../../src/tensor/index.ts";

/** Changes that make the small model a Gemma with windows in some layers. */
export const windowedGemma = {
  model_type: "gemma3_text",
  head_dim: 8,
  query_pre_attn_scalar: 8,
  sliding_window: 3,
  sliding_window_pattern: 2,
  hidden_activation: "gelu_pytorch_tanh",
};

/** A small model with random weights, large enough that every part matters. */
export function tinyModel(changes: Record<string, unknown> = {}): { config: DecoderConfig; weights: Weights } {
  const config = decoderConfig({
    model_type: "llama",
    vocab_size: 23,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    max_position_embeddings: 40,
    ...changes,
  });
  const rng = new Rng(3);
  const weights = Object.fromEntries(
    [...decoderShapes(config)].map(([name, shape]) => {
      const matrix = shape.length === 2;
      const values = rng.fork(name).normalTensor(shape, { std: 0.4, mean: matrix || config.normPlusOne ? 0 : 1 });
      return [name, matrix ? new Dense(values) : values];
    }),
  );
  return { config, weights };
}

/** Logits `[vocab]` behind all of `ids`, computed afresh from the whole sequence. */
export type WholeLogits = (ids: readonly number[]) => Promise<Float32Array>;

export async function wholeLogits(config: DecoderConfig, weights: Weights): Promise<WholeLogits> {
  const program = await compile((ids) => decoderLogits(config, weights, ids), [spec("i64", [1, "seq"])], {
    threads: 1,
  });
  return async (ids) => {
    const logits = await program(HostTensor.from([ids.map(BigInt)]));
    return (logits.data as Float32Array).subarray(-config.vocab);
  };
}

/** The best token, again and again. */
export async function greedily(whole: WholeLogits, prompt: readonly number[], count: number): Promise<number[]> {
  const ids = [...prompt];
  for (let i = 0; i < count; i++) {
    const logits = await whole(ids);
    ids.push(logits.indexOf(Math.max(...logits)));
  }
  return ids.slice(prompt.length);
}

/** Tokens 0 to 22 are the letters a to w; 20 (u) ends a text. */
export const letterTokenizer: GenerationTokenizer = {
  encode: (text) => Array.from(text, (letter) => letter.charCodeAt(0) - 97),
  decodeStream: () => ({ push: (id) => String.fromCharCode(97 + id), end: () => "" }),
  eosId: 20,
};

export function expectNear(found: Float32Array, expected: Float32Array): void {
  expect(found.length).toBe(expected.length);
  for (const [i, v] of expected.entries()) expect(Math.abs(found[i]! - v)).toBeLessThan(1e-3 * (1 + Math.abs(v)));
}
