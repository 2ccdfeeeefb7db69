import { type DecoderSource, foldScales, scalablePoints } from "../methods/index.ts";
import { Rng } from "../tensor/index.ts";

/** Channels that become outliers, and how many times larger. */
const COUNT = 3;
const FACTOR = 32;

export const outlierNote = `"with outliers": the model is given the outlier channels that large models have and it has not. ${COUNT} channels behind each layer's norms are made ${FACTOR} times larger, and the columns that read them smaller by as much, which changes nothing of what it computes`;

/** The same model with the same few channels much larger than the rest behind the norms of all layers. */
export function withOutliers(source: DecoderSource, seed: number): DecoderSource {
  const { config } = source;
  const channels = new Rng(seed).fork("outliers").permutation(config.dim).slice(0, COUNT);
  const scales = new Map<string, Float32Array>();
  for (let layer = 0; layer < config.layers; layer++)
    for (const [point, width] of scalablePoints(config, layer)) {
      if (!point.endsWith(".in")) continue;
      const factors = new Float32Array(width).fill(1);
      for (const channel of channels) factors[channel] = 1 / FACTOR;
      scales.set(point, factors);
    }
  return foldScales(source, scales);
}
