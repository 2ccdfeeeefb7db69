import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../formats/node.ts";
import type { MatrixReport } from "../../methods/index.ts";
import { asStored, type DecoderConfig, outlinesOf, requireTokenizer, weightsInMemory } from "../../models/index.ts";
import { openModel, saveModel } from "../../models/node.ts";
import { bytesOf, cacheEffect, type Report, type Sensitivity, type Subject } from "../../report/index.ts";
import { reportPage } from "../../report/node.ts";
import type { Compressed, OutputFormat } from "./formats.ts";
import { histogramsOf, layerErrorsOf, machineName, measureVariant, storedBytes } from "./measure.ts";
import type { MeasuredText } from "./texts.ts";

/** Tokens to measure on at most. */
const MEASURED = 16_384;
const prompt = "Once upon a time";

/** Where the models of a report lie. */
export interface Places {
  /** Of the original, as `openModel` takes it. */
  readonly source: string;
  readonly written: string;
  /** A folder that may be made and is removed again. */
  readonly scratch: string;
}

export interface Made extends Compressed {
  readonly config: DecoderConfig;
  /** What was done to it, in a word or two. */
  readonly label: string;
  /** Errors of the matrices, where they are known. */
  readonly reports?: readonly MatrixReport[];
  readonly sensitivity?: readonly Sensitivity[];
}

export interface ReportOptions {
  readonly formats: readonly OutputFormat[];
  readonly text: MeasuredText;
  readonly signal: AbortSignal;
  readonly threads: number | undefined;
}

/** Measures a model and what was made of it. Both are read into memory. */
export async function reportOf(
  { source, written, scratch }: Places,
  made: Made,
  { formats, text, signal, threads }: ReportOptions,
): Promise<Report> {
  await using model = await openModel(source);
  const tokenizer = requireTokenizer(model);
  const original: Subject = {
    name: "original",
    config: model.config,
    weights: model.weights,
    tokenizer,
    bytes: storedBytes(model),
  };
  const compressed: Subject = {
    name: made.label,
    config: made.config,
    weights: await weightsInMemory(asStored(made.weights), "f32"),
    tokenizer,
    bytes: bytesOf(outlinesOf(asStored(made.weights))),
    ...(made.reports && { layerErrors: layerErrorsOf(made.reports) }),
  };
  const measuring = { text, limit: MEASURED, prompt, signal, threads };
  // ONNX alone cannot be opened again to measure its speed.
  const opens = formats.some((format) => format !== "onnx");
  if (!opens) await saveModel(scratch, made);
  const variants = [
    await measureVariant(original, source, null, measuring),
    await measureVariant(compressed, opens ? written : scratch, original, measuring),
  ];
  await rm(scratch, { recursive: true, force: true });
  return {
    title: `${made.name}: what it cost`,
    machine: machineName(),
    text: { name: text.name, tokens: Math.min(MEASURED, text.tokens.length) },
    prompt,
    variants,
    histograms: await histogramsOf([original, compressed], text.tokens),
    sensitivity: made.sensitivity ?? [],
    cache: await cacheEffect(compressed, text.tokens, { signal, ...(threads !== undefined && { threads }) }),
  };
}

/** Writes report.html and report.json. */
export async function writeReport(folder: string, report: Report): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = { "report.html": reportPage(report), "report.json": `${JSON.stringify(report, null, 2)}\n` };
  for (const [file, text] of Object.entries(files))
    await writeFileAtomic(join(folder, file), (sink) => sink.write(new TextEncoder().encode(text)));
}
