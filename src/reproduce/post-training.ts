import { DecoderScorer, perplexity } from "../evaluate/index.ts";
import {
  calibrationWindows,
  compressDecoder,
  type DecoderSource,
  type MatrixMethod,
  memorySource,
  type PlanOptions,
  planFor,
} from "../methods/index.ts";
import type { DecoderConfig, Weights } from "../models/index.ts";
import type { HostTensor } from "../tensor/index.ts";
import type { Setting } from "./system.ts";
import type { LanguageModel } from "./workbench.ts";

const BLOCK = 128;

/** The largest block of at most 128 that divides what all matrices of the layers are multiplied with. */
export function blockFor({ dim, ffn, heads, headDim }: DecoderConfig): number | "channel" {
  for (let block = BLOCK; block >= 16; block -= 16)
    if ([dim, ffn, heads * headDim].every((width) => width % block === 0)) return block;
  return "channel";
}

/** Says so where blocks are not as the papers have them. */
export function blockNotes({ name, config }: LanguageModel): string[] {
  const block = blockFor(config);
  return block === BLOCK
    ? []
    : [`${BLOCK} does not divide the widths of ${name}: ${blockWords(block)} share a scale instead`];
}

const blockWords = (block: number | "channel"): string => (block === "channel" ? "whole rows" : `blocks of ${block}`);

/** What is compressed, where it is not the plain model with one method throughout. */
export interface Prepared extends Pick<PlanOptions, "except"> {
  /** What was done to the model before. */
  readonly name: string;
  readonly source: DecoderSource;
}

/** Perplexities on held-out text of one model, compressed in several ways with the same calibration. */
export class PostTraining {
  readonly #setting: Setting;
  readonly model: LanguageModel;

  /** Neighbours that share a scale: 128, as the papers have it, where that divides the widths of all matrices. */
  readonly block: number | "channel";

  private constructor(setting: Setting, model: LanguageModel) {
    this.#setting = setting;
    this.model = model;
    this.block = blockFor(model.config);
  }

  static async on(setting: Setting): Promise<PostTraining> {
    return new PostTraining(setting, await setting.bench.languageModel());
  }

  /** Windows of training text, the same for all. */
  get windows(): HostTensor {
    const { seed, full } = this.#setting;
    const { training, config } = this.model;
    return calibrationWindows(training, { count: full ? 128 : 32, length: Math.min(256, config.maxPositions), seed });
  }

  /**
   * Perplexity when all matrices of the layers go through `method`; null leaves them as they are.
   * @param whole measures on all of the held-out text, as the full proof does, where a difference is too small for a part
   */
  async perplexityWith(
    method: MatrixMethod | null,
    prepared?: Prepared,
    { whole = this.#setting.full }: { readonly whole?: boolean } = {},
  ): Promise<number> {
    const { seed, signal, log } = this.#setting;
    const { model } = this;
    signal.throwIfAborted();
    const { source, except } = prepared ?? { source: memorySource(model) };
    let weights: Weights = model.weights;
    if (method || prepared) {
      const plan = planFor(source.config, { layers: method, ...(except && { except }) });
      weights = (await compressDecoder(source, plan, this.windows, { seed, signal })).weights;
    }
    const scorer = await DecoderScorer.open({ ...model, config: source.config, weights });
    const tokens = whole ? model.heldOut : model.heldOut.slice(0, 12_000);
    const { perplexity: value } = await perplexity(scorer, tokens);
    await scorer.dispose();
    const name = [prepared?.name, method?.name].filter(Boolean).join(", ") || "original";
    log(`${name}: perplexity ${value.toFixed(3)}`);
    return value;
  }
}
