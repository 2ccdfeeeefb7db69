import { type DecoderConfig, matrixInput } from "../../models/index.ts";
import { Dense } from "../../nn/index.ts";
import { ArgumentError, HostTensor, isHostTensor } from "../../tensor/index.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";

/** One positive factor for each channel of the tensor at a named point, such as `model.layers.3.mlp.in`. */
export type ChannelScales = ReadonlyMap<string, Float32Array>;

/**
 * The points of a layer whose channels can be scaled without changing the model, and their widths: behind a norm, whose
 * gain takes the scale; before the output projection, as attention mixes values channel by channel; and before the down
 * projection, where a gate multiplies the up projection's rows.
 */
export function scalablePoints(config: DecoderConfig, layer: number): Map<string, number> {
  const { dim, heads, headDim, gated, ffn, window } = config;
  const points = new Map<string, number>([
    ...(window[layer] === 0
      ? []
      : ([
          ["attn.in", dim],
          ["attn.mix", heads * headDim],
        ] as const)),
    ["mlp.in", dim],
    ...(gated ? ([["mlp.act", ffn]] as const) : []),
  ]);
  return new Map([...points].map(([point, width]) => [`model.layers.${layer}.${point}`, width]));
}

/**
 * The same model with channels scaled: channel `j` at a point is divided by `s_j` in whatever computes it (a norm's gain,
 * rows of `v_proj` or `up_proj`), and column `j` of the matrices that read it is multiplied by `s_j`. Nothing is left to
 * be done at run time. Query heads that share a value head must share its scales.
 * @throws ArgumentError for points that cannot be scaled, and scales that are not finite, positive and of the point's width
 */
export function foldScales(source: DecoderSource, scales: ChannelScales): DecoderSource {
  const { config } = source;
  checkScales(config, scales);
  return {
    config,
    async read(name) {
      const weight = await source.read(name);
      const out = scales.get(outputPoint(config, name) ?? "");
      const into = /\.layers\..*_proj\.weight$/.test(name) ? scales.get(matrixInput(name)) : undefined;
      if (!out && !into) return weight;
      const values = isHostTensor(weight) ? weight.cast("f32") : await denseValues(weight);
      const rows = name.includes(".v_proj.") && out ? sharedHeads(config, out) : out;
      if (values.shape.length === 2) return new Dense(scaled(values, { rows, columns: into }));
      const one = config.normPlusOne && name.endsWith("norm.weight") ? 1 : 0;
      const data = (values.data as Float32Array).map((v, i) => (v + one) / rows![i]! - one);
      return new HostTensor("f32", values.shape, data);
    },
  };
}

/** The point that a weight computes the channels of, if these can be scaled there. */
function outputPoint({ postNorms, gated }: DecoderConfig, name: string): string | undefined {
  const [, layer, part] = /^(model\.layers\.\d+)\.(.+)\.(?:weight|bias)$/.exec(name) ?? [];
  if (part === "input_layernorm") return `${layer}.attn.in`;
  if (part === (postNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm")) return `${layer}.mlp.in`;
  if (part === "self_attn.v_proj") return `${layer}.attn.mix`;
  if (part === "mlp.up_proj" && gated) return `${layer}.mlp.act`;
  return undefined;
}

function checkScales(config: DecoderConfig, scales: ChannelScales): void {
  const points = new Map(
    Array.from({ length: config.layers }, (_, i) => scalablePoints(config, i)).flatMap((layer) => [...layer]),
  );
  for (const [point, values] of scales) {
    const width = points.get(point);
    if (width === undefined)
      throw new ArgumentError(
        `channels at "${point}" cannot be scaled; they can at ${[...scalablePoints(config, 0).keys()].join(", ")}, and so on`,
      );
    if (values.length !== width) throw new ArgumentError(`"${point}" takes ${width} scales, not ${values.length}`);
    const bad = values.findIndex((s) => !(s > 0 && s < Infinity));
    if (bad >= 0)
      throw new ArgumentError(`scale ${bad} at "${point}" is ${values[bad]}; scales are finite and positive`);
    if (!point.endsWith(".attn.mix")) continue;
    const shared = overQueryHeads(config, values, (group) => group[0]!);
    const other = values.findIndex((s, i) => s !== shared[i]);
    if (other >= 0)
      throw new ArgumentError(
        `scale ${other} at "${point}" differs from that of a query head with the same value head`,
      );
  }
}

/**
 * Numbers by channel before the output projection, those of query heads that share a value head replaced by what `join`
 * makes of them.
 * @param values `[heads * headDim]`
 */
export function overQueryHeads(
  { heads, kvHeads, headDim }: DecoderConfig,
  values: Float32Array,
  join: (group: number[]) => number,
): Float32Array {
  const group = heads / kvHeads;
  return values.map((_, channel) => {
    const first = Math.floor(channel / headDim / group) * group;
    return join(Array.from({ length: group }, (_, h) => values[(first + h) * headDim + (channel % headDim)]!));
  });
}

/** Of scales by channel of the query heads, those of the value heads. */
function sharedHeads({ heads, kvHeads, headDim }: DecoderConfig, values: Float32Array): Float32Array {
  const group = heads / kvHeads;
  return Float32Array.from(
    { length: kvHeads * headDim },
    (_, i) => values[Math.floor(i / headDim) * group * headDim + (i % headDim)]!,
  );
}

/** A matrix `f32 [out, in]` with rows divided and columns multiplied. */
export function scaled(
  { shape, data }: HostTensor,
  { rows, columns }: { readonly rows?: Float32Array | undefined; readonly columns?: Float32Array | undefined },
): HostTensor {
  const [out, width] = shape as [number, number];
  const result = Float32Array.from(data as Float32Array);
  for (let r = 0, i = 0; r < out; r++)
    for (let c = 0; c < width; c++, i++) result[i]! *= (columns ? columns[c]! : 1) / (rows ? rows[r]! : 1);
  return new HostTensor("f32", shape, result);
}
