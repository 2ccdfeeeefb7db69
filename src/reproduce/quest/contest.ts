import { gradientAlignment, lsqWeights, type QuestOptions, questWeights } from "../../methods/index.ts";
import type { Weights } from "../../models/index.ts";
import { tokenBatch } from "../../train/index.ts";
import {
  heldOutLoss,
  type LanguageTraining,
  type SmallShape,
  trainLanguage,
  type UntrainedLanguage,
  untrainedLanguage,
  withShift,
} from "../small-language.ts";
import type { Check, Setting } from "../system.ts";

export type Method = "full precision" | "QuEST" | "straight-through" | "learned steps";
export type Bits = 1 | 2 | 4;

/** What all methods of a contest train with. */
export interface Terms {
  readonly shape: SmallShape;
  readonly training: LanguageTraining;
  /** Learning rates to choose from. */
  readonly rates: readonly number[];
  /** Starts and orders of the text that losses are averaged over. */
  readonly seeds: readonly number[];
}

/** A model at the end of training. */
export interface Run {
  readonly start: UntrainedLanguage;
  readonly weights: Weights;
  /** Of each step. */
  readonly losses: readonly number[];
  /** On text that it has not seen. */
  readonly heldOut: number;
}

/** One method at one width. */
export interface Entry {
  readonly rate: number;
  /** One for each seed. */
  readonly runs: readonly Run[];
  /** On text that was not seen, the mean of the runs. */
  readonly loss: number;
}

/** Held-out text that losses are reported of; as much behind it is kept to choose rates by. */
const REPORTED = { windows: 64, length: 128 } as const;

const outliers = { channels: 2, size: 6 } as const;

/** Trains models from scratch, the same starts and the same batches for all methods. */
export class Contest {
  readonly #setting: Setting;
  readonly #terms: Terms;

  constructor(setting: Setting, terms: Terms) {
    this.#setting = setting;
    this.#terms = terms;
  }

  /** A method at that learning rate which ends lowest on text kept to choose by, on the first seed. */
  async entry(method: Method, bits: Bits, { withOutliers = false } = {}): Promise<Entry> {
    const { rates, seeds } = this.#terms;
    const [first, ...others] = seeds as [number, ...number[]];
    const tried: Run[] = [];
    for (const rate of rates) tried.push(await this.#run(method, bits, rate, first, withOutliers));
    const best = rates.length === 1 ? 0 : await this.#best(tried);
    const rate = rates[best]!;
    const runs = [tried[best]!];
    for (const seed of others) runs.push(await this.#run(method, bits, rate, seed, withOutliers));
    return { rate, runs, loss: mean(runs.map(({ heldOut }) => heldOut)) };
  }

  /** Which run is best on held-out text behind that which losses are reported of. */
  async #best(runs: readonly Run[]): Promise<number> {
    const losses: number[] = [];
    for (const { start, weights } of runs) {
      const heldOut = start.heldOut.slice(REPORTED.windows * REPORTED.length);
      losses.push(await heldOutLoss(this.#setting, { ...start, weights, heldOut }, REPORTED));
    }
    return losses.indexOf(Math.min(...losses));
  }

  async #run(method: Method, bits: Bits, rate: number, seed: number, withOutliers: boolean): Promise<Run> {
    const setting = { ...this.#setting, seed };
    const { shape, training } = this.#terms;
    const start = await untrainedLanguage(setting, withOutliers ? { ...shape, outliers } : shape);
    const rounded = await prepared(method, bits, start);
    const what = [
      withOutliers && "outliers",
      method,
      method !== "full precision" && `W${bits}A${bits}`,
      `rate ${rate}`,
    ];
    const { weights, losses } = await trainLanguage(
      setting,
      { ...start, weights: rounded },
      { ...training, rate, what: what.filter(Boolean).join(", ") },
    );
    const heldOut = await heldOutLoss(setting, { ...start, weights }, REPORTED);
    this.#setting.log(`  held-out loss ${heldOut.toFixed(3)}`);
    return { start, weights, losses, heldOut };
  }
}

/** Weights in training by a method. */
async function prepared(method: Method, bits: Bits, start: UntrainedLanguage): Promise<Weights> {
  const widths = { weightBits: bits, inputBits: bits } satisfies QuestOptions;
  if (method === "QuEST") return questWeights(start.weights, widths);
  if (method === "straight-through")
    return questWeights(start.weights, { ...widths, hadamard: false, estimator: "straight-through" });
  if (method === "learned steps") {
    const { ids } = tokenBatch(start.training, [0, 64, 128, 192], 64);
    const embedding = "model.embed_tokens.weight";
    const learned = await lsqWeights({ ...start, weights: withShift(start, start.weights) }, widths, ids);
    return { ...learned, [embedding]: start.weights[embedding]! };
  }
  return start.weights;
}

/** Mean alignment of gradients over layers and runs. */
export async function meanAlignment({ runs }: Entry): Promise<number> {
  const cosines: number[] = [];
  for (const { start, weights } of runs) {
    const windows = Array.from({ length: 8 }, (_, i) => 64 * i);
    const batch = tokenBatch(start.heldOut, windows, 64);
    cosines.push(...(await gradientAlignment(start.config, withShift(start, weights), batch)));
  }
  return mean(cosines);
}

/** Mean training loss of the first and second half of the last quarter of training, over all runs. */
export function lateLosses({ runs }: Entry): readonly [number, number] {
  const halves = runs.map(({ losses }) => lastQuarter(losses));
  return [mean(halves.map(([early]) => early)), mean(halves.map(([, late]) => late))];
}

function lastQuarter(losses: readonly number[]): readonly [number, number] {
  const eighth = Math.floor(losses.length / 8);
  return [mean(losses.slice(-2 * eighth, -eighth)), mean(losses.slice(-eighth))];
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** Tokens that a model is trained on. */
export const tokensOf = ({ steps, batch = 16, length = 128 }: Terms["training"]): number => steps * batch * length;

/** What rate each entry took, for a note. */
export const ratesOf = (entries: Readonly<Record<string, Entry>>): string =>
  Object.entries(entries)
    .map(([name, { rate }]) => `${name} ${rate}`)
    .join(", ");

/** One comparison and whether the bar that is set on the two numbers holds. */
export function check(
  what: string,
  ours: number,
  baseline: number,
  bar: (ours: number, baseline: number) => boolean,
): Check {
  return { what, ours, baseline, holds: bar(ours, baseline) };
}
