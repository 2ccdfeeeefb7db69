/**
 * The one model that every participant of the training bench trains: a Llama-style decoder (RMSNorm, rotary
 * positions, SwiGLU, tied embeddings, no biases) of 4.07 M parameters, with AdamW on a batch of 8 x 128 tokens.
 */
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

/** AdamW with decoupled decay (Loshchilov and Hutter, 2019), on matrices only; norms' gains are not decayed. */
export const adamw = { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, decay: 0.1 } as const;

/** Shape of each weight under its Hugging Face name; matrices are `[out, in]`. */
export const shapes: Readonly<Record<string, readonly number[]>> = Object.fromEntries([
  ["model.embed_tokens.weight", [model.vocab, model.dim]],
  ...Array.from({ length: model.layers }, (_, i): [string, number[]][] => [
    [`model.layers.${i}.input_layernorm.weight`, [model.dim]],
    [`model.layers.${i}.self_attn.q_proj.weight`, [model.dim, model.dim]],
    [`model.layers.${i}.self_attn.k_proj.weight`, [model.dim, model.dim]],
    [`model.layers.${i}.self_attn.v_proj.weight`, [model.dim, model.dim]],
    [`model.layers.${i}.self_attn.o_proj.weight`, [model.dim, model.dim]],
    [`model.layers.${i}.post_attention_layernorm.weight`, [model.dim]],
    [`model.layers.${i}.mlp.gate_proj.weight`, [model.ffn, model.dim]],
    [`model.layers.${i}.mlp.up_proj.weight`, [model.ffn, model.dim]],
    [`model.layers.${i}.mlp.down_proj.weight`, [model.dim, model.ffn]],
  ]).flat(),
  ["model.norm.weight", [model.dim]],
]);

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

export const parameterCount = Object.values(shapes).reduce((sum, shape) => sum + sizeOf(shape), 0);

/**
 * Floating-point operations of one training step: two for each multiply-add of the forward matrix products (linear
 * layers, the output head, and attention over the whole square of positions, which is what all participants compute),
 * times three because the backward pass has two products for each forward one. Elementwise work and the optimizer are
 * left out.
 */
export const flopsPerStep = (() => {
  const matrices = sizeOf([model.vocab, model.dim]) + model.layers * (4 * model.dim ** 2 + 3 * model.dim * model.ffn);
  const attention = model.layers * 2 * batch.length * model.heads * model.headDim;
  return 3 * 2 * (matrices + attention) * batch.tokens;
})();

/** Uniform numbers in [0, 1) from a 32-bit seed (Weyl sequence through the MurmurHash3 finalizer). */
export function uniform(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let x = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
  };
}

/** Initial weights, the same for every participant: gains are 1, matrices normal with deviation 0.02. */
export function initialWeights(seed = 1): Record<string, Float32Array> {
  const next = uniform(seed);
  return Object.fromEntries(
    Object.entries(shapes).map(([name, shape]) => {
      const values = new Float32Array(sizeOf(shape)).fill(1);
      if (shape.length === 1) return [name, values];
      for (let i = 0; i < values.length; i += 2) {
        const radius = 0.02 * Math.sqrt(-2 * Math.log(1 - next()));
        const angle = 2 * Math.PI * next();
        values[i] = radius * Math.cos(angle);
        values[i + 1] = radius * Math.sin(angle);
      }
      return [name, values];
    }),
  );
}

/** The batch that is trained on: tokens `[8, 128]` and, for each, the token that follows it, row-major. */
export function trainingBatch(seed = 2): { tokens: Int32Array; targets: Int32Array } {
  const next = uniform(seed);
  const tokens = new Int32Array(batch.tokens);
  const targets = new Int32Array(batch.tokens);
  for (let row = 0; row < batch.size; row++) {
    let token = Math.floor(next() * model.vocab);
    for (let i = row * batch.length; i < (row + 1) * batch.length; i++) {
      tokens[i] = token;
      targets[i] = token = Math.floor(next() * model.vocab);
    }
  }
  return { tokens, targets };
}

/** Rotary tables `[length, headDim / 2]`: the angle of position `p` and pair `i` is `p * base^(-2 i / headDim)`. */
export function rotaryTables(): { cos: Float32Array; sin: Float32Array } {
  const half = model.headDim / 2;
  const angles = Float64Array.from(
    { length: batch.length * half },
    (_, i) => Math.floor(i / half) * model.ropeBase ** (-(i % half) / half),
  );
  return { cos: Float32Array.from(angles, Math.cos), sin: Float32Array.from(angles, Math.sin) };
}
