import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { filesIdentity, writeFileAtomic } from "../../formats/node.ts";
import {
  calibrationConcern,
  calibrationWindows,
  type DecoderSource,
  type MatrixReport,
  StateError,
  storedSource,
  streamedLoss,
} from "../../methods/index.ts";
import { type CompressedParts, compressInFolder } from "../../methods/node.ts";
import { type DecoderConfig, outlinesOf, requireTokenizer } from "../../models/index.ts";
import { embeddedModel, outlineModel } from "../../models/node.ts";
import { bytesOf, type Report } from "../../report/index.ts";
import { HostTensor } from "../../tensor/index.ts";
import { duration } from "../../train/index.ts";
import { UsageError } from "../errors.ts";
import { downloadProgress } from "../model.ts";
import { writeFormats } from "./formats.ts";
import { storedBytes } from "./measure.ts";
import { reportOf, writeReport } from "./report.ts";
import { stage } from "./staging.ts";
import { readTexts, type Texts } from "./texts.ts";
import { checkFormats, type Wish, type Work, workOn } from "./work.ts";

export interface CompressJob extends Wish {
  /** As `openModel` takes it; without one, the model that comes with pare. */
  readonly model: string | undefined;
  readonly calibrate: string | undefined;
  readonly text: string | undefined;
  readonly windows: number;
  readonly length: number | undefined;
  readonly out: string;
  readonly report: boolean;
  readonly force: boolean;
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

/** Windows on which a model is asked whether it knows the text. */
const ASKED = 4;

/**
 * Compresses a model into a folder. Stopped half-way, or failing where the disk is full, it leaves its state beside the
 * folder, with which the same command goes on; the folder itself appears when it is whole.
 *
 * The model is read, and the result written, part by part: besides the residual stream of the calibration windows, a part
 * (a layer, or the embedding) is in memory with what its compression takes. Only a budget takes the original into memory
 * as a whole, ONNX the result, and a report both.
 * @returns null when the signal stopped it
 */
export async function compressModel(job: CompressJob): Promise<CompressResult | null> {
  const { signal, note, threads } = job;
  const staging = await stage(job.out, job);
  try {
    await using model = await outlineModel(job.model ?? embeddedModel, { hub: { onProgress: downloadProgress() } });
    const tokenizer = requireTokenizer(model);
    const steps = await checkFormats(model, job);
    const texts = await readTexts(model.source, tokenizer, job, note);
    if (job.report && !texts.measured) throw new UsageError("a report measures on text; give --text <file>");
    const windows = windowsFor(job, model, texts);
    await claimState(staging.state, await filesIdentity(model.source), job.force);
    if (windows) await warnOfText(storedSource(model.config, model.stored), windows, job);
    const work = await workOn(model, job, windows, steps, { state: staging.state, threads, signal, note });
    await using parts = await compressed(join(staging.state, "parts"), work, windows ?? anyWindow(texts), job);
    const { stored, reports } = parts;
    const { config } = work.source;
    const json = config.tied === model.config.tied ? model.json : { ...model.json, tie_word_embeddings: config.tied };
    const written = { name: basename(job.out), json, weights: stored, tokenizer };
    note(`writing ${job.formats.join(", ")}`);
    await writeFormats(staging.folder, written, job.formats);
    let report: Report | null = null;
    if (texts.measured && job.report) {
      note("measuring both models");
      report = await reportOf(
        { source: model.source, written: staging.folder, scratch: join(staging.state, "probed") },
        { ...written, config, label: labelOf(job), reports, sensitivity: work.sensitivity },
        { ...job, text: texts.measured },
      );
      await writeReport(staging.folder, report);
    }
    signal.throwIfAborted();
    await staging.finish();
    return { before: storedBytes(model), after: bytesOf(outlinesOf(stored)), reports, report };
  } catch (error) {
    await staging.discard();
    if (await isEmpty(staging.state)) await rm(staging.state, { recursive: true });
    if (!signal.aborted || error !== signal.reason) throw error;
    note(`stopped; the same command goes on from ${staging.state}`);
    return null;
  }
}

const labelOf = ({ budget, recipe }: Wish): string =>
  budget ? "mixed" : [recipe.to, recipe.method].filter(Boolean).join(", ");

/** Where a state says which model it belongs to. */
const CLAIM = "model.json";

/** Makes sure that what an earlier run left comes from the same files. @throws UsageError where it does not */
async function claimState(state: string, model: string, force: boolean): Promise<void> {
  const path = join(state, CLAIM);
  const left = await readFile(path, "utf8").catch(() => null);
  if (left === model) return;
  if (left !== null && !(await isEmpty(state))) {
    if (!force)
      throw new UsageError(
        `${state}: the saved state belongs to another run: the model is another, or its files have changed; remove it to start over, or give --force`,
      );
    await rm(state, { recursive: true });
  }
  await mkdir(state, { recursive: true });
  await writeFileAtomic(path, (sink) => sink.write(new TextEncoder().encode(model)));
}

/** Whether a state holds nothing to go on with. */
async function isEmpty(state: string): Promise<boolean> {
  const names = await readdir(state).catch(() => null);
  return names?.every((name) => name === CLAIM) ?? false;
}

/** Compresses all parts, or those that an earlier run has not done. */
async function compressed(folder: string, work: Work, windows: HostTensor, job: CompressJob): Promise<CompressedParts> {
  const { threads, seed, signal, note, force } = job;
  const run = (): Promise<CompressedParts> =>
    compressInFolder(folder, work.source, work.plan, windows, {
      ...(threads !== undefined && { threads }),
      seed,
      signal,
      onProgress: ({ done, total, report: { name, bitsPerWeight, outputError, weightError }, remaining }) =>
        note(
          `${done}/${total}  ${name}  ${bitsPerWeight.toFixed(2)} bits  error ${(outputError ?? weightError).toFixed(4)}  ${duration(remaining)} left`,
        ),
    });
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    if (!force) throw new UsageError(`${error.message}, or give --force`);
    await rm(folder, { recursive: true });
    return await run();
  }
}

/** What the method calibrates on; null where there is no text. */
function windowsFor(
  { windows, length, seed }: CompressJob,
  { config }: { readonly config: DecoderConfig },
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

/** A model that cannot make sense of its calibration text is calibrated for nothing. */
async function warnOfText(source: DecoderSource, windows: HostTensor, { note, threads }: CompressJob): Promise<void> {
  const [count, length] = windows.shape as [number, number];
  if (length < 2) return;
  const asked = Math.min(ASKED, count);
  const some = new HostTensor("i64", [asked, length], windows.data.subarray(0, asked * length) as BigInt64Array);
  const concern = calibrationConcern(
    await streamedLoss(source, some, { ...(threads !== undefined && { threads }) }),
    source.config.vocab,
  );
  if (concern) note(`warning: ${concern}`);
}
