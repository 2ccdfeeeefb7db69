import { type GgufValue, loadPending, type PendingGgufTensor, type PendingTensor } from "../../formats/index.ts";
import type { JsonObject } from "../../formats/json.ts";
import { HostTensor, rotaryFrequencies } from "../../tensor/index.ts";
import { type DecoderConfig, decoderConfig, slidingWindow } from "../decoder/config.ts";
import { ModelError } from "../errors.ts";
import { joinedRows } from "../host-matrices.ts";
import { architectureFor, conversionOf, type GgufArchitecture, hasWindow, scaleOf } from "./architectures.ts";
import { toGgmlName } from "./names.ts";

/** A tensor that keeps a type of GGUF's which it is in already; `ggufWeights` makes them. */
export interface PendingEncoded {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  /** Its numbers, or of a type of blocks their bytes, `u8 [rows, bytes of a row]`. */
  load(): HostTensor | Promise<HostTensor>;
}

/**
 * Metadata and tensors of a GGUF file that llama.cpp runs, out of a decoder in Hugging Face's terms. Add a tokenizer's
 * metadata (`ggufTokenizerMetadata`) before writing it. Where llama.cpp has no windows for the architecture (Mistral,
 * Qwen), the file's context ends with the window, within which all attention is alike.
 * @param json the content of its config.json
 * @param tensors in memory (`ggufWeights`), or in a file (`pendingFrom`)
 * @param typeOf element type in the file of each tensor that is not encoded yet; see `ggufTypes`
 * @throws ModelError for a configuration that is not supported, a tensor that llama.cpp has no name for, or something
 *   that it computes otherwise
 */
export function decoderToGguf(
  json: JsonObject,
  tensors: Iterable<PendingTensor | PendingEncoded>,
  typeOf: (tensor: { readonly name: string; readonly shape: readonly number[] }) => string,
): { metadata: Map<string, GgufValue>; tensors: PendingGgufTensor[] } {
  const config = decoderConfig(json);
  const architecture = architectureFor(config.type);
  checkComputed(config, architecture);
  const sources = Array.from(tensors, (tensor): Source => {
    const { name, shape } = tensor;
    if ("type" in tensor) return { name, shape, type: tensor.type, encoded: true, load: async () => tensor.load() };
    return { name, shape, type: typeOf(tensor), encoded: false, load: () => loadPending(tensor) };
  });
  const pending = (architecture.fused ? fusedProjections(sources) : sources).map((source): PendingGgufTensor => {
    const { type, shape, encoded } = source;
    const name = toGgmlName(source.name, config.postNorms);
    if (!name) throw new ModelError(`llama.cpp has no name for the tensor "${source.name}" of a ${config.type}`);
    const conversion = conversionOf(architecture, source.name, config);
    const load = async (): Promise<HostTensor | Uint8Array> => {
      const loaded = await source.load();
      const converted = conversion ? conversion.toGgml(loaded) : loaded;
      return encoded && converted.dtype === "u8" ? converted.rawBytes() : converted;
    };
    return { name, type, shape, load };
  });
  return { metadata: metadataOf(config, architecture), tensors: [...pending, ...frequencyFactors(config)] };
}

/** A tensor of either kind with its type in the file. */
interface Source {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  /** Whether it comes in its type already. */
  readonly encoded: boolean;
  load(): Promise<HostTensor>;
}

/** The tensors with each layer's query, key and value projections in one. */
function fusedProjections(tensors: readonly Source[]): Source[] {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  return tensors.flatMap((query) => {
    if (/self_attn\.[kv]_proj\./.test(query.name)) return [];
    if (!query.name.includes("self_attn.q_proj.")) return [query];
    const parts = ["q_proj", "k_proj", "v_proj"].map((part) => byName.get(query.name.replace("q_proj", part)));
    if (!parts.every((part) => part !== undefined))
      throw new ModelError(`"${query.name}" is without the key and value projections that belong to it`);
    const other = parts.find(({ type }) => type !== query.type);
    if (other)
      throw new ModelError(
        `"${query.name}" is of type ${query.type} and "${other.name}" ${other.type}, but llama.cpp has them in one`,
      );
    const [rows, ...row] = query.shape as [number, ...number[]];
    const load = async (): Promise<HostTensor> => joinedRows(await Promise.all(parts.map((part) => part.load())));
    return [{ ...query, name: query.name.replace("q_proj", "qkv_proj"), shape: [parts.length * rows, ...row], load }];
  });
}

/** What llama.cpp has no setting for must be as it takes it to be. */
function checkComputed(config: DecoderConfig, architecture: GgufArchitecture): void {
  const { window, attentionScale } = config;
  const skipped = window.indexOf(0);
  if (skipped >= 0)
    throw new ModelError(
      `llama.cpp has no layers without attention, and layer ${skipped} of this ${config.type} is one; export the model to ONNX instead`,
    );
  const size = slidingWindow(config);
  const scale = scaleOf(architecture, config);
  if (Math.abs(attentionScale / scale - 1) > 1e-6)
    throw new ModelError(`llama.cpp scales a ${config.type}'s attention by ${scale}, not by ${attentionScale}`);
  const differs = window.findIndex((own, i) => (own ?? null) !== (hasWindow(architecture, i) ? size : null));
  if (architecture.windowPeriod !== undefined && size !== null && differs >= 0)
    throw new ModelError(
      `llama.cpp gives a window to every layer of a ${config.type} except each ${architecture.windowPeriod}th; layer ${differs} of this one differs`,
    );
}

function metadataOf(config: DecoderConfig, architecture: GgufArchitecture): Map<string, GgufValue> {
  const { name, windowPeriod } = architecture;
  const { headDim, ropeScaling, attentionCap, logitCap } = config;
  const window = slidingWindow(config);
  const context = Math.min(config.maxPositions, windowPeriod === undefined ? (window ?? Infinity) : Infinity);
  const u32 = (key: string, value: number): [string, GgufValue] => [`${name}.${key}`, { type: "u32", value }];
  const f32 = (key: string, value: number): [string, GgufValue] => [`${name}.${key}`, { type: "f32", value }];
  const text = (key: string, value: string): [string, GgufValue] => [`${name}.${key}`, { type: "string", value }];
  return new Map<string, GgufValue>([
    ["general.architecture", { type: "string", value: name }],
    // The layouts of blocks have been the same since version 2.
    ["general.quantization_version", { type: "u32", value: 2 }],
    u32("vocab_size", config.vocab),
    u32("context_length", context),
    u32("embedding_length", config.dim),
    u32("block_count", config.layers),
    u32("feed_forward_length", config.ffn),
    u32("attention.head_count", config.heads),
    u32("attention.head_count_kv", config.kvHeads),
    u32("attention.key_length", headDim),
    u32("attention.value_length", headDim),
    f32(
      config.norm === "rms" ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
      config.normEpsilon,
    ),
    ...(config.positions === "rotary"
      ? [u32("rope.dimension_count", headDim), f32("rope.freq_base", config.ropeBase)]
      : []),
    ...(ropeScaling?.type === "linear"
      ? [text("rope.scaling.type", "linear"), f32("rope.scaling.factor", ropeScaling.factor)]
      : []),
    ...(config.localRopeBase === config.ropeBase ? [] : [f32("rope.freq_base_swa", config.localRopeBase)]),
    ...(windowPeriod !== undefined && window !== null ? [u32("attention.sliding_window", window)] : []),
    ...(attentionCap === null ? [] : [f32("attn_logit_softcapping", attentionCap)]),
    ...(logitCap === null ? [] : [f32("final_logit_softcapping", logitCap)]),
  ]);
}

/** The tensor by which llama.cpp divides the frequencies of rotary positions, where they are scaled one by one. */
function frequencyFactors({ headDim, ropeBase, ropeScaling }: DecoderConfig): PendingGgufTensor[] {
  if (ropeScaling === null || ropeScaling.type === "linear") return [];
  const plain = rotaryFrequencies(headDim, { base: ropeBase });
  const scaled = rotaryFrequencies(headDim, { base: ropeBase, scaling: ropeScaling });
  const factors = HostTensor.from(plain.map((frequency, i) => frequency / scaled[i]!)).cast("f32");
  return [{ name: "rope_freqs.weight", type: "F32", shape: factors.shape as number[], load: () => factors }];
}
