import { at } from "../../nn/index.ts";
import {
  type AttentionOptions,
  add,
  asTensor,
  concat,
  type Dim,
  gelu,
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
import type { DecoderConfig } from "./config.ts";
import { WeightBag, type Weights } from "./weights.ts";

/** Keys and values of one layer's earlier tokens, `[batch, past, kvHeads * headDim]` each, keys rotated. */
export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** What a forward pass over cached context needs besides tokens. */
export interface CachedContext {
  readonly layers: readonly LayerCache[];
  /** `i64 [batch, seq]`: position of each new token. */
  readonly positions: Tensor;
  /** Added to attention scores, `[.., seq, past + seq]`: 0 where seen, very negative where not. */
  readonly mask: Tensor;
  /** The mask of layers with a window, where the model has such. */
  readonly windowMask?: Tensor;
}

export interface DecoderOutput {
  /** Behind the last norm, `[batch, seq, dim]`. */
  readonly hidden: Tensor;
  /** The new tokens' rows for the cache, by layer. */
  readonly rows: readonly LayerCache[];
}

/**
 * The forward pass of a Llama-family decoder over `ids i64 [batch, seq]`, causal; with `context`, behind cached tokens.
 * Points: `model.embed`, and for each layer `model.layers.N.attn.in`, `.q`, `.k`, `.v`, `.attn.out`, `.mlp.in`, `.mlp.act`
 * (the input of the down projection), `.mlp.out`, and `.out` (the residual stream behind the layer); then `model.norm`.
 */
export function decode(config: DecoderConfig, weights: Weights, ids: Tensor, context?: CachedContext): DecoderOutput {
  const bag = new WeightBag(weights);
  let hidden = bag.matrix("model.embed_tokens.weight").rows(ids);
  if (config.embeddingScale !== 1) hidden = mul(hidden, config.embeddingScale);
  hidden = at("model.embed", hidden);
  const rows: LayerCache[] = [];
  for (let i = 0; i < config.layers; i++) {
    const layer = new Layer(config, bag, i, context);
    hidden = layer.forward(hidden);
    rows.push(layer.rows!);
  }
  return { hidden: at("model.norm", normed(config, bag, "model.norm.weight", hidden)), rows };
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
  const gain = bag.vector(name);
  return rmsNorm(x, config.normPlusOne ? add(gain, 1) : gain, { epsilon: config.normEpsilon });
}

class Layer {
  readonly #config: DecoderConfig;
  readonly #bag: WeightBag;
  readonly #name: string;
  readonly #index: number;
  readonly #context: CachedContext | undefined;
  rows: LayerCache | undefined;

  constructor(config: DecoderConfig, bag: WeightBag, index: number, context: CachedContext | undefined) {
    this.#config = config;
    this.#bag = bag;
    this.#index = index;
    this.#name = `model.layers.${index}`;
    this.#context = context;
  }

  forward(x: Tensor): Tensor {
    const { postNorms } = this.#config;
    let attended = this.#attention(this.#point("attn.in", this.#norm("input_layernorm", x)));
    if (postNorms) attended = this.#norm("post_attention_layernorm", attended);
    const middle = add(x, this.#point("attn.out", attended));
    let fed = this.#feedForward(
      this.#point("mlp.in", this.#norm(postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm", middle)),
    );
    if (postNorms) fed = this.#norm("post_feedforward_layernorm", fed);
    return this.#point("out", add(middle, this.#point("mlp.out", fed)));
  }

  #point(name: string, x: Tensor): Tensor {
    return at(`${this.#name}.${name}`, x);
  }

  #norm(name: string, x: Tensor): Tensor {
    return normed(this.#config, this.#bag, `${this.#name}.${name}.weight`, x);
  }

  #feedForward(x: Tensor): Tensor {
    const { activation, ffnBias } = this.#config;
    const project = (name: string, input: Tensor): Tensor =>
      this.#bag.apply(`${this.#name}.mlp.${name}_proj`, input, ffnBias);
    const gate = project("gate", x);
    const opened = activation === "silu" ? silu(gate) : gelu(gate, { approximate: "tanh" });
    return project("down", this.#point("mlp.act", mul(opened, project("up", x))));
  }

  #attention(x: Tensor): Tensor {
    const { heads, kvHeads, headDim, outputBias } = this.#config;
    const q = this.#point("q", this.#rotated(this.#projected("q", x, heads), heads));
    const k = this.#point("k", this.#rotated(this.#projected("k", x, kvHeads), kvHeads));
    const v = this.#point("v", this.#projected("v", x, kvHeads));
    this.rows = { keys: k, values: v };
    const mixed = this.#context ? this.#overCache(q, k, v, this.#context) : this.#causal(q, k, v);
    return this.#bag.apply(
      `${this.#name}.self_attn.o_proj`,
      reshape(mixed, [...x.shape.slice(0, 2), heads * headDim], [x]),
      outputBias,
    );
  }

  /** Queries, keys or values `[batch, seq, heads * headDim]`, queries and keys with their norm where the model has one. */
  #projected(name: "q" | "k" | "v", x: Tensor, heads: number): Tensor {
    const { qkvBias, qkNorm, headDim } = this.#config;
    const y = this.#bag.apply(`${this.#name}.self_attn.${name}_proj`, x, qkvBias);
    if (!qkNorm || name === "v") return y;
    const [batch, seq] = x.shape as [Dim, Dim];
    const perHead = reshape(y, [batch, seq, heads, headDim], [x]);
    return reshape(this.#norm(`self_attn.${name}_norm`, perHead), [batch, seq, heads * headDim], [x]);
  }

  #rotated(x: Tensor, heads: number): Tensor {
    const { maxPositions, headDim, ropeBase, localRopeBase, ropeScaling, window } = this.#config;
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

  #options(): AttentionOptions {
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
    const past = layers[this.#index]!;
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
