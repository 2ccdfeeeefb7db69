import type { DecoderConfig } from "../../models/index.ts";
import { asWeight, Dense } from "../../nn/index.ts";
import { ArgumentError, HostTensor } from "../../tensor/index.ts";
import { finiteSource } from "./finite.ts";
import { scaled } from "./fold.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";

/** The norm whose output a matrix reads. */
function normBefore(name: string): string | undefined {
  if (name === HEAD) return "model.norm.weight";
  const [, layer, part] = /^(model\.layers\.\d+)\.(self_attn|mlp)\.(?:q|k|v|gate|up)_proj\.weight$/.exec(name) ?? [];
  return layer && `${layer}.${part === "mlp" ? "post_attention" : "input"}_layernorm.weight`;
}

/**
 * The same model with the gains of its RMS norms moved into the matrices behind them, so that the norms scale by one. A
 * tied head gets a matrix of its own, because the last norm's gain is the head's alone; this costs as much as the embedding.
 * @throws ArgumentError for models with other norms: layer norms, or further norms behind attention and feed-forward;
 *   when read, for weights that are not finite
 */
export function foldGains(model: DecoderSource): DecoderSource {
  const source = finiteSource(model);
  const { norm, postNorms, normPlusOne, tied } = source.config;
  if (norm !== "rms" || postNorms)
    throw new ArgumentError(
      `the gains of a ${source.config.type}'s norms cannot be folded: that takes RMS norms directly before matrices`,
    );
  const config: DecoderConfig = { ...source.config, tied: false };
  const gainOf = async (name: string): Promise<Float32Array> => {
    const gain = (await source.read(name)) as HostTensor;
    return (gain.data as Float32Array).map((v) => (normPlusOne ? v + 1 : v));
  };
  return {
    config,
    async read(name) {
      if (/(?:_layernorm|model\.norm)\.weight$/.test(name))
        return HostTensor.from(new Float32Array(config.dim).fill(normPlusOne ? 0 : 1));
      const weight = await source.read(tied && name === HEAD ? EMBEDDING : name);
      const before = normBefore(name);
      if (!before) return weight;
      return new Dense(scaled(await denseValues(asWeight(weight)), { columns: await gainOf(before) }));
    },
  };
}
