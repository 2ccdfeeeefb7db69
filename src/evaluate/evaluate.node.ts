import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { writeFileAtomic } from "../formats/files.node.ts";
import type { Tokenizer } from "../formats/index.ts";
import { requireTokenizer } from "../models/index.ts";
import type { Device, DeviceOptions } from "../runtime/index.ts";
import { isHostTensor, leavesOf } from "../tensor/index.ts";
import { type DecoderModel, DecoderScorer } from "./decoder-scorer.ts";
import { openJournal, sha256 } from "./journal.node.ts";
import type { WindowOptions } from "./perplexity.ts";
import { PythonRunner } from "./python.node.ts";
import { type LoadedTask, loadTask } from "./tasks/load.node.ts";
import { runTask, type TaskResult } from "./tasks/run.ts";

/** A model as it is opened, or with other weights: `{ ...model, weights }`. */
export interface EvaluatedModel extends DecoderModel {
  readonly source: string;
  readonly tokenizer: Tokenizer | null;
}

export interface EvaluateOptions extends DeviceOptions {
  /** Names of tasks that come with pare, or paths of `.json` files that define one. */
  readonly tasks: readonly string[];
  /** Folder with data that pare does not come with. */
  readonly data?: string | undefined;
  /** Only the first so many documents of each task. */
  readonly limit?: number | undefined;
  /** Of few-shot examples that are drawn, of sampling, and of the intervals. Default 0. */
  readonly seed?: number;
  /** Of perplexity. */
  readonly windows?: WindowOptions;
  /** Folder that keeps each document's result, from which a later call goes on, and each task's report. */
  readonly out?: string | undefined;
  /** Ends the work between two documents; what is done is in the report. */
  readonly signal?: AbortSignal;
  readonly onDocument?: (task: string, done: number, total: number) => void;
}

/** Everything that a result needs to be repeated. */
export interface Provenance {
  readonly model: {
    readonly source: string;
    readonly type: string;
    /** SHA-256 over names, types and numbers of all weights. */
    readonly weights: string;
    /** SHA-256 of the tokenizer's files. */
    readonly tokenizer: string;
  };
  readonly versions: Readonly<Record<"pare" | "node" | "onnxruntime" | "pyodide", string>>;
  readonly device: Device | "default";
  readonly seed: number;
  /** Null where it is all that the model reads. */
  readonly window: number | null;
  readonly stride: number | null;
}

export interface TaskReport extends TaskResult {
  /** The task's definition, templates and all. */
  readonly definition: unknown;
  readonly data: readonly { readonly name: string; readonly sha256: string }[];
}

export interface Report extends Provenance {
  readonly tasks: readonly TaskReport[];
}

/**
 * Evaluates a model on tasks, one after the other. All tasks and their data are read before the first begins.
 * @throws TaskError, ModelError for a model without tokenizer, FileError, SandboxError, DeviceError
 */
export async function evaluateModel(model: EvaluatedModel, options: EvaluateOptions): Promise<Report> {
  const { tasks: names, data, limit, seed = 0, windows = {}, out, signal, onDocument, ...device } = options;
  const loaded: LoadedTask[] = [];
  for (const name of names) loaded.push(await loadTask(name, { data }));
  const tokenizer = requireTokenizer(model);
  const provenance: Provenance = {
    model: {
      source: model.source,
      type: model.config.type,
      weights: weightsHash(model),
      tokenizer: sha256(tokenizer.files),
    },
    versions: await versions(),
    device: device.device ?? "default",
    seed,
    window: windows.window ?? null,
    stride: windows.stride ?? null,
  };
  await using scorer = await DecoderScorer.open({ ...model, tokenizer }, device);
  await using python = loaded.some(({ task }) => task.kind === "code") ? await PythonRunner.open() : null;
  const tasks: TaskReport[] = [];
  for (const { task, json, splits, files } of loaded) {
    if (signal?.aborted) break;
    const used = files.map(({ name, bytes }) => ({ name, sha256: sha256(bytes) }));
    const settings = { ...provenance, definition: json, data: used };
    const journal = out === undefined ? undefined : await openJournal(out, task.name, settings);
    const result = await runTask(
      task,
      { scorer, splits },
      {
        seed,
        windows,
        signal,
        runPython: python ? (program) => python.run(program) : undefined,
        ...(limit !== undefined && { limit }),
        ...(journal && { journal }),
        ...(onDocument && { onDocument: (done, total) => onDocument(task.name, done, total) }),
      },
    );
    const report = { ...result, definition: json, data: used };
    tasks.push(report);
    if (journal) await saveReport(journal.path.replace(/\.jsonl$/, ".json"), { ...provenance, tasks: [report] });
  }
  return { ...provenance, tasks };
}

async function saveReport(path: string, report: Report): Promise<void> {
  const bytes = new TextEncoder().encode(`${JSON.stringify(report, null, 2)}\n`);
  await writeFileAtomic(path, (sink) => sink.write(bytes));
}

function weightsHash({ weights }: EvaluatedModel): string {
  const hash = createHash("sha256");
  for (const { path, leaf } of leavesOf(weights, isHostTensor)) {
    hash.update(`${path} ${leaf.dtype} ${leaf.shape.join(",")}\n`).update(leaf.rawBytes());
  }
  return hash.digest("hex");
}

async function versions(): Promise<Provenance["versions"]> {
  const manifest: { version: string; dependencies: Record<string, string> } = JSON.parse(
    await readFile(new URL("../../package.json", import.meta.url), "utf8"),
  );
  const { dependencies } = manifest;
  return {
    pare: manifest.version,
    node: process.versions.node,
    onnxruntime: dependencies["onnxruntime-node"]!,
    pyodide: dependencies["pyodide"]!,
  };
}
