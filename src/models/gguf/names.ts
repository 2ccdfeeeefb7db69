/** Parts of tensors' names: a decoder's, which are mostly Hugging Face's, and llama.cpp's. */
type Names = readonly (readonly [ours: string, ggml: string])[];

const projections: Names = [
  ["input_layernorm", "attn_norm"],
  ["self_attn.q_proj", "attn_q"],
  ["self_attn.k_proj", "attn_k"],
  ["self_attn.v_proj", "attn_v"],
  ["self_attn.qkv_proj", "attn_qkv"],
  ["self_attn.o_proj", "attn_output"],
  ["self_attn.q_norm", "attn_q_norm"],
  ["self_attn.k_norm", "attn_k_norm"],
  ["mlp.gate_proj", "ffn_gate"],
  ["mlp.up_proj", "ffn_up"],
  ["mlp.down_proj", "ffn_down"],
];

const modules: Names = [...projections, ["post_attention_layernorm", "ffn_norm"]];

/** Of layers with norms behind attention and feed-forward too. */
const modulesWithPostNorms: Names = [
  ...projections,
  ["post_attention_layernorm", "post_attention_norm"],
  ["pre_feedforward_layernorm", "ffn_norm"],
  ["post_feedforward_layernorm", "post_ffw_norm"],
];

const outside: Names = [
  ["model.embed_tokens", "token_embd"],
  ["model.embed_positions", "position_embd"],
  ["model.norm", "output_norm"],
  ["lm_head", "output"],
];

const inLayers = (postNorms: boolean): Names => (postNorms ? modulesWithPostNorms : modules);

/** A decoder's name of a tensor in llama.cpp's terms, or undefined for one that it does not know. */
export function toGgmlName(name: string, postNorms = false): string | undefined {
  const [, path, part] = /^(.+)\.(weight|bias)$/.exec(name) ?? [];
  const [, layer, module] = /^model\.layers\.(\d+)\.(.+)$/.exec(path ?? "") ?? [];
  const [, found] = (layer ? inLayers(postNorms) : outside).find(([known]) => known === (module ?? path)) ?? [];
  return found && (layer ? `blk.${layer}.${found}.${part}` : `${found}.${part}`);
}

/** The inverse of `toGgmlName`. */
export function fromGgmlName(name: string, postNorms = false): string | undefined {
  const [, path, part] = /^(.+)\.(weight|bias)$/.exec(name) ?? [];
  const [, layer, module] = /^blk\.(\d+)\.(.+)$/.exec(path ?? "") ?? [];
  const [found] = (layer ? inLayers(postNorms) : outside).find(([, known]) => known === (module ?? path)) ?? [];
  return found && (layer ? `model.layers.${layer}.${found}.${part}` : `${found}.${part}`);
}
