import { DecoderScorer, perplexity } from "../evaluate/index.ts";
import { calibrationWindows, compressDecoder, type MatrixMethod, memorySource, planFor } from "../methods/index.ts";
import type { Weights } from "../models/index.ts";
import type { Setting } from "./system.ts";
import type { LanguageModel } from "./workbench.ts";

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

  /** Perplexity when all matrices of the layers go through `method`; null leaves the model as it is. */
  async perplexityWith(method: MatrixMethod | null): Promise<number> {
    const { seed, full, signal, log } = this.#setting;
    const { model } = this;
    signal.throwIfAborted();
    let weights: Weights = model.weights;
    if (method) {
      const windows = calibrationWindows(model.training, { count: full ? 128 : 32, length: 256, seed });
      const plan = planFor(model.config, { layers: method });
      weights = (await compressDecoder(memorySource(model), plan, windows, { seed, signal })).weights;
    }
    const scorer = await DecoderScorer.open({ ...model, weights });
    const tokens = full ? model.heldOut : model.heldOut.slice(0, 12_000);
    const { perplexity: value } = await perplexity(scorer, tokens);
    await scorer.dispose();
    log(`${method?.name ?? "original"}: perplexity ${value.toFixed(3)}`);
    return value;
  }
}
