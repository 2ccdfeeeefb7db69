import type { RotaryScaling } from "../../tensor/index.ts";
import { ConfigReader, type Json } from "../config-reader.ts";
import { ModelError } from "../errors.ts";
import { gpt2Config } from "../gpt2/config.ts";

/**
 * A decoder-only transformer, of the Llama family or GPT-2, in plain terms. What sets its members apart are the options;
 * sizes are in elements.
 */
export interface DecoderConfig {
  /** `model_type` of Hugging Face's `config.json`. */
  readonly type: string;
  readonly vocab: number;
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly ffn: number;
  readonly maxPositions: number;
  readonly normEpsilon: number;
  /** `layer` subtracts the mean and has biases (GPT-2). */
  readonly norm: "rms" | "layer";
  /** `learned` positions are added to the embeddings (GPT-2). */
  readonly positions: "rotary" | "learned";
  /** The feed-forward layers multiply by an activated gate; else what they activate is `up` itself (GPT-2). */
  readonly gated: boolean;
  readonly activation: "silu" | "gelu_tanh";
  /** The output head shares the embedding's matrix. */
  readonly tied: boolean;
  readonly ropeBase: number;
  readonly ropeScaling: RotaryScaling | null;
  /** Biases of the query, key and value projections (Qwen2). */
  readonly qkvBias: boolean;
  /** Bias of the attention's output projection. */
  readonly outputBias: boolean;
  readonly ffnBias: boolean;
  /** RMS norm of each query and key head before rotation (Qwen3, Gemma 3). */
  readonly qkNorm: boolean;
  /** Positions that a token sees back, itself included, by layer; null sees all, 0 none: such a layer has no attention. */
  readonly window: readonly (number | null)[];
  /** Rotary base of the layers with a window, where it differs (Gemma 3). */
  readonly localRopeBase: number;
  /** Norms scale by one plus their weight (Gemma). */
  readonly normPlusOne: boolean;
  /** Embeddings are multiplied by this (Gemma: the root of the width). */
  readonly embeddingScale: number;
  /** Further norms behind attention and feed-forward (Gemma 2 and 3). */
  readonly postNorms: boolean;
  /** Attention scores are multiplied by this. */
  readonly attentionScale: number;
  /** `cap * tanh(x / cap)` on attention scores and on logits (Gemma 2). */
  readonly attentionCap: number | null;
  readonly logitCap: number | null;
}

/** Model types that `decoderConfig` understands. */
export const decoderTypes = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2"] as const;

/**
 * The configuration in a Hugging Face `config.json`.
 * @throws ModelError for a type that is not of this family, or an entry that is missing or makes no sense.
 */
export function decoderConfig(json: Json): DecoderConfig {
  const read = new ConfigReader(json);
  const type = read.text("model_type", "");
  if (!(decoderTypes as readonly string[]).includes(type)) {
    throw new ModelError(
      `config.json: the model type "${type}" is not supported as a decoder; supported are ${decoderTypes.join(", ")}`,
    );
  }
  if (type === "gpt2") return gpt2Config(read);
  const gemma = type.startsWith("gemma");
  const [dim, heads, layers] = [
    read.size("hidden_size"),
    read.size("num_attention_heads"),
    read.layers("num_hidden_layers"),
  ];
  const headDim = read.size("head_dim", gemma || type === "qwen3" ? undefined : dim / heads);
  const kvHeads = read.size("num_key_value_heads", heads);
  if (heads % kvHeads !== 0)
    throw new ModelError(`config.json: ${heads} attention heads are not a multiple of ${kvHeads} key-value heads`);
  if (headDim % 2 !== 0) throw new ModelError(`config.json: rotary positions need an even head size, not ${headDim}`);
  return {
    type,
    dim,
    heads,
    layers,
    headDim,
    kvHeads,
    vocab: read.size("vocab_size"),
    ffn: read.size("intermediate_size"),
    maxPositions: read.size("max_position_embeddings", 2048),
    normEpsilon: read.number("rms_norm_eps", 1e-6),
    norm: "rms",
    positions: "rotary",
    gated: true,
    activation: activationOf(read.text("hidden_activation", read.text("hidden_act", "silu"))),
    tied: read.flag("tie_word_embeddings", gemma),
    ropeBase: read.number("rope_theta", ropeParameter(read, "rope_theta") ?? (type === "gemma3_text" ? 1e6 : 10_000)),
    ropeScaling: ropeScaling(read),
    qkvBias: read.flag("attention_bias", type === "qwen2"),
    outputBias: type === "llama" && read.flag("attention_bias", false),
    ffnBias: read.flag("mlp_bias", false),
    qkNorm: type === "qwen3" || type === "gemma3_text",
    window: windows(read, type, layers),
    localRopeBase:
      type === "gemma3_text"
        ? read.number("rope_local_base_freq", 10_000)
        : read.number("rope_theta", ropeParameter(read, "rope_theta") ?? 10_000),
    normPlusOne: gemma,
    embeddingScale: gemma ? Math.fround(Math.sqrt(dim)) : 1,
    postNorms: gemma,
    attentionScale: 1 / Math.sqrt(gemma ? read.number("query_pre_attn_scalar", headDim) : headDim),
    attentionCap: type === "gemma2" ? (read.optional("attn_logit_softcapping") ?? null) : null,
    logitCap: gemma ? (read.optional("final_logit_softcapping") ?? null) : null,
  };
}

/** The layers that have attention, and with it a cache of keys and values. */
export function attendingLayers({ window }: Pick<DecoderConfig, "window">): number[] {
  return window.flatMap((size, layer) => (size === 0 ? [] : [layer]));
}

/** The size of the window, which all layers that have one share; null where none has one. */
export function slidingWindow({ window }: Pick<DecoderConfig, "window">): number | null {
  return window.find((size) => size !== null && size > 0) ?? null;
}

function activationOf(name: string): DecoderConfig["activation"] {
  if (name === "silu" || name === "swish") return "silu";
  if (name === "gelu_pytorch_tanh" || name === "gelu_new") return "gelu_tanh";
  throw new ModelError(
    `config.json: the activation "${name}" is not supported; supported are silu and gelu_pytorch_tanh`,
  );
}

/** Newer files keep rotary settings in a record of their own. */
function ropeParameter(read: ConfigReader, name: string): number | undefined {
  const record = read.raw("rope_parameters");
  const value = record !== null && typeof record === "object" ? (record as Json)[name] : undefined;
  return typeof value === "number" ? value : undefined;
}

function ropeScaling(read: ConfigReader): RotaryScaling | null {
  const record = read.raw("rope_scaling") ?? read.raw("rope_parameters");
  if (record === undefined) return null;
  if (typeof record !== "object" || record === null)
    throw new ModelError(`config.json: "rope_scaling" must be a record, not ${JSON.stringify(record)}`);
  const inner = new ConfigReader(record as Json);
  const type = inner.text("rope_type", inner.text("type", "default"));
  if (type === "default") return null;
  if (type === "linear") return { type, factor: inner.number("factor") };
  if (type === "llama3") {
    return {
      type,
      factor: inner.number("factor"),
      lowFrequencyFactor: inner.number("low_freq_factor"),
      highFrequencyFactor: inner.number("high_freq_factor"),
      originalPositions: inner.number("original_max_position_embeddings"),
    };
  }
  if (type === "longrope") return { type: "factors", factors: constantFactors(inner) };
  throw new ModelError(
    `config.json: the rotary scaling "${type}" is not supported; supported are linear, llama3 and longrope`,
  );
}

/** The factors of a "longrope" that are the same for short and for long texts, and scale nothing else. */
function constantFactors(read: ConfigReader): readonly number[] {
  const [short, long] = [read.raw("short_factor"), read.raw("long_factor")];
  const isFactor = (value: unknown): value is number => typeof value === "number" && value > 0 && value < Infinity;
  if (!Array.isArray(short) || !short.every(isFactor))
    throw new ModelError('config.json: "short_factor" must be a list of positive numbers');
  if (JSON.stringify(short) !== JSON.stringify(long) || read.number("attention_factor") !== 1)
    throw new ModelError(
      'config.json: the rotary scaling "longrope" is supported where short_factor equals long_factor and attention_factor is 1',
    );
  return short;
}

function windows(read: ConfigReader, type: string, layers: number): (number | null)[] {
  const size = read.optional("sliding_window");
  const listed = read.raw("layer_types");
  if (Array.isArray(listed) && listed.includes(NO_ATTENTION)) return withoutAttention(listed, size, layers);
  const all = (value: (layer: number) => number | null): (number | null)[] =>
    Array.from({ length: layers }, (_, i) => value(i));
  if (size === null) return all(() => null);
  if (Array.isArray(listed)) return all((i) => (listed[i] === "sliding_attention" ? size : null));
  if (type === "mistral") return all(() => size);
  if (type === "gemma2") return all((i) => (i % 2 === 0 ? size : null));
  if (type === "gemma3_text") {
    const period = read.size("sliding_window_pattern", 6);
    return all((i) => ((i + 1) % period === 0 ? null : size));
  }
  if (read.flag("use_sliding_window", false))
    return all((i) => (i >= read.number("max_window_layers", layers) ? size : null));
  return all(() => null);
}

/** What `layer_types` calls a layer without attention: an extension of Hugging Face's terms. */
export const NO_ATTENTION = "no_attention";

function withoutAttention(listed: readonly unknown[], size: number | null, layers: number): (number | null)[] {
  if (listed.length !== layers)
    throw new ModelError(`config.json: "layer_types" names ${listed.length} layers, but there are ${layers}`);
  if (listed.every((type) => type === NO_ATTENTION))
    throw new ModelError(`config.json: none of the ${layers} layers has attention; at least one needs it`);
  return listed.map((type, layer) => {
    if (type === NO_ATTENTION) return 0;
    if (type === "full_attention") return null;
    if (type !== "sliding_attention")
      throw new ModelError(
        `config.json: layer ${layer} is of type ${JSON.stringify(type)}; beside ${NO_ATTENTION}, full_attention and sliding_attention are supported`,
      );
    if (size === null || !Number.isInteger(size) || size < 1)
      throw new ModelError(`config.json: layer ${layer} slides, so "sliding_window" must be a whole number from 1`);
    return size;
  });
}
