import type { ConfigReader } from "../config-reader.ts";
import type { DecoderConfig } from "../decoder/config.ts";
import { ModelError } from "../errors.ts";

/** Settings that change what is computed, with the only value of each that is supported, which is GPT-2's. */
const fixed: Readonly<Record<string, unknown>> = {
  activation_function: "gelu_new",
  scale_attn_weights: true,
  scale_attn_by_inverse_layer_idx: false,
  add_cross_attention: false,
};

/** The configuration of a GPT-2. @throws ModelError for an entry that is missing, makes no sense, or is not supported */
export function gpt2Config(read: ConfigReader): DecoderConfig {
  for (const [name, value] of Object.entries(fixed)) {
    const given = read.raw(name) ?? value;
    if (given !== value)
      throw new ModelError(
        `config.json: a GPT-2 is supported with "${name}" ${JSON.stringify(value)}, not ${JSON.stringify(given)}`,
      );
  }
  const [dim, heads, layers] = [read.size("n_embd"), read.size("n_head"), read.layers("n_layer")];
  if (dim % heads !== 0) throw new ModelError(`config.json: a width of ${dim} is not a multiple of ${heads} heads`);
  const headDim = dim / heads;
  return {
    type: "gpt2",
    dim,
    heads,
    layers,
    headDim,
    kvHeads: heads,
    vocab: read.size("vocab_size"),
    ffn: read.size("n_inner", 4 * dim),
    maxPositions: read.size("n_positions", 1024),
    normEpsilon: read.number("layer_norm_epsilon", 1e-5),
    norm: "layer",
    positions: "learned",
    gated: false,
    activation: "gelu_tanh",
    tied: read.flag("tie_word_embeddings", true),
    ropeBase: 10_000,
    ropeScaling: null,
    qkvBias: true,
    outputBias: true,
    ffnBias: true,
    qkNorm: false,
    window: Array.from({ length: layers }, () => null),
    localRopeBase: 10_000,
    normPlusOne: false,
    embeddingScale: 1,
    postNorms: false,
    attentionScale: 1 / Math.sqrt(headDim),
    attentionCap: null,
    logitCap: null,
  };
}
