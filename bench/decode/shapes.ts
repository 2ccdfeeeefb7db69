import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { llamaOfSize, size100m } from "../../src/evaluate/index.ts";
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
 * same weights). Blocks of 4 bits are as small as llama.cpp's; at 8 bits larger ones lose nothing that matters. At
 * 2 bits they are as small as the kernel is fast with, 2.5 bits a weight against llama.cpp's 2.6.
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
  bits2: { bits: 2, gguf: "Q2_K", onnx: { dtype: "q2", suffix: "_q2" }, rounding: { format: "int2", block: 64 } },
} as const;

export type Precision = keyof typeof precisions;

/** A trained model: a small one that lies beside the repository, else the one that comes with it. */
const stories = fileURLToPath(new URL("../../../shared/data/lm/stories260K/stories260K.bin", import.meta.url));

/** The models by name: the path of one, or the configuration of one with random weights. */
export const shapes: Readonly<Record<string, string | LlamaConfig>> = {
  /** For tests. */
  tiny: llamaOfSize({ dim: 64, layers: 2, heads: 4, kvHeads: 2, ffn: 128, vocab: 512 }, positions),
  /** 100.1 million weights. */
  "100m": llamaOfSize(size100m, positions),
  /** 502 million. */
  "500m": llamaOfSize({ dim: 1536, layers: 18, heads: 24, kvHeads: 8, ffn: 4096, vocab: 32_000 }, positions),
  checkpoint: existsSync(stories) ? stories : embeddedModel,
};
