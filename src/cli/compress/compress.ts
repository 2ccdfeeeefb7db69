import { rm } from "node:fs/promises";
import {
  type Budget,
  budgetPlan,
  calibrationConcern,
  calibrationWindows,
  type MatrixReport,
  meanLoss,
  memorySource,
  methodOf,
  type Plan,
  planFor,
  type Recipe,
  StateError,
  type Target,
} from "../../methods/index.ts";
import { compressInFolder } from "../../methods/node.ts";
import { requireTokenizer } from "../../models/index.ts";
import { embeddedModel, type OpenModel, openModel } from "../../models/node.ts";
import { bytesOf, type Report, type Subject } from "../../report/index.ts";
import { HostTensor } from "../../tensor/index.ts";
import { duration } from "../../train/index.ts";
import { UsageError } from "../errors.ts";
import { type OutputFormat, writeFormats } from "./formats.ts";
import { histogramsOf, layerErrorsOf, machineName, measureVariant, storedBytes } from "./measure.ts";
import { writeReport } from "./report.ts";
import { stage } from "./staging.ts";
import { readTexts, type Texts } from "./texts.ts";

export interface CompressJob {
  /** As `openModel` takes it; without one, the model that comes with pare. */
  readonly model: string | undefined;
  readonly recipe: Recipe;
  /** Bits by matrix instead of the recipe's for all. */
  readonly budget: Budget | undefined;
  /** Of the embedding and the head; null leaves them. */
  readonly embedding: Target | null;
  readonly calibrate: string | undefined;
  readonly text: string | undefined;
  readonly windows: number;
  readonly length: number | undefined;
  readonly out: string;
  readonly formats: readonly OutputFormat[];
  readonly report: boolean;
  readonly force: boolean;
  readonly seed: number;
  readonly threads: number | undefined;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
}

export interface CompressResult {
  /** Bytes of the weights as they are stored. */
  readonly before: number;
  readonly after: number;
  readonly reports: readonly MatrixReport[];
  readonly report: Report | null;
}

/** Tokens to measure on at most. */
const MEASURED = 16_384;
const prompt = "Once upon a time";
const EMBEDDING = "model.embed_tokens.weight";
const tables = [EMBEDDING, "lm_head.weight"];
/** Windows on which a model is asked whether it knows the text. */
const ASKED = 4;

/**
 * Compresses a model into a folder. Stopped half-way it leaves its state beside the folder, with which the same command
 * goes on; the folder itself appears when it is whole.
 * @returns null when the signal stopped it
 */
export async function compressModel(job: CompressJob): Promise<CompressResult | null> {
  const { recipe, signal, note } = job;
  const staging = await stage(job.out, job);
  try {
    await using model = await openModel(job.model ?? embeddedModel);
    const tokenizer = requireTokenizer(model);
    const texts = await readTexts(model.source, tokenizer, job, note);
    const { measured } = texts;
    if (job.report && !measured) throw new UsageError("a report measures on text; give --text <file>");
    const windows = windowsFor(job, model, texts);
    if (windows) await warnOfText(model, windows, note);
    const plan = await planOf(job, model, windows);
    const device = job.threads === undefined ? {} : { threads: job.threads };
    const run = () =>
      compressInFolder(staging.state, memorySource(model), plan, windows ?? anyWindow(texts), {
        ...device,
        seed: job.seed,
        signal,
        onProgress: ({ done, total, report: { name, bitsPerWeight, outputError, weightError }, remaining }) =>
          note(
            `${done}/${total}  ${name}  ${bitsPerWeight.toFixed(2)} bits  error ${(outputError ?? weightError).toFixed(4)}  ${duration(remaining)} left`,
          ),
      });
    const { weights, reports } = await run().catch(async (error: unknown) => {
      if (!(job.force && error instanceof StateError)) throw error;
      await rm(staging.state, { recursive: true });
      return await run();
    });
    const name = job.out.split(/[/\\]/).at(-1)!;
    const [before, after] = [storedBytes(model), bytesOf(weights)];
    await writeFormats(staging.folder, { name, json: model.json, weights, tokenizer }, job.formats);
    let report: Report | null = null;
    if (job.report && measured) {
      const original: Subject = {
        name: "original",
        config: model.config,
        weights: model.weights,
        tokenizer,
        bytes: before,
      };
      const compressed: Subject = {
        name: job.budget ? "mixed" : recipe.to,
        config: model.config,
        weights,
        tokenizer,
        layerErrors: layerErrorsOf(reports),
      };
      const measuring = { text: measured, limit: MEASURED, prompt, signal, threads: job.threads };
      note("measuring both models");
      report = {
        title: `${name}: what compression cost`,
        machine: machineName(),
        text: { name: measured.name, tokens: Math.min(MEASURED, measured.tokens.length) },
        prompt,
        variants: [
          await measureVariant(original, model.source, null, measuring),
          await measureVariant(compressed, staging.folder, original, measuring),
        ],
        histograms: await histogramsOf([original, compressed], measured.tokens),
        sensitivity: [],
      };
      await writeReport(staging.folder, report);
    }
    signal.throwIfAborted();
    await staging.finish();
    return { before, after, reports, report };
  } catch (error) {
    if (!signal.aborted || error !== signal.reason) throw error;
    note(`stopped; the same command goes on from ${staging.state}`);
    return null;
  }
}

/** What the method calibrates on; null where there is no text. */
function windowsFor(
  { windows, length, seed }: CompressJob,
  { config }: OpenModel,
  { calibration }: Texts,
): HostTensor | null {
  if (!calibration) return null;
  const tokens = Math.min(length ?? 512, config.maxPositions);
  return calibrationWindows(calibration, { count: Math.min(windows, most(calibration, tokens)), length: tokens, seed });
}

/** All windows of a text that is shorter than asked for; at least one, so that what is missing is said. */
const most = (tokens: readonly number[], length: number): number => Math.max(1, Math.floor(tokens.length / length));

/** Methods that need no text still pass a model's layers; what they read does not matter. */
function anyWindow({ measured }: Texts): HostTensor {
  return calibrationWindows(measured?.tokens ?? [0, 0], { count: 1, length: 2 });
}

async function planOf(job: CompressJob, model: OpenModel, windows: HostTensor | null): Promise<Plan> {
  const { budget, embedding, seed, signal, note } = job;
  const recipe: Recipe = { ...job.recipe, calibrated: windows !== null };
  const table = embedding && methodOf({ ...recipe, to: embedding, method: "nearest", asymmetric: undefined });
  if (!budget) {
    if (!windows) note("no text to calibrate on; --calibrate <file> makes better models");
    return planFor(model.config, { layers: methodOf(recipe), embedding: table, head: table });
  }
  if (!windows)
    throw new UsageError("a budget is shared out by what each matrix costs on text; give --calibrate <file>");
  const ladder = (["8bit", "4bit", "3bit", "2bit"] as const).map((to) => ({
    measured: methodOf({ ...recipe, to, method: "nearest" }),
    final: methodOf({ ...recipe, to }),
  }));
  note("measuring what each matrix costs at 8, 4, 3 and 2 bits");
  const candidates = ladder.map(({ measured }) => measured);
  const { selection } = await budgetPlan(model, windows, candidates, budget, {
    include: (matrix) => embedding !== null || !tables.includes(matrix),
    seed,
    signal,
    onProgress: (matrix, { method, cost }) => note(`${matrix}  ${method?.name}  ${cost.toExponential(2)} nats a token`),
  });
  return (matrix) => {
    const chosen = selection.chosen[matrix]?.method;
    const step = ladder.find(({ measured }) => measured === chosen);
    // What was chosen by rounding to nearest, which is quick, is then rounded with care.
    return (matrix === EMBEDDING ? step?.measured : step?.final) ?? null;
  };
}

/** A model that cannot make sense of its calibration text is calibrated for nothing. */
async function warnOfText(model: OpenModel, windows: HostTensor, note: (line: string) => void): Promise<void> {
  const [count, length] = windows.shape as [number, number];
  const asked = Math.min(ASKED, count);
  const some = new HostTensor("i64", [asked, length], windows.data.subarray(0, asked * length) as BigInt64Array);
  const concern = calibrationConcern(await meanLoss(model, some), model.config.vocab);
  if (concern) note(`warning: ${concern}`);
}
