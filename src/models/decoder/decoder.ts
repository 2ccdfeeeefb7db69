import { at } from "../../nn/index.ts";
import {
  type AttentionOptions,
  add,
  asTensor,
  cast,
  concat,
  gelu,
  ints,
  iota,
  layerNorm,
  mul,
  op,
  type RotaryTable,
  reshape,
  rmsNorm,
  rotary,
  rotaryTable,
  scaledDotProductAttention,
  silu,
  type Tensor,
  tanh,
  transpose,
} from "../../tensor/index.ts";
import { ModelError } from "../errors.ts";
import { attendingLayers, type DecoderConfig } from "./config.ts";
import { WeightBag, type Weights } from "./weights.ts";

/** Keys and values of one layer's earlier tokens, `[batch, past, kvHeads * headDim]` each, keys rotated. */
export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** What a forward pass over cached context needs besides tokens. */
export interface CachedContext {
  /** Of the layers that have attention, in order. */
  readonly layers: readonly LayerCache[];
  /** `i64 [batch, seq]`: position of each new token. */
  readonly positions: Tensor;
  /** Added to attention scores, `[.., seq, past + seq]`: 0 where seen, very negative where not. */
  readonly mask: Tensor;
  /** The mask of layers with a window, where the model has such. */
  readonly windowMask?: Tensor;
}

type ScoreOptions = Pick<AttentionOptions, "scale" | "softcap">;

/** A forward pass whose caller says how attention is carried out, for cached context that lies in other ways. */
export interface AttendedContext {
  /** `i64 [batch, seq]`: position of each new token. */
  readonly positions: Tensor;
  /**
   * Attention of a layer's new tokens to cached ones and themselves: from queries `[batch, seq, heads * headDim]`, keys
   * and values `[batch, seq, kvHeads * headDim]` to `[batch, seq, heads * headDim]`.
   */
  attend(layer: number, q: Tensor, k: Tensor, v: Tensor, options: ScoreOptions): Tensor;
}

export interface DecoderOutput {
  /** Behind the last norm, `[batch, seq, dim]`. */
  readonly hidden: Tensor;
  /** The new tokens' rows for the cache, of the layers that have attention, in order. */
  readonly rows: readonly LayerCache[];
}

/**
 * The forward pass of a decoder over `ids i64 [batch, seq]`, causal; with `context`, behind cached tokens.
 * Points: `model.embed`, and for each layer `model.layers.N.attn.in`, `.q`, `.k`, `.v`, `.attn.mix` (the input of the
 * output projection), `.attn.out`, `.mlp.in`, `.mlp.act` (the input of the down projection), `.mlp.out`, and `.out` (the
 * residual stream behind the layer); then `model.norm`. Layers without attention have none of the points of it.
 */
export function decode(
  config: DecoderConfig,
  weights: Weights,
  ids: Tensor,
  context?: CachedContext | AttendedContext,
): DecoderOutput {
  const bag = new WeightBag(weights);
  let hidden = embedTokens(config, weights, ids, context?.positions);
  const rows: LayerCache[] = [];
  for (let i = 0; i < config.layers; i++) {
    const layer = new Layer(config, bag, i, context);
    hidden = layer.forward(hidden);
    if (layer.rows) rows.push(layer.rows);
  }
  return { hidden: finalNorm(config, weights, hidden), rows };
}

/**
 * The embeddings `[batch, seq, dim]` of `ids i64 [batch, seq]`, as the first layer sees them.
 * @param positions `i64`, of the same shape, for models whose positions are embedded; 0, 1, ... by default
 */
export function embedTokens(config: DecoderConfig, weights: Weights, ids: Tensor, positions?: Tensor): Tensor {
  const bag = new WeightBag(weights);
  const rows = bag.matrix("model.embed_tokens.weight").rows(ids);
  if (config.positions === "learned") {
    const places = bag.matrix("model.embed_positions.weight").rows(positions ?? iota(ids.shape[1]!, [ids]));
    return at("model.embed", add(rows, cast(places, rows.dtype)));
  }
  return at("model.embed", config.embeddingScale === 1 ? rows : mul(rows, config.embeddingScale));
}

/**
 * One layer alone, over the residual stream `hidden [batch, seq, dim]` before it: the stream behind it. Of `weights`
 * only those of the layer are looked at.
 */
export function decoderBlock(config: DecoderConfig, weights: Weights, index: number, hidden: Tensor): Tensor {
  return new Layer(config, new WeightBag(weights), index, undefined).forward(hidden);
}

/** The residual stream behind the last layer, through the norm that comes before the head. */
export function finalNorm(config: DecoderConfig, weights: Weights, hidden: Tensor): Tensor {
  return at("model.norm", normed(config, new WeightBag(weights), "model.norm", hidden));
}

const inputs: Readonly<Record<string, string>> = {
  "self_attn.q_proj": "attn.in",
  "self_attn.k_proj": "attn.in",
  "self_attn.v_proj": "attn.in",
  "self_attn.o_proj": "attn.mix",
  "mlp.gate_proj": "mlp.in",
  "mlp.up_proj": "mlp.in",
  "mlp.down_proj": "mlp.act",
};

/** The point whose tensor a matrix of a layer multiplies: `model.layers.N.mlp.act` for `model.layers.N.mlp.down_proj.weight`. */
export function matrixInput(name: string): string {
  const [, layer, matrix] = /^(model\.layers\.\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const point = matrix === undefined ? undefined : inputs[matrix];
  if (point === undefined) throw new ModelError(`"${name}" is no matrix of a decoder's layer`);
  return `${layer}.${point}`;
}

/** Logits `[..., vocab]` of hidden states `[..., dim]`. */
export function headLogits(config: DecoderConfig, weights: Weights, hidden: Tensor): Tensor {
  const head = new WeightBag(weights).matrix(config.tied ? "model.embed_tokens.weight" : "lm_head.weight");
  return capped(head.apply(hidden), config.logitCap);
}

/** Logits `[batch, seq, vocab]` of `ids i64 [batch, seq]`, all positions: what training and scoring need. */
export function decoderLogits(config: DecoderConfig, weights: Weights, ids: Tensor): Tensor {
  return headLogits(config, weights, decode(config, weights, ids).hidden);
}

const capped = (x: Tensor, cap: number | null): Tensor => (cap === null ? x : mul(tanh(mul(x, 1 / cap)), cap));

function normed(config: DecoderConfig, bag: WeightBag, name: string, x: Tensor): Tensor {
  const gain = bag.vector(`${name}.weight`);
  if (config.norm === "layer") return layerNorm(x, gain, bag.vector(`${name}.bias`), { epsilon: config.normEpsilon });
  return rmsNorm(x, config.normPlusOne ? add(gain, 1) : gain, { epsilon: config.normEpsilon });
}

class Layer {
  readonly #config: DecoderConfig;
  readonly #bag: WeightBag;
  readonly #name: string;
  readonly #index: number;
  readonly #context: CachedContext | AttendedContext | undefined;
  rows: LayerCache | undefined;

  constructor(
    config: DecoderConfig,
    bag: WeightBag,
    index: number,
    context: CachedContext | AttendedContext | undefined,
  ) {
    this.#config = config;
    this.#bag = bag;
    this.#index = index;
    this.#name = `model.layers.${index}`;
    this.#context = context;
  }

  forward(x: Tensor): Tensor {
    const { postNorms } = this.#config;
    const middle = this.#config.window[this.#index] === 0 ? x : this.#attended(x);
    let fed = this.#feedForward(
      this.#point("mlp.in", this.#norm(postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm", middle)),
    );
    if (postNorms) fed = this.#norm("post_feedforward_layernorm", fed);
    return this.#point("out", add(middle, this.#point("mlp.out", fed)));
  }

  /** The stream with what attention adds to it. */
  #attended(x: Tensor): Tensor {
    const mixed = this.#attention(this.#point("attn.in", this.#norm("input_layernorm", x)));
    const attended = this.#config.postNorms ? this.#norm("post_attention_layernorm", mixed) : mixed;
    return add(x, this.#point("attn.out", attended));
  }

  #point(name: string, x: Tensor): Tensor {
    return at(`${this.#name}.${name}`, x);
  }

  #norm(name: string, x: Tensor): Tensor {
    return normed(this.#config, this.#bag, `${this.#name}.${name}`, x);
  }

  #feedForward(x: Tensor): Tensor {
    const { activation, ffnBias, gated } = this.#config;
    const project = (name: string, input: Tensor): Tensor =>
      this.#bag.apply(`${this.#name}.mlp.${name}_proj`, input, ffnBias);
    const gate = project(gated ? "gate" : "up", x);
    const opened = activation === "silu" ? silu(gate) : gelu(gate, { approximate: "tanh" });
    return project("down", this.#point("mlp.act", gated ? mul(opened, project("up", x)) : opened));
  }

  #attention(x: Tensor): Tensor {
    const { heads, kvHeads, headDim, outputBias } = this.#config;
    const q = this.#point("q", this.#rotated(this.#projected("q", x, heads), heads));
    const k = this.#point("k", this.#rotated(this.#projected("k", x, kvHeads), kvHeads));
    const v = this.#point("v", this.#projected("v", x, kvHeads));
    this.rows = { keys: k, values: v };
    const mixed = this.#mixed(q, k, v);
    const joined = reshape(mixed, [...x.shape.slice(0, 2), heads * headDim], [x]);
    return this.#bag.apply(`${this.#name}.self_attn.o_proj`, this.#point("attn.mix", joined), outputBias);
  }

  #mixed(q: Tensor, k: Tensor, v: Tensor): Tensor {
    const context = this.#context;
    if (!context) return this.#causal(q, k, v);
    return "attend" in context
      ? context.attend(this.#index, q, k, v, this.#options())
      : this.#overCache(q, k, v, context);
  }

  /** Queries, keys or values `[batch, seq, heads * headDim]`, queries and keys with their norm where the model has one. */
  #projected(name: "q" | "k" | "v", x: Tensor, heads: number): Tensor {
    const { qkvBias, qkNorm, headDim } = this.#config;
    const y = this.#bag.apply(`${this.#name}.self_attn.${name}_proj`, x, qkvBias);
    if (!qkNorm || name === "v") return y;
    // Zeros keep a dimension: one that has a name need not be looked up at run time.
    const perHead = op("Reshape", [y, ints([0, 0, heads, headDim])]);
    return op("Reshape", [this.#norm(`self_attn.${name}_norm`, perHead), ints([0, 0, heads * headDim])]);
  }

  #rotated(x: Tensor, heads: number): Tensor {
    const { positions, maxPositions, headDim, ropeBase, localRopeBase, ropeScaling, window } = this.#config;
    if (positions === "learned") return x;
    const local = window[this.#index] !== null;
    const seq = x.shape[1]!;
    const length = this.#context || typeof seq !== "number" ? maxPositions : seq;
    const { cos, sin } = tableFor(
      length,
      headDim,
      local ? localRopeBase : ropeBase,
      local && localRopeBase !== ropeBase ? null : ropeScaling,
    );
    return rotary(x, cos, sin, { heads, ...(this.#context && { positions: this.#context.positions }) });
  }

  #options(): ScoreOptions {
    const { attentionScale, attentionCap } = this.#config;
    return { scale: attentionScale, ...(attentionCap !== null && { softcap: attentionCap }) };
  }

  /** Attention among the tokens of the input alone. */
  #causal(q: Tensor, k: Tensor, v: Tensor): Tensor {
    const { heads, kvHeads, headDim, window } = this.#config;
    const separate = (x: Tensor, count: number): Tensor =>
      transpose(reshape(x, [...x.shape.slice(0, 2), count, headDim], [x]), [0, 2, 1, 3]);
    const reach = window[this.#index] ?? null;
    const mixed = scaledDotProductAttention(separate(q, heads), separate(k, kvHeads), separate(v, kvHeads), {
      ...this.#options(),
      causal: true,
      ...(reach !== null && { window: reach }),
    });
    return transpose(mixed, [0, 2, 1, 3]);
  }

  /** Attention of new tokens to cached ones and themselves. */
  #overCache(q: Tensor, k: Tensor, v: Tensor, { layers, mask, windowMask }: CachedContext): Tensor {
    const { heads, kvHeads, attentionScale, attentionCap, window } = this.#config;
    const past = layers[attendingLayers(this.#config).indexOf(this.#index)]!;
    const seen = window[this.#index] === null ? mask : (windowMask ?? mask);
    return op("Attention", [q, concat([past.keys, k], 1), concat([past.values, v], 1), seen], {
      q_num_heads: heads,
      kv_num_heads: kvHeads,
      scale: attentionScale,
      ...(attentionCap !== null && { softcap: attentionCap }),
    });
  }
}

const tables = new Map<string, RotaryTable<Tensor>>();

/** Rotary tables are shared by all layers and traces that ask for the same. */
function tableFor(
  length: number,
  dim: number,
  base: number,
  scaling: DecoderConfig["ropeScaling"],
): RotaryTable<Tensor> {
  const key = JSON.stringify([length, dim, base, scaling]);
  let found = tables.get(key);
  if (!found) {
    const { cos, sin } = rotaryTable(length, dim, { base, scaling });
    found = { cos: asTensor(cos), sin: asTensor(sin) };
    tables.set(key, found);
  }
  return found;
}
