import {
  type Architecture,
  architectureName,
  calibrationWindows,
  continuePreTraining,
  inherit,
  type LatencyProbe,
  type SearchSpace,
  type StructuredImportance,
  structuredImportance,
} from "../../methods/index.ts";
import { type DecoderConfig, initDecoder, type Weights } from "../../models/index.ts";
import { Rng } from "../../tensor/index.ts";
import { heldOutLoss, smallLanguage } from "../small-language.ts";
import type { Setting } from "../system.ts";
import type { LanguageModel } from "../workbench.ts";

/** Shapes between a third and all of the backbone. */
export const space: SearchSpace = {
  layers: [4, 5, 6, 7, 8],
  dim: [48, 72, 96],
  ffn: [96, 144, 192, 288],
  attention: ["full", "sliding", "skip"],
  window: 64,
};

/** Tokens of the prompt that is timed. */
export const PROMPT = 256;
/** Times that each shape is timed. */
export const REPEATS = 28;
/** Steps of continued pre-training after which candidates are judged. */
export const STEPS = 40;

/** Windows of held-out text: those that the search sees, and those behind them, which it does not. */
export const WINDOW = 128;
const VALIDATION = 32;
const TEST = 64;

/** The backbone, and what is done with shapes of it: made, trained on, judged, timed. Each evaluation is made once in a run. */
export class Laboratory {
  readonly backbone: LanguageModel;
  readonly probe: LatencyProbe;
  readonly #setting: Setting;
  readonly #importance: StructuredImportance;
  readonly #made = new Map<string, Promise<{ config: DecoderConfig; weights: Weights }>>();
  readonly #losses = new Map<string, Promise<number>>();

  private constructor(
    setting: Setting,
    backbone: LanguageModel,
    importance: StructuredImportance,
    probe: LatencyProbe,
  ) {
    this.#setting = setting;
    this.backbone = backbone;
    this.#importance = importance;
    this.probe = probe;
  }

  static async open(setting: Setting, probe: (backbone: DecoderConfig) => LatencyProbe): Promise<Laboratory> {
    const shape = { vocab: 512, layers: 8, dim: 96, heads: 4, kvHeads: 2, ffn: 288 };
    const backbone = await smallLanguage(setting, { ...shape, steps: 400, batch: 8 });
    const windows = calibrationWindows(backbone.training, { count: 32, length: WINDOW, seed: setting.seed });
    const importance = await structuredImportance(backbone, windows);
    return new Laboratory(setting, backbone, importance, probe(backbone.config));
  }

  /** The backbone's own shape. */
  get whole(): Architecture {
    const { layers, dim, ffn } = this.backbone.config;
    return { layers, dim, ffn, attention: new Array(layers).fill("full") };
  }

  /** Validation loss of a candidate after continued pre-training, in nats a token. */
  loss(x: Architecture, steps = STEPS): Promise<number> {
    const name = `${architectureName(x)} ${steps}`;
    let found = this.#losses.get(name);
    if (!found) {
      found = this.#candidate(x, steps).then(async (candidate) => {
        const loss = await this.#heldOut(candidate, 0, VALIDATION);
        this.#setting.log(`${architectureName(x)} after ${steps} steps: loss ${loss.toFixed(3)}`);
        return loss;
      });
      this.#losses.set(name, found);
    }
    return found;
  }

  /** Loss on text that the search did not see. */
  async testLoss(x: Architecture): Promise<number> {
    return this.#heldOut(await this.#candidate(x, STEPS), VALIDATION, TEST);
  }

  backboneLoss(): Promise<number> {
    return this.#heldOut(this.backbone, 0, VALIDATION);
  }

  backboneTestLoss(): Promise<number> {
    return this.#heldOut(this.backbone, VALIDATION, TEST);
  }

  /** Validation loss of the same shape trained for as long from random weights, at the rate that suits those. */
  async scratchLoss(x: Architecture, rate: number): Promise<number> {
    const { config } = inherit(this.backbone, x, this.#importance, space.window);
    const rng = new Rng(this.#setting.seed).fork(`scratch ${architectureName(x)}`);
    const weights = await this.#train({ config, weights: initDecoder(config, rng) }, STEPS, rate);
    return this.#heldOut({ config, weights }, 0, VALIDATION);
  }

  #candidate(x: Architecture, steps: number): Promise<{ config: DecoderConfig; weights: Weights }> {
    const name = `${architectureName(x)} ${steps}`;
    let found = this.#made.get(name);
    if (!found) {
      const candidate = inherit(this.backbone, x, this.#importance, space.window);
      found = this.#train(candidate, steps, 1e-3).then((weights) => ({ ...candidate, weights }));
      this.#made.set(name, found);
    }
    return found;
  }

  #train(candidate: ReturnType<typeof inherit>, steps: number, rate: number): Promise<Weights> {
    const { seed, signal } = this.#setting;
    const { training } = this.backbone;
    return continuePreTraining(candidate, { training, steps, batch: 4, length: WINDOW, rate, seed, signal });
  }

  #heldOut(model: { readonly config: DecoderConfig; readonly weights: Weights }, from: number, windows: number) {
    const heldOut = this.backbone.heldOut.slice(from * WINDOW);
    return heldOutLoss(this.#setting, { ...model, heldOut }, { windows, length: WINDOW });
  }
}
