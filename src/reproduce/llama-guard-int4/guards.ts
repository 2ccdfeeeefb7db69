import {
  distillGuard,
  type GuardModel,
  keepMostImportant,
  pruneDecoder,
  structuredImportance,
} from "../../methods/index.ts";
import type { Weights } from "../../models/index.ts";
import { HostTensor, Rng } from "../../tensor/index.ts";
import { type AnsweredPrompt, isLora, mergeLora, withLora } from "../../train/index.ts";
import { trainLanguage } from "../small-language.ts";
import type { Setting } from "../system.ts";
import { cachedTree, type LanguageModel } from "../workbench.ts";

/** Widths of a smaller language model. */
export interface Widths {
  readonly dim: number;
  readonly ffn: number;
}

export interface Training {
  readonly steps: number;
  readonly rate: number;
  /** Default 16. */
  readonly batch?: number;
  /** Rank of adapters that are trained, with the embedding, instead of all weights; default: these are. */
  readonly rank?: number;
}

/** Windows of text that importance is measured on, and tokens of each. */
const [WINDOWS, LENGTH] = [64, 128];

/**
 * A language model for the student, as the paper's was made of a larger one: the channels and neurons of the workbench's
 * model that matter most, with a head of their own, trained further on the text. All layers stay.
 */
export async function narrowLanguage(
  setting: Setting,
  model: LanguageModel,
  text: readonly number[],
  { dim, ffn, ...training }: Widths & Training,
): Promise<GuardModel> {
  const data = BigInt64Array.from(text.slice(0, WINDOWS * LENGTH), BigInt);
  const { neurons, channels } = await structuredImportance(model, new HostTensor("i64", [WINDOWS, LENGTH], data));
  const narrow = pruneDecoder(model, keepMostImportant({ neurons: neurons.energy, channels }, { dim, ffn }));
  const config = { ...narrow.config, tied: false };
  const start: Weights = { "lm_head.weight": narrow.weights["model.embed_tokens.weight"]!, ...narrow.weights };
  const key = ["llama-guard-int4", "language", setting.seed, model.name, text.length, dim, ffn, training];
  const weights = await cachedTree(setting.bench, key, start, async () => {
    const what = `a language model of width ${dim}, cut out of ${model.name}`;
    return (await trainLanguage(setting, { config, weights: start, training: text }, { what, ...training })).weights;
  });
  return { config, weights };
}

/** A language model that has learned the verdicts. @param from what its weights depend on, for the cache */
export async function tunedGuard(
  { seed, bench, signal, log }: Setting,
  name: string,
  { config, weights: start }: GuardModel,
  prompts: readonly AnsweredPrompt[],
  { rank, ...training }: Training,
  from: unknown,
): Promise<GuardModel> {
  const key = ["llama-guard-int4", name, seed, prompts.length, training, rank, from];
  const weights = await cachedTree(bench, key, start, async () => {
    const began = performance.now();
    const options = { ...training, seed, signal, ...(rank && { trainable: isAdapted }) };
    const adapted = rank ? withLora(start, { rank, alpha: 4 * rank, rng: new Rng(seed).fork("adapters") }) : start;
    const tuned = await distillGuard({ config, weights: adapted }, null, prompts, options);
    log(`${name}: ${training.steps} steps in ${((performance.now() - began) / 1000).toFixed(0)} s`);
    return rank ? await mergeLora(tuned) : tuned;
  });
  return { config, weights };
}

const isAdapted = (path: string): boolean => isLora(path) || path.startsWith("model.embed_tokens.");
