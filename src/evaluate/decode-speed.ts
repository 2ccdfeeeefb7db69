import type { LlamaConfig } from "../formats/index.ts";
import { DecoderSession } from "../generate/index.ts";
import { type DecoderConfig, decoderConfig, initDecoder, type Weights } from "../models/index.ts";
import { Dense, type RoundOptions, roundToBlocks } from "../nn/index.ts";
import { isHostTensor, Rng } from "../tensor/index.ts";

/** What the speed of a Llama depends on. */
export interface LlamaSize {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly ffn: number;
  readonly vocab: number;
}

/** 100.1 million weights. */
export const size100m: LlamaSize = { dim: 768, layers: 12, heads: 12, kvHeads: 4, ffn: 2048, vocab: 32_000 };

/** The configuration of a Llama of that size, with a tied head. @param positions that it can read */
export function llamaOfSize({ dim, layers, heads, kvHeads, ffn, vocab }: LlamaSize, positions: number): LlamaConfig {
  return {
    model_type: "llama",
    hidden_size: dim,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    head_dim: dim / heads,
    vocab_size: vocab,
    max_position_embeddings: positions,
    rms_norm_eps: 1e-5,
    rope_theta: 10_000,
    tie_word_embeddings: true,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
  };
}

/** Weights with all their dense matrices rounded to blocks, the embedding table and a tied head with them. */
export function roundedMatrices(weights: Weights, rounding: RoundOptions): Weights {
  return Object.fromEntries(
    Object.entries(weights).map(([name, weight]) => {
      const matrix = weight instanceof Dense && isHostTensor(weight.values) ? weight.values : null;
      return [name, matrix ? roundToBlocks(matrix, rounding) : weight];
    }),
  );
}

export interface DecodeSpeedOptions {
  /** Tokens that are in the context before. Default 32. */
  readonly context?: number;
  /** Tokens that are decoded in one turn. Default 8. */
  readonly tokens?: number;
  /** Turns of each. Default 5. */
  readonly turns?: number;
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal;
}

/**
 * How fast a model decodes with each of several representations of its weights, in tokens a second: medians over turns,
 * which they take one after the other, so that a slow moment of the machine hits all alike. On the native CPU device.
 */
export async function decodeSpeeds(
  config: DecoderConfig,
  variants: Readonly<Record<string, Weights>>,
  { context = 32, tokens = 8, turns = 5, threads, signal }: DecodeSpeedOptions = {},
): Promise<Record<string, number>> {
  const runners: { readonly name: string; readonly session: DecoderSession; readonly seconds: number[] }[] = [];
  try {
    for (const [name, weights] of Object.entries(variants)) {
      signal?.throwIfAborted();
      const options = { spin: true, ...(threads !== undefined && { threads }) };
      const session = await DecoderSession.open(config, weights, options);
      runners.push({ name, session, seconds: [] });
      await session.advance(Array.from({ length: context }, (_, i) => i % config.vocab));
    }
    // The first turn warms up.
    for (let turn = 0; turn <= turns; turn++)
      for (const { session, seconds } of runners) {
        signal?.throwIfAborted();
        const began = performance.now();
        for (let i = 0; i < tokens; i++) await session.advance([i % config.vocab]);
        if (turn > 0) seconds.push((performance.now() - began) / 1000);
        session.truncate(context);
      }
  } finally {
    for (const { session } of runners) await session.dispose();
  }
  return Object.fromEntries(runners.map(({ name, seconds }) => [name, tokens / median(seconds)]));
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1]!;

/** The speeds of a Llama of random weights in `f32`, and at 4 bits in blocks of 32. */
export async function packedDecodeSpeeds(
  size: LlamaSize,
  options: DecodeSpeedOptions = {},
): Promise<{ readonly f32: number; readonly int4: number }> {
  const { context = 32, tokens = 8 } = options;
  const config = decoderConfig({ ...llamaOfSize(size, context + tokens) });
  const f32 = initDecoder(config, new Rng(0));
  const int4 = roundedMatrices(f32, { format: "int4", block: 32 });
  const speeds = await decodeSpeeds(config, { f32, int4 }, options);
  return { f32: speeds["f32"]!, int4: speeds["int4"]! };
}
