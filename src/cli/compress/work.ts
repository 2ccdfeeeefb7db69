import { join } from "node:path";
import {
  type Budget,
  budgetSelection,
  type DecoderSource,
  type MatrixMethod,
  type MeasuredChoice,
  methodOf,
  type Plan,
  planFor,
  prepared,
  procedureOf,
  type Recipe,
  runFingerprint,
  sensitivity,
  storedSource,
  type Target,
  withoutText,
} from "../../methods/index.ts";
import { keptResult } from "../../methods/node.ts";
import type { DecoderConfig } from "../../models/index.ts";
import { type OpenModel, type OutlinedModel, openModel } from "../../models/node.ts";
import type { Sensitivity } from "../../report/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { UsageError } from "../errors.ts";
import { type OutputFormat, unfitFor } from "./formats.ts";
import { sampleWeights } from "./sample.ts";

/** What is asked for, as far as it says how matrices are compressed. */
export interface Wish {
  readonly recipe: Recipe;
  /** Bits by matrix instead of the recipe's for all. */
  readonly budget: Budget | undefined;
  /** Of the embedding and the head; null leaves them. Default 8bit, or f16 where a format has no place for that. */
  readonly embedding: Target | null | undefined;
  readonly formats: readonly OutputFormat[];
  readonly seed: number;
}

export interface WorkOptions {
  /** Where what was found out stays for a run that goes on. */
  readonly state: string;
  readonly threads: number | undefined;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
}

/** What is to be compressed, and how. */
export interface Work {
  readonly source: DecoderSource;
  readonly plan: Plan;
  /** Where bits were shared out, what each matrix costs under each choice. */
  readonly sensitivity: readonly Sensitivity[];
}

const EMBEDDING = "model.embed_tokens.weight";
const tables = [EMBEDDING, "lm_head.weight"];
/** Forms that a budget chooses from. */
const ladder = ["8bit", "4bit", "3bit", "2bit"] as const;
type Step = (typeof ladder)[number];

/** The method of the embedding and the head. */
function tableMethod({ recipe, embedding, formats }: Wish): MatrixMethod | null {
  if (embedding === null) return null;
  const to = embedding ?? (formats.includes("compressed-tensors") ? "f16" : "8bit");
  return methodOf({ to, method: "nearest", block: recipe.block === "channel" ? undefined : recipe.block });
}

function planOf(config: DecoderConfig, recipe: Recipe, table: MatrixMethod | null): Plan {
  const { layers, except } = procedureOf(recipe);
  return planFor(config, { layers, except, embedding: table, head: table });
}

/** A configuration after the recipe's preparation: rotation gives a tied head a matrix of its own. */
function preparedConfig(config: DecoderConfig, recipe: Recipe): DecoderConfig {
  return procedureOf(recipe).preparation?.kind === "rotation" ? { ...config, tied: false } : config;
}

/**
 * Makes sure, before any work is done, that every format can hold what will come out.
 * @returns the forms that a budget may choose from
 * @throws UsageError naming format, matrix and what to do; ArgumentError for a recipe that does not go together
 */
export async function checkFormats(model: Pick<OpenModel, "config" | "json">, wish: Wish): Promise<readonly Step[]> {
  const { budget, formats } = wish;
  if (budget && formats.includes("compressed-tensors"))
    throw new UsageError(
      "compressed-tensors holds matrices of one form only, so that bits cannot be shared out; leave out --size and --ppl-increase, or that format",
    );
  const table = tableMethod(wish);
  if (budget && procedureOf(wish.recipe).preparation)
    throw new UsageError(
      `${wish.recipe.method} readies a model for one form of weights, so that bits cannot be shared out; --size and --ppl-increase go with gptq and nearest`,
    );
  const recipe = withoutText(budget ? { ...wish.recipe, to: "8bit" } : wish.recipe);
  const config = preparedConfig(model.config, recipe);
  const json = { ...model.json, tie_word_embeddings: config.tied };
  const unfit = async (plan: Plan): Promise<string | null> => {
    const model = { json, weights: await sampleWeights(config, plan) };
    return formats.map((format) => unfitFor(format, model)).find((reason) => reason !== null) ?? null;
  };
  const refuse = (reason: string): never => {
    const eased = recipe.activations !== "keep" && reason.includes("rounded-input");
    throw new UsageError(`${reason}${eased ? "; --activations keep leaves the inputs of matrices alone" : ""}`);
  };
  if (!budget) {
    const reason = await unfit(planOf(config, recipe, table));
    return reason === null ? ladder : refuse(reason);
  }
  let last = "";
  const fitting: Step[] = [];
  for (const to of ladder) {
    const reason = await unfit(
      planOf(config, { ...recipe, to }, wish.embedding === null ? null : methodOf({ ...recipe, to })),
    );
    if (reason === null) fitting.push(to);
    else last ||= reason;
  }
  return fitting.length > 0 ? fitting : refuse(last);
}

/**
 * Decides how each matrix is compressed, and prepares the model for it.
 * @param steps as `checkFormats` returned them
 * @param windows calibration text; null where there is none
 * @throws UsageError, ArgumentError for a recipe that takes text
 */
export async function workOn(
  model: OutlinedModel,
  wish: Wish,
  windows: HostTensor | null,
  steps: readonly Step[],
  options: WorkOptions,
): Promise<Work> {
  const { budget, seed } = wish;
  const { note, signal, state, threads } = options;
  const recipe: Recipe = { ...wish.recipe, calibrated: windows !== null };
  const source = storedSource(model.config, model.stored);
  if (budget) {
    if (!windows)
      throw new UsageError("a budget is shared out by what each matrix costs on text; give --calibrate <file>");
    // Costs are measured on the whole model, which has to be in memory for that.
    await using whole = await openModel(model.source);
    return { source, ...(await sharedOut(whole, { ...wish, recipe, budget }, windows, steps, options)) };
  }
  const { preparation } = procedureOf(recipe);
  if (!windows) note("no text to calibrate on; --calibrate <file> makes better models");
  if (!preparation) return { source, plan: planOf(model.config, recipe, tableMethod(wish)), sensitivity: [] };
  const plan = planOf(preparedConfig(model.config, recipe), recipe, tableMethod(wish));
  if (preparation.kind === "rotation") note("turning the model's hidden states");
  const key = windows && (await runFingerprint([model.config, procedureOf(recipe).layers.name], windows));
  const ready = await prepared(source, preparation, windows!, {
    seed,
    signal,
    ...(threads !== undefined && { threads }),
    onLayer: (layer) => note(`${preparation.name}: scales of layer ${layer + 1} of ${model.config.layers}`),
    kept: async (find) => {
      const found = await keptResult(join(state, "scales.json"), key!, async () =>
        Array.from(await find(), ([point, scales]) => [point, Array.from(scales)] as const),
      );
      return new Map(found.map(([point, scales]) => [point, Float32Array.from(scales)]));
    },
  });
  return { source: ready, plan, sensitivity: [] };
}

/** Shares bits out by what each matrix costs when it alone is rounded to nearest, which is quick. */
async function sharedOut(
  model: OpenModel,
  { recipe, budget, embedding, seed }: Wish & { readonly budget: Budget },
  windows: HostTensor,
  steps: readonly Step[],
  { note, signal, state, threads }: WorkOptions,
): Promise<Pick<Work, "plan" | "sensitivity">> {
  const quick = steps.map((to) => methodOf({ ...recipe, to, method: "nearest" }));
  const careful = steps.map((to) => methodOf({ ...recipe, to }));
  note(`measuring what each matrix costs at ${steps.join(", ")}`);
  const key = await runFingerprint([model.config, quick.map(({ name }) => name), embedding === null, seed], windows);
  const costs = await keptResult(join(state, "costs.json"), key, async () => {
    const items = await sensitivity(model, windows, quick, {
      include: (matrix) => embedding !== null || !tables.includes(matrix),
      seed,
      signal,
      ...(threads !== undefined && { threads }),
      onProgress: (matrix, { method, cost }: MeasuredChoice) =>
        note(`${matrix}  ${method?.name}  ${cost.toExponential(2)} nats a token`),
    });
    return items.map(({ name, choices }) => ({ name, choices: choices.map(({ bytes, cost }) => ({ bytes, cost })) }));
  });
  const items = costs.map(({ name, choices }) => ({
    name,
    choices: choices.map((choice, i) => ({ ...choice, step: i })),
  }));
  const { chosen } = budgetSelection(items, budget, model.weights);
  return {
    plan: (matrix) => {
      const choice = chosen[matrix];
      return choice ? (matrix === EMBEDDING ? quick : careful)[choice.step]! : null;
    },
    sensitivity: steps.map((format, step) => ({
      format,
      increase: Object.fromEntries(costs.map(({ name, choices }) => [name, choices[step]!.cost])),
      chosen: items.flatMap(({ name }) => (chosen[name]!.step === step ? [name] : [])),
    })),
  };
}
