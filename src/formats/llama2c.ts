import { arrayFromBytes, HostTensor } from "../tensor/host.ts";
import type { ByteSource } from "./bytes.ts";
import { FormatError } from "./errors.ts";
import { checkLimit, type Limits, llama2cLimits } from "./limits.ts";
import type { LlamaConfig } from "./llama-config.ts";
import { rotaryHeads, splitRotaryPairs } from "./rotary.ts";
import {
  elementCount,
  findTensor,
  type RowRange,
  selectRows,
  type TensorFile,
  type TensorInfo,
} from "./tensor-file.ts";
import { TensorView, type ViewedTensor } from "./tensor-view.ts";

/** Bytes of the header of version 1, most of them zeroes. */
const longHeader = 256;

/** First word of versions other than the first. */
const magic = 0x616b3432;

interface Entry extends TensorInfo {
  readonly offset: number;
}

/**
 * A checkpoint of llama2.c in Hugging Face's terms: its configuration, and its `f32` tensors under Hugging Face's names
 * with the rows of query and key weights in Hugging Face's order. Both the first format, which has no version, and
 * version 1 are read; closing the tensors closes the source. https://github.com/karpathy/llama2.c
 * @throws FormatError; LimitError
 */
export async function openLlama2c(
  source: ByteSource,
  limits: Limits<typeof llama2cLimits> = {},
): Promise<{ config: LlamaConfig; tensors: TensorFile }> {
  const { name: where, size } = source;
  if (size < 28) throw new FormatError(`${where}: ${size} bytes are too few for a llama2.c checkpoint`);
  const header = await source.read(0, Math.min(size, longHeader));
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  const versioned = view.getUint32(0, true) === magic;
  if (versioned) {
    const version = view.getInt32(4, true);
    if (version !== 1)
      throw new FormatError(`${where}: version ${version} of llama2.c's format is not supported; 1 is`);
    if (size < longHeader) throw new FormatError(`${where}: it is cut short inside of its header`);
  }
  const numbers = Array.from({ length: 7 }, (_, i) => view.getInt32((versioned ? 8 : 0) + 4 * i, true));
  // The first format marks a head of its own by a negative vocabulary.
  const tied = versioned ? view.getUint8(36) === 1 : numbers[5]! > 0;
  if (!versioned) numbers[5] = Math.abs(numbers[5]!);
  const config = configOf(numbers, tied, where);
  checkLimit({ ...llama2cLimits, ...limits }, "layers", config.num_hidden_layers, where, "its number of layers");

  const entries = layOut(partsOf(config, versioned), versioned ? longHeader : 28);
  const end = entries.at(-1)!.offset + entries.at(-1)!.bytes;
  if (end !== size) {
    throw new FormatError(
      `${where}: a model of width ${config.hidden_size} with ${config.num_hidden_layers} layers takes ${end} bytes, but the file has ${size}`,
    );
  }
  const views = new Map<string, ViewedTensor>();
  for (const { name: from } of entries) {
    if (from.startsWith("freq_cis")) continue;
    const heads = rotaryHeads(from, config);
    views.set(from, heads > 0 ? { from, convert: (tensor) => splitRotaryPairs(tensor, heads) } : { from });
  }
  return { config, tensors: new TensorView(new Checkpoint(source, entries), views) };
}

function configOf(numbers: readonly number[], tied: boolean, where: string): LlamaConfig {
  const [hidden = 0, intermediate = 0, layers = 0, heads = 0, groups = 0, vocabulary = 0, positions = 0] = numbers;
  const divides = (a: number, b: number): boolean => b % a === 0;
  if (numbers.some((n) => n <= 0) || !divides(2 * heads, hidden) || !divides(groups, heads)) {
    throw new FormatError(
      `${where}: its header, ${numbers.join(", ")}, does not describe a Llama; it is damaged or not a llama2.c checkpoint`,
    );
  }
  return {
    model_type: "llama",
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: groups,
    head_dim: hidden / heads,
    vocab_size: vocabulary,
    max_position_embeddings: positions,
    // These three are constants of llama2.c.
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    hidden_act: "silu",
    tie_word_embeddings: tied,
    attention_bias: false,
    mlp_bias: false,
  };
}

type Part = readonly [name: string, shape: readonly number[]];

/** Tensors in the order in which they lie in the file. */
function partsOf(config: LlamaConfig, versioned: boolean): Part[] {
  const { hidden_size: dim, intermediate_size: inner, num_hidden_layers: layers, head_dim: head } = config;
  const ofLayers = (module: string, ...shape: number[]): Part[] =>
    Array.from({ length: layers }, (_, i) => [`model.layers.${i}.${module}.weight`, shape]);
  const embedding: Part = ["model.embed_tokens.weight", [config.vocab_size, dim]];
  const norm: Part = ["model.norm.weight", [dim]];
  const ownHead: Part[] = config.tie_word_embeddings ? [] : [["lm_head.weight", [config.vocab_size, dim]]];
  const attentionNorms = ofLayers("input_layernorm", dim);
  const attention = [
    ...ofLayers("self_attn.q_proj", dim, dim),
    ...ofLayers("self_attn.k_proj", config.num_key_value_heads * head, dim),
    ...ofLayers("self_attn.v_proj", config.num_key_value_heads * head, dim),
    ...ofLayers("self_attn.o_proj", dim, dim),
  ];
  const feedForwardNorms = ofLayers("post_attention_layernorm", dim);
  const feedForward = [
    ...ofLayers("mlp.gate_proj", inner, dim),
    ...ofLayers("mlp.down_proj", dim, inner),
    ...ofLayers("mlp.up_proj", inner, dim),
  ];
  if (versioned) {
    return [...attentionNorms, ...feedForwardNorms, norm, embedding, ...attention, ...feedForward, ...ownHead];
  }
  const angles = [config.max_position_embeddings, head / 2];
  const tables: Part[] = [
    ["freq_cis_real", angles],
    ["freq_cis_imag", angles],
  ];
  return [embedding, ...attentionNorms, ...attention, ...feedForwardNorms, ...feedForward, norm, ...tables, ...ownHead];
}

function layOut(parts: readonly Part[], start: number): Entry[] {
  let offset = start;
  return parts.map(([name, shape]) => {
    const bytes = 4 * elementCount(shape);
    offset += bytes;
    return { name, type: "F32", dtype: "f32", shape, bytes, offset: offset - bytes };
  });
}

/** The tensors as llama2.c has them. */
class Checkpoint implements TensorFile {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, Entry>;
  readonly #source: ByteSource;

  constructor(source: ByteSource, entries: readonly Entry[]) {
    this.name = source.name;
    this.tensors = new Map(entries.map((entry) => [entry.name, entry]));
    this.#source = source;
  }

  async read(name: string, rows?: RowRange): Promise<HostTensor> {
    const entry = findTensor(this.name, this.tensors, name);
    const { first, count, shape } = selectRows(entry, rows);
    const bytes = await this.#source.read(entry.offset + 4 * first, 4 * count);
    return new HostTensor("f32", shape, arrayFromBytes("f32", bytes, count));
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
