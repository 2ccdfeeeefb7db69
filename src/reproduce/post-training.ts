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
import type { Weights } from "../models/index.ts";
import type { HostTensor } from "../tensor/index.ts";
import type { Setting } from "./system.ts";
import type { LanguageModel } from "./workbench.ts";

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

  private constructor(setting: Setting, model: LanguageModel) {
    this.#setting = setting;
    this.model = model;
  }

  static async on(setting: Setting): Promise<PostTraining> {
    return new PostTraining(setting, await setting.bench.languageModel());
  }

  /** Windows of training text, the same for all. */
  get windows(): HostTensor {
    const { seed, full } = this.#setting;
    return calibrationWindows(this.model.training, { count: full ? 128 : 32, length: 256, seed });
  }

  /** Perplexity when all matrices of the layers go through `method`; null leaves them as they are. */
  async perplexityWith(method: MatrixMethod | null, prepared?: Prepared): Promise<number> {
    const { seed, full, signal, log } = this.#setting;
    const { model } = this;
    signal.throwIfAborted();
    const { source, except } = prepared ?? { source: memorySource(model) };
    let weights: Weights = model.weights;
    if (method || prepared) {
      const plan = planFor(source.config, { layers: method, ...(except && { except }) });
      weights = (await compressDecoder(source, plan, this.windows, { seed, signal })).weights;
    }
    const scorer = await DecoderScorer.open({ ...model, config: source.config, weights });
    const tokens = full ? model.heldOut : model.heldOut.slice(0, 12_000);
    const { perplexity: value } = await perplexity(scorer, tokens);
    await scorer.dispose();
    const name = [prepared?.name, method?.name].filter(Boolean).join(", ") || "original";
    log(`${name}: perplexity ${value.toFixed(3)}`);
    return value;
  }
}
