import { type DecoderConfig, decoderLogits, type Weights } from "../../../models/index.ts";
import { crossEntropy, optim, type Weight } from "../../../nn/index.ts";
import { ArgumentError, type Leaf } from "../../../tensor/index.ts";
import { type BatchSource, type LogEntry, type TokenBatch, type TrainOptions, train } from "../../../train/index.ts";
import { flooredScales, type ParetoqOptions, paretoqConvert } from "./convert.ts";

export interface ParetoqTraining
  extends ParetoqOptions,
    Pick<TrainOptions<never, never>, "seed" | "signal" | "threads" | "device" | "clipNorm"> {
  readonly config: DecoderConfig;
  /** To start from: trained, or fresh ones with a larger `fpFraction`. */
  readonly weights: Weights;
  readonly data: BatchSource<TokenBatch>;
  /** Of both phases together. */
  readonly steps: number;
  /** Share of the steps in full precision before the weights are rounded. Default 0.9. */
  readonly fpFraction?: number;
  /** Peak learning rate in full precision. Default 2e-3. */
  readonly fpRate?: number;
  /** Peak learning rate of training in few bits. Default 5e-4 up to 2 bits, 2e-4 above. */
  readonly rate?: number;
  readonly onLog?: (phase: "full precision" | "few bits", entry: LogEntry) => void;
}

export interface ParetoqResult {
  /** Where full precision ended. */
  readonly full: Record<string, Weight | Leaf>;
  /** Trained in few bits, latent weights and scales; pack them with `paretoqPack`. */
  readonly weights: Record<string, Weight | Leaf>;
  /** Rows whose scale ended on the floor, by matrix; where there are many, take a smaller rate. */
  readonly floored: Record<string, number>;
}

/** The rate that the paper's two to one between up to 2 and more bits becomes for small models. */
export const paretoqRate = (bits: ParetoqOptions["bits"]): number =>
  Math.min(...(typeof bits === "object" ? Object.values(bits) : [bits])) <= 2 ? 5e-4 : 2e-4;

/**
 * ParetoQ's recipe (Liu et al. 2025, section 3): most steps in full precision, the rest with rounded weights and the same
 * next-token loss, AdamW without decay, rates falling along a cosine without a warm-up.
 * @throws ArgumentError for shares and bits that cannot be; DivergedError of the trainer
 */
export async function paretoqTrain(options: ParetoqTraining): Promise<ParetoqResult> {
  const { config, steps, fpFraction = 0.9, fpRate = 2e-3, bits, rate = paretoqRate(bits) } = options;
  if (!(fpFraction >= 0 && fpFraction <= 1))
    throw new ArgumentError(`fpFraction is the share of steps in full precision, from 0 to 1, not ${fpFraction}`);
  const first = Math.round(steps * fpFraction);
  const phase = async (
    name: "full precision" | "few bits",
    weights: Record<string, Weight | Leaf>,
    count: number,
    peak: number,
  ): Promise<Record<string, Weight | Leaf>> => {
    if (count === 0) return weights;
    const { params } = await train<Record<string, Weight | Leaf>, TokenBatch>({
      params: weights,
      data: options.data,
      steps: count,
      loss: (p, { ids, targets }) => crossEntropy(decoderLogits(config, p as Weights, ids), targets),
      optimizer: optim.adamw({ weightDecay: 0 }),
      schedule: optim.cosine(peak, count),
      onLog: (entry) => options.onLog?.(name, entry),
      ...(options.seed !== undefined && { seed: options.seed }),
      ...(options.signal && { signal: options.signal }),
      ...(options.threads !== undefined && { threads: options.threads }),
      ...(options.device && { device: options.device }),
      ...(options.clipNorm !== undefined && { clipNorm: options.clipNorm }),
    });
    return params;
  };
  // Refuses what cannot be converted before time is spent.
  await paretoqConvert(options.weights, options);
  const full = await phase("full precision", { ...options.weights }, first, fpRate);
  const weights = await phase("few bits", await paretoqConvert(full, options), steps - first, rate);
  return { full, weights, floored: flooredScales(weights) };
}
