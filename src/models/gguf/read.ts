import { numberAt, stringAt } from "../../formats/gguf/metadata.ts";
import { FormatError, type GgufFile, type TensorFile } from "../../formats/index.ts";
import type { JsonObject } from "../../formats/json.ts";
import { TensorView, type ViewedTensor } from "../../formats/tensor-view.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { decoderConfig } from "../decoder/config.ts";
import { partOfRows } from "../host-matrices.ts";
import { architectureCalled, conversionOf, type GgufArchitecture, scaleOf } from "./architectures.ts";
import { fromGgmlName } from "./names.ts";

/** The tensor by which frequencies of rotary positions are divided. */
const factorsName = "rope_freqs.weight";

/**
 * A decoder in a GGUF file in Hugging Face's terms: the content of its config.json, and its tensors under Hugging Face's
 * names with numbers as Hugging Face has them. Closing the tensors closes the file.
 * @throws ModelError when it is of an architecture that is not supported; FormatError where metadata or tensors are
 *   missing or unknown
 */
export async function decoderFromGguf(file: GgufFile): Promise<{ json: JsonObject; tensors: TensorFile }> {
  const architecture = architectureCalled(stringAt(file.metadata, "general.architecture"), file.name);
  const json = architecture.name === "gpt2" ? gpt2Sizes(file) : await llamaSettings(file, architecture);
  const config = decoderConfig(json);
  const views = new Map<string, ViewedTensor>();
  for (const { name: from, shape } of file.tensors.values()) {
    if (from === factorsName) continue;
    const name = fromGgmlName(from, config.postNorms);
    if (!name) throw new FormatError(`${file.name}: no ${architecture.name} has a tensor called "${from}"`);
    if (name.includes("qkv_proj")) {
      const [rows, ...row] = shape as [number, ...number[]];
      for (const [i, part] of ["q_proj", "k_proj", "v_proj"].entries()) {
        const convert = (tensor: HostTensor): HostTensor => partOfRows(tensor, i, 3);
        views.set(name.replace("qkv_proj", part), { from, convert, shape: [rows / 3, ...row] });
      }
      continue;
    }
    const conversion = conversionOf(architecture, name, config);
    views.set(name, conversion ? { from, convert: conversion.fromGgml } : { from });
  }
  return { json, tensors: new TensorView(file, views) };
}

/** The content of the config.json of a GPT-2. */
function gpt2Sizes(file: GgufFile) {
  const number = (key: string): number => numberAt(file.metadata, `gpt2.${key}`);
  return {
    model_type: "gpt2",
    n_embd: number("embedding_length"),
    n_inner: number("feed_forward_length"),
    n_layer: number("block_count"),
    n_head: number("attention.head_count"),
    vocab_size: vocabularyOf(file),
    n_positions: number("context_length"),
    layer_norm_epsilon: number("attention.layer_norm_epsilon"),
    tie_word_embeddings: !file.tensors.has("output.weight"),
    activation_function: "gelu_new",
  };
}

/** The content of the config.json of a member of Llama's family. */
async function llamaSettings(file: GgufFile, architecture: GgufArchitecture) {
  const known = sizes(file, architecture);
  return { ...known, ...options(file, architecture, known), ...(await scaling(file, architecture)) };
}

function vocabularyOf({ name, tensors }: GgufFile): number {
  const embedding = tensors.get("token_embd.weight");
  if (embedding?.shape.length !== 2) throw new FormatError(`${name}: it has no table "token_embd.weight"`);
  return embedding.shape[0]!;
}

/** What all members have. */
function sizes(file: GgufFile, { name, type }: GgufArchitecture) {
  const { metadata, tensors } = file;
  const vocabulary = vocabularyOf(file);
  const number = (key: string, fallback?: number): number => numberAt(metadata, `${name}.${key}`, fallback);
  const heads = number("attention.head_count");
  const hidden = number("embedding_length");
  return {
    model_type: type,
    hidden_size: hidden,
    intermediate_size: number("feed_forward_length"),
    num_hidden_layers: number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: number("attention.head_count_kv", heads),
    head_dim: number("attention.key_length", hidden / heads),
    vocab_size: vocabulary,
    max_position_embeddings: number("context_length"),
    rms_norm_eps: number("attention.layer_norm_rms_epsilon"),
    rope_theta: number("rope.freq_base", 10_000),
    tie_word_embeddings: !tensors.has("output.weight"),
  };
}

/** What only some architectures have. */
function options(
  { metadata, tensors }: GgufFile,
  architecture: GgufArchitecture,
  {
    num_hidden_layers: layers,
    hidden_size: dim,
    num_attention_heads: heads,
    head_dim: headDim,
  }: ReturnType<typeof sizes>,
): JsonObject {
  const { name, windowPeriod } = architecture;
  const optional = (field: string, key: string): JsonObject => {
    const path = `${name}.${key}`;
    return metadata.has(path) ? { [field]: numberAt(metadata, path) } : {};
  };
  if (windowPeriod === undefined) {
    return {
      hidden_act: "silu",
      ...(name !== "qwen2" && { attention_bias: tensors.has("blk.0.attn_q.bias") }),
      ...(name === "llama" && { mlp_bias: tensors.has("blk.0.ffn_up.bias") }),
    };
  }
  return {
    hidden_activation: "gelu_pytorch_tanh",
    query_pre_attn_scalar: Math.round(scaleOf(architecture, { layers, dim, heads, headDim }) ** -2),
    ...optional("sliding_window", "attention.sliding_window"),
    ...optional("attn_logit_softcapping", "attn_logit_softcapping"),
    ...optional("final_logit_softcapping", "final_logit_softcapping"),
    ...(name === "gemma3" && {
      rope_local_base_freq: numberAt(metadata, `${name}.rope.freq_base_swa`, 10_000),
      sliding_window_pattern: windowPeriod,
    }),
  };
}

/** Scaled rotary positions; the parameters that single factors were made with are not in the file, so they are given. */
async function scaling(file: GgufFile, { name }: GgufArchitecture): Promise<JsonObject> {
  const { metadata } = file;
  const type = stringAt(metadata, `${name}.rope.scaling.type`, "none");
  if (file.tensors.has(factorsName)) {
    const factors = (await file.read(factorsName)).toArray();
    return {
      rope_scaling: {
        rope_type: "longrope",
        attention_factor: 1,
        original_max_position_embeddings: numberAt(metadata, `${name}.context_length`),
        short_factor: factors,
        long_factor: factors,
      },
    };
  }
  if (type === "none") return {};
  if (type === "linear")
    return { rope_scaling: { rope_type: type, factor: numberAt(metadata, `${name}.rope.scaling.factor`) } };
  throw new FormatError(`${file.name}: its rotary frequencies are scaled by "${type}", which pare does not support`);
}
