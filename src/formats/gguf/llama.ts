import { ArgumentError } from "../../tensor/errors.ts";
import { FormatError } from "../errors.ts";
import type { LlamaConfig } from "../llama-config.ts";
import { joinRotaryPairs, rotaryHeads, splitRotaryPairs } from "../rotary.ts";
import { loadPending, type PendingTensor, type TensorFile } from "../tensor-file.ts";
import { TensorView, type ViewedTensor } from "../tensor-view.ts";
import type { GgufFile } from "./gguf.ts";
import { type MetadataValue, numberAt, stringAt } from "./metadata.ts";
import { ggmlTypes } from "./types.ts";
import type { PendingGgufTensor } from "./write.ts";

/** Parts of names: Hugging Face's, and llama.cpp's. */
const modules: readonly (readonly [huggingFace: string, ggml: string])[] = [
  ["input_layernorm", "attn_norm"],
  ["self_attn.q_proj", "attn_q"],
  ["self_attn.k_proj", "attn_k"],
  ["self_attn.v_proj", "attn_v"],
  ["self_attn.o_proj", "attn_output"],
  ["post_attention_layernorm", "ffn_norm"],
  ["mlp.gate_proj", "ffn_gate"],
  ["mlp.up_proj", "ffn_up"],
  ["mlp.down_proj", "ffn_down"],
];

const outside: readonly (readonly [huggingFace: string, ggml: string])[] = [
  ["model.embed_tokens.weight", "token_embd.weight"],
  ["model.norm.weight", "output_norm.weight"],
  ["lm_head.weight", "output.weight"],
];

/** Hugging Face's name of a Llama's tensor in llama.cpp's terms, or undefined for one that it does not know. */
export function toGgmlName(name: string): string | undefined {
  const [, layer, module, part] = /^model\.layers\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  const found = modules.find(([huggingFace]) => huggingFace === module);
  return found ? `blk.${layer}.${found[1]}.${part}` : outside.find(([huggingFace]) => huggingFace === name)?.[1];
}

/** The inverse of `toGgmlName`. */
export function fromGgmlName(name: string): string | undefined {
  const [, layer, module, part] = /^blk\.(\d+)\.(.+)\.(weight|bias)$/.exec(name) ?? [];
  const found = modules.find(([, ggml]) => ggml === module);
  return found ? `model.layers.${layer}.${found[0]}.${part}` : outside.find(([, ggml]) => ggml === name)?.[0];
}

/**
 * A Llama in a GGUF file in Hugging Face's terms: its configuration, and its tensors under Hugging Face's names with
 * the rows of query and key weights in Hugging Face's order. Closing the tensors closes the file.
 * @throws FormatError when it is another architecture, or metadata or tensors are missing
 */
export function llamaFromGguf(file: GgufFile): { config: LlamaConfig; tensors: TensorFile } {
  const { metadata, tensors } = file;
  const architecture = stringAt(metadata, "general.architecture");
  if (architecture !== "llama") {
    throw new FormatError(`${file.name}: its architecture is ${JSON.stringify(architecture)}; llama is supported`);
  }
  const embedding = tensors.get("token_embd.weight");
  if (embedding?.shape.length !== 2) throw new FormatError(`${file.name}: it has no table "token_embd.weight"`);
  const scaled = tensors.has("rope_freqs.weight") || stringAt(metadata, "llama.rope.scaling.type", "none") !== "none";
  if (scaled) throw new FormatError(`${file.name}: its rotary frequencies are scaled, which pare does not support`);
  const heads = numberAt(metadata, "llama.attention.head_count");
  const hidden = numberAt(metadata, "llama.embedding_length");
  const config: LlamaConfig = {
    model_type: "llama",
    hidden_size: hidden,
    intermediate_size: numberAt(metadata, "llama.feed_forward_length"),
    num_hidden_layers: numberAt(metadata, "llama.block_count"),
    num_attention_heads: heads,
    num_key_value_heads: numberAt(metadata, "llama.attention.head_count_kv", heads),
    head_dim: numberAt(metadata, "llama.attention.key_length", hidden / heads),
    vocab_size: embedding.shape[0]!,
    max_position_embeddings: numberAt(metadata, "llama.context_length"),
    rms_norm_eps: numberAt(metadata, "llama.attention.layer_norm_rms_epsilon"),
    rope_theta: numberAt(metadata, "llama.rope.freq_base", 10000),
    tie_word_embeddings: !tensors.has("output.weight"),
    hidden_act: "silu",
    attention_bias: tensors.has("blk.0.attn_q.bias"),
    mlp_bias: tensors.has("blk.0.ffn_up.bias"),
  };
  const views = new Map<string, ViewedTensor>();
  for (const from of tensors.keys()) {
    const name = fromGgmlName(from);
    if (!name) throw new FormatError(`${file.name}: no Llama has a tensor called "${from}"`);
    const heads = rotaryHeads(name, config);
    views.set(name, heads > 0 ? { from, convert: (tensor) => splitRotaryPairs(tensor, heads) } : { from });
  }
  return { config, tensors: new TensorView(file, views) };
}

/**
 * Metadata and tensors of a GGUF file that llama.cpp runs, out of a Llama in Hugging Face's terms. Add a tokenizer's
 * metadata (`ggufTokenizerMetadata`) before writing it.
 * @param typeOf element type of each tensor in the file; see `ggufTypes`
 * @throws ArgumentError for a tensor that llama.cpp has no name for, or scaled rotary embeddings
 */
export function llamaToGguf(
  config: LlamaConfig,
  tensors: Iterable<PendingTensor>,
  typeOf: (tensor: PendingTensor) => string,
): { metadata: Map<string, MetadataValue>; tensors: PendingGgufTensor[] } {
  const scaling = (config as { rope_scaling?: unknown }).rope_scaling;
  if (scaling) throw new ArgumentError("pare cannot write scaled rotary embeddings (rope_scaling) to GGUF");
  const pending = Array.from(tensors, (tensor): PendingGgufTensor => {
    const name = toGgmlName(tensor.name);
    if (!name) throw new ArgumentError(`llama.cpp has no name for a Llama's tensor "${tensor.name}"`);
    const heads = rotaryHeads(tensor.name, config);
    return {
      name,
      type: typeOf(tensor),
      shape: tensor.shape,
      load: async () => {
        const loaded = await loadPending(tensor);
        return heads > 0 ? joinRotaryPairs(loaded, heads) : loaded;
      },
    };
  });
  return { metadata: llamaMetadata(config), tensors: pending };
}

function llamaMetadata(config: LlamaConfig): Map<string, MetadataValue> {
  const u32 = (value: number): MetadataValue => ({ type: "u32", value });
  const f32 = (value: number): MetadataValue => ({ type: "f32", value });
  return new Map([
    ["general.architecture", { type: "string", value: "llama" }],
    // The layouts of blocks have been the same since version 2.
    ["general.quantization_version", u32(2)],
    ["llama.vocab_size", u32(config.vocab_size)],
    ["llama.context_length", u32(config.max_position_embeddings)],
    ["llama.embedding_length", u32(config.hidden_size)],
    ["llama.block_count", u32(config.num_hidden_layers)],
    ["llama.feed_forward_length", u32(config.intermediate_size)],
    ["llama.attention.head_count", u32(config.num_attention_heads)],
    ["llama.attention.head_count_kv", u32(config.num_key_value_heads)],
    ["llama.attention.key_length", u32(config.head_dim)],
    ["llama.attention.value_length", u32(config.head_dim)],
    ["llama.attention.layer_norm_rms_epsilon", f32(config.rms_norm_eps)],
    ["llama.rope.dimension_count", u32(config.head_dim)],
    ["llama.rope.freq_base", f32(config.rope_theta)],
  ]);
}

/**
 * Element types for a model quantized to `type`: tables as asked for where their rows are whole blocks, else `Q8_0`,
 * else `F16`; vectors, which cost little and matter much, as `F32`. K-quants keep the embedding table and the head in
 * `Q6_K`, as llama.cpp's do.
 * @throws ArgumentError for a type that GGUF does not know
 */
export function ggufTypes(type: string): (tensor: { name: string; shape: readonly number[] }) => string {
  if (!ggmlTypes.has(type)) throw new ArgumentError(`GGUF has no element type called ${type}`);
  return ({ name, shape }) => {
    if (shape.length < 2) return "F32";
    const isVocabulary = /embed_tokens|lm_head/.test(name);
    const wanted = [isVocabulary && type.endsWith("_K") ? "Q6_K" : type, "Q8_0"];
    return wanted.find((candidate) => shape.at(-1)! % ggmlTypes.get(candidate)!.block === 0) ?? "F16";
  };
}
