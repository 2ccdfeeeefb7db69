import type { DecoderConfig, Weights } from "../../src/models/index.ts";
import { type Dense, Weight } from "../../src/nn/index.ts";
import type { HostTensor } from "../../src/tensor/index.ts";

/**
 * The forward pass of a decoder written out in plain loops over one sequence, apart from the library's
 * operations: logits `[seq][vocab]` in double precision.
 */
export function plainLogits(config: DecoderConfig, weights: Weights, ids: readonly number[]): number[][] {
  const tensor = (name: string): HostTensor => {
    const w = weights[name]!;
    return (w instanceof Weight ? (w as Dense).values : w) as HostTensor;
  };
  const { dim, heads, kvHeads, headDim, ffn } = config;
  const matrix = (name: string, x: readonly number[], bias: boolean): number[] => {
    const w = tensor(`${name}.weight`);
    const [out, width] = w.shape as [number, number];
    return Array.from({ length: out }, (_, o) => {
      let total = bias ? tensor(`${name}.bias`).at(o) : 0;
      for (let i = 0; i < width; i++) total += w.at(o * width + i) * x[i]!;
      return total;
    });
  };
  const norm = (name: string, x: readonly number[]): number[] => {
    if (config.norm === "layer") {
      const mean = x.reduce((a, v) => a + v, 0) / x.length;
      const deviation = Math.sqrt(x.reduce((a, v) => a + (v - mean) ** 2, 0) / x.length + config.normEpsilon);
      const shift = tensor(name.replace(/weight$/, "bias"));
      return x.map((v, i) => ((v - mean) / deviation) * tensor(name).at(i) + shift.at(i));
    }
    const scale = 1 / Math.sqrt(x.reduce((a, v) => a + v * v, 0) / x.length + config.normEpsilon);
    return x.map((v, i) => v * scale * (tensor(name).at(i) + (config.normPlusOne ? 1 : 0)));
  };
  const perHead = (x: readonly number[], count: number): number[][] =>
    Array.from({ length: count }, (_, h) => x.slice(h * headDim, (h + 1) * headDim));
  const turned = (x: readonly number[], position: number, base: number): number[] => {
    if (config.positions === "learned") return [...x];
    const half = headDim / 2;
    return x.map((v, i) => {
      const angle = position * frequency(config, i % half, base);
      const partner = i < half ? -x[i + half]! : x[i - half]!;
      return v * Math.cos(angle) + partner * Math.sin(angle);
    });
  };
  const plus = (a: readonly number[], b: readonly number[]): number[] => a.map((v, i) => v + b[i]!);
  const gate = (v: number): number =>
    config.activation === "silu"
      ? v / (1 + Math.exp(-v))
      : 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
  const cap = (v: number, limit: number | null): number => (limit === null ? v : limit * Math.tanh(v / limit));

  let hidden = ids.map((id, t) =>
    Array.from({ length: dim }, (_, i) => {
      const token = tensor("model.embed_tokens.weight").at(id * dim + i) * config.embeddingScale;
      return token + (config.positions === "learned" ? tensor("model.embed_positions.weight").at(t * dim + i) : 0);
    }),
  );
  for (let l = 0; l < config.layers; l++) {
    const name = `model.layers.${l}`;
    const reach = config.window[l] ?? null;
    const base = reach === null ? config.ropeBase : config.localRopeBase;
    const rows = (reach === 0 ? [] : hidden).map((h, t) => {
      const x = norm(`${name}.input_layernorm.weight`, h);
      const project = (what: "q" | "k" | "v", count: number): number[][] => {
        const parts = perHead(matrix(`${name}.self_attn.${what}_proj`, x, config.qkvBias), count);
        if (what === "v") return parts;
        return parts.map((p) => turned(config.qkNorm ? norm(`${name}.self_attn.${what}_norm.weight`, p) : p, t, base));
      };
      return { q: project("q", heads), k: project("k", kvHeads), v: project("v", kvHeads) };
    });
    const attended = (h: number[], t: number): number[] => {
      const mixed = Array.from({ length: heads }, (_, head) => {
        const shared = Math.floor(head / (heads / kvHeads));
        const seen = rows.map((_, s) => s).filter((s) => s <= t && (reach === null || s > t - reach));
        const scores = seen.map((s) =>
          cap(
            rows[t]!.q[head]!.reduce((a, v, i) => a + v * rows[s]!.k[shared]![i]!, 0) * config.attentionScale,
            config.attentionCap,
          ),
        );
        const top = Math.max(...scores);
        const odds = scores.map((s) => Math.exp(s - top));
        const total = odds.reduce((a, b) => a + b);
        return Array.from({ length: headDim }, (_, i) =>
          seen.reduce((a, s, j) => a + (odds[j]! / total) * rows[s]!.v[shared]![i]!, 0),
        );
      }).flat();
      const out = matrix(`${name}.self_attn.o_proj`, mixed, config.outputBias);
      return plus(h, config.postNorms ? norm(`${name}.post_attention_layernorm.weight`, out) : out);
    };
    hidden = hidden.map((h, t) => {
      const middle = reach === 0 ? h : attended(h, t);
      const x = norm(`${name}.${config.postNorms ? "pre_feedforward" : "post_attention"}_layernorm.weight`, middle);
      const u = matrix(`${name}.mlp.up_proj`, x, config.ffnBias);
      const g = config.gated ? matrix(`${name}.mlp.gate_proj`, x, config.ffnBias) : u;
      let fed = matrix(
        `${name}.mlp.down_proj`,
        Array.from({ length: ffn }, (_, i) => gate(g[i]!) * (config.gated ? u[i]! : 1)),
        config.ffnBias,
      );
      if (config.postNorms) fed = norm(`${name}.post_feedforward_layernorm.weight`, fed);
      return plus(middle, fed);
    });
  }
  const head = config.tied ? "model.embed_tokens" : "lm_head";
  return hidden.map((h) => matrix(head, norm("model.norm.weight", h), false).map((v) => cap(v, config.logitCap)));
}

/** Radians per position of pair `i`, scaled as the configuration says. */
function frequency(config: DecoderConfig, i: number, base: number): number {
  const plain = base ** ((-2 * i) / config.headDim);
  const scaling = base === config.ropeBase ? config.ropeScaling : null;
  if (!scaling) return plain;
  if (scaling.type === "linear") return plain / scaling.factor;
  if (scaling.type === "factors") return plain / scaling.factors[i]!;
  const wavelength = (2 * Math.PI) / plain;
  if (wavelength < scaling.originalPositions / scaling.highFrequencyFactor) return plain;
  if (wavelength > scaling.originalPositions / scaling.lowFrequencyFactor) return plain / scaling.factor;
  const smooth =
    (scaling.originalPositions / wavelength - scaling.lowFrequencyFactor) /
    (scaling.highFrequencyFactor - scaling.lowFrequencyFactor);
  return ((1 - smooth) * plain) / scaling.factor + smooth * plain;
}
