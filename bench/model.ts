/**
 * The one model that all participants of the training bench train: a Llama-style decoder (RMSNorm, rotary positions,
 * SwiGLU, tied embeddings, no biases) of 4.07 M parameters, with AdamW, on a batch of 8 x 128 tokens.
 */
import { Rng } from "../src/tensor/rng.ts";

export const model = {
  vocab: 4096,
  dim: 256,
  layers: 4,
  heads: 4,
  headDim: 64,
  ffn: 640,
  normEps: 1e-5,
  ropeBase: 10_000,
} as const;

export const batch = { size: 8, length: 128, tokens: 8 * 128 } as const;

/** AdamW (Loshchilov and Hutter 2019) at a constant rate; only matrices decay, and gradients are not clipped. */
export const adamw = { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1 } as const;

/** Shape of each weight under its Hugging Face name; matrices are `[out, in]`. */
export const shapes: Readonly<Record<string, readonly number[]>> = {
  "model.embed_tokens.weight": [model.vocab, model.dim],
  ...Object.assign({}, ...Array.from({ length: model.layers }, (_, i) => layerShapes(`model.layers.${i}`))),
  "model.norm.weight": [model.dim],
};

function layerShapes(layer: string): Record<string, readonly number[]> {
  const { dim, ffn } = model;
  return {
    [`${layer}.input_layernorm.weight`]: [dim],
    [`${layer}.self_attn.q_proj.weight`]: [dim, dim],
    [`${layer}.self_attn.k_proj.weight`]: [dim, dim],
    [`${layer}.self_attn.v_proj.weight`]: [dim, dim],
    [`${layer}.self_attn.o_proj.weight`]: [dim, dim],
    [`${layer}.post_attention_layernorm.weight`]: [dim],
    [`${layer}.mlp.gate_proj.weight`]: [ffn, dim],
    [`${layer}.mlp.up_proj.weight`]: [ffn, dim],
    [`${layer}.mlp.down_proj.weight`]: [dim, ffn],
  };
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** 4,065,536. */
export const parameterCount = Object.values(shapes).reduce((sum, shape) => sum + sizeOf(shape), 0);

/**
 * Floating-point operations of one training step, 26.6 billion: two for each multiply-add of the forward matrix
 * products (projections, output head, and attention over the whole square of positions, as all participants compute
 * it), times three, because the backward pass has two products for each forward one. Elementwise work and the
 * optimizer are not counted.
 */
export const flopsPerStep =
  3 * 2 * batch.tokens * (matrixElements() + 2 * model.layers * batch.length * model.heads * model.headDim);

function matrixElements(): number {
  const matrices = Object.values(shapes).filter((shape) => shape.length === 2);
  return matrices.reduce((sum, shape) => sum + sizeOf(shape), 0);
}

/** Initial weights, the same numbers for every participant: gains are 1, matrices normal with deviation 0.02. */
export function initialWeights(): Record<string, Float32Array> {
  const rng = new Rng(1);
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const own = rng.fork(name);
      return [name, Float32Array.from({ length: sizeOf(shape) }, () => (shape.length === 1 ? 1 : own.normal(0, 0.02)))];
    }),
  );
}

/** The batch that is trained on: random tokens `[8, 128]`, and for each the token that is to be predicted. */
export function trainingBatch(): { tokens: Int32Array; targets: Int32Array } {
  const rng = new Rng(2);
  const { vocab } = model;
  return {
    tokens: Int32Array.from(rng.integers(batch.tokens, vocab)),
    targets: Int32Array.from(rng.integers(batch.tokens, vocab)),
  };
}

/** Rotary tables `[length, headDim / 2]`: position `p` turns pair `i` by `p * base^(-2 i / headDim)`. */
export function rotaryTables(): { cos: Float32Array; sin: Float32Array } {
  const half = model.headDim / 2;
  const angles = Float64Array.from(
    { length: batch.length * half },
    (_, i) => Math.floor(i / half) * model.ropeBase ** (-(i % half) / half),
  );
  return { cos: Float32Array.from(angles, Math.cos), sin: Float32Array.from(angles, Math.sin) };
}

/** The transpose of a matrix of shape `[rows, columns]`. */
export function transposed(values: Float32Array, [rows, columns]: readonly number[]): Float32Array {
  return Float32Array.from(values, (_, i) => values[(i % rows!) * columns! + Math.floor(i / rows!)]!);
}
