import { decoderShapes, matrixInput } from "../../models/index.ts";
import { asWeight, Weight } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, type HostTensor, Rng } from "../../tensor/index.ts";
import { StateError } from "./errors.ts";
import { finiteSource } from "./finite.ts";
import { denseIn } from "./half.ts";
import { HiddenStates } from "./hidden.ts";
import { runFingerprint } from "./identity.ts";
import type { MatrixMethod } from "./method.ts";
import type { Plan } from "./plan.ts";
import { denseValues, type MatrixReport, weightErrors } from "./report.ts";
import type { DecoderSource } from "./source.ts";
import type { InputStatistics } from "./statistics.ts";

/** A stretch of the model that is done. */
export interface CompressedPart {
  /** 0 is the embedding, then come the layers, and last the norm and the head. */
  readonly index: number;
  readonly weights: Readonly<Record<string, Weight | HostTensor>>;
  readonly reports: readonly MatrixReport[];
}

export interface CompressionProgress {
  /** Matrices done and in total, those before a resumption included. */
  readonly done: number;
  readonly total: number;
  readonly report: MatrixReport;
  /** Seconds since the start, and to go at this rate. */
  readonly seconds: number;
  readonly remaining: number;
}

/** Where an interrupted compression finds what it needs to go on. */
export interface CompressionState {
  /** Remembers that the parts before `next` are done, and the residual stream before part `next`. */
  save(entry: { readonly run: string; readonly next: number; readonly hidden: HostTensor }): Promise<void>;
  /** What was saved last; null at the start. */
  load(): Promise<{ readonly run: string; readonly next: number; readonly hidden: HostTensor } | null>;
}

export interface CompressOptions extends DeviceOptions {
  readonly seed?: number;
  readonly onProgress?: (progress: CompressionProgress) => void;
  /** Stops between two matrices. */
  readonly signal?: AbortSignal;
  readonly state?: CompressionState;
}

/**
 * Compresses a decoder part by part, as its parts are asked for: statistics of a layer's inputs on the calibration
 * windows, each of its matrices through the method that the plan has for it, and the windows on through the compressed
 * layer, so that the next is calibrated on the inputs that it will really get (Frantar et al. 2023, section 4). Only the
 * layer in work and the residual stream are held.
 *
 * With a `state`, a run that was stopped goes on with the part that was not done: a part counts as done when the one
 * after it is asked for. A `state` of another run is refused.
 * @param windows `i64 [windows, seq]`, as `calibrationWindows` makes them
 * @throws ArgumentError naming weights or activations that are not finite; the signal's reason
 */
export async function* compressParts(
  source: DecoderSource,
  plan: Plan,
  windows: HostTensor,
  options: CompressOptions = {},
): AsyncGenerator<CompressedPart, void, undefined> {
  const run = new Run(source, plan, windows, options);
  try {
    yield* run.parts();
  } finally {
    await run.hidden[Symbol.asyncDispose]();
  }
}

/** As `compressParts`, with the whole result in memory. */
export async function compressDecoder(
  source: DecoderSource,
  plan: Plan,
  windows: HostTensor,
  options: Omit<CompressOptions, "state"> = {},
): Promise<{ weights: Record<string, Weight | HostTensor>; reports: MatrixReport[] }> {
  const weights: Record<string, Weight | HostTensor> = {};
  const reports: MatrixReport[] = [];
  for await (const part of compressParts(source, plan, windows, options)) {
    Object.assign(weights, part.weights);
    reports.push(...part.reports);
  }
  return { weights, reports };
}

const EMBEDDING = "model.embed_tokens.weight";
const HEAD = "lm_head.weight";
const NORM = "model.norm.weight";

class Run {
  readonly hidden: HiddenStates;
  readonly #source: DecoderSource;
  readonly #plan: Plan;
  readonly #windows: HostTensor;
  readonly #options: CompressOptions;
  readonly #shapes: ReadonlyMap<string, readonly number[]>;
  /** Entries of the matrices to compress: a measure of the work. */
  readonly #entries: number;
  readonly #total: number;
  readonly #rng: Rng;
  readonly #began = performance.now();
  #done = 0;
  #worked = 0;
  #skipped = 0;

  constructor(source: DecoderSource, plan: Plan, windows: HostTensor, options: CompressOptions) {
    const [count, length] = checkedWindows(windows, source.config);
    this.#source = finiteSource(source);
    this.#plan = plan;
    this.#windows = windows;
    this.#options = options;
    this.#shapes = decoderShapes(source.config);
    this.#rng = new Rng(options.seed ?? 0);
    this.hidden = new HiddenStates(source.config, [count, length], options);
    const planned = [...this.#shapes].filter(([name]) => this.#methodOf(name));
    this.#total = planned.length;
    this.#entries = planned.reduce((n, [, shape]) => n + entries(shape), 0);
    const embedding = this.#methodOf(EMBEDDING);
    if (embedding?.calibrated && !source.config.tied)
      throw new ArgumentError(
        `${embedding.name} calibrates on what a matrix is multiplied with, but "${EMBEDDING}" is only looked up; use a method that needs no calibration for it`,
      );
  }

  async *parts(): AsyncGenerator<CompressedPart, void, undefined> {
    const { state } = this.#options;
    const run = state ? await this.#identity() : "";
    const saved = (await state?.load()) ?? null;
    if (saved && saved.run !== run)
      throw new StateError(
        "the saved state belongs to another run: model, plan, calibration windows or seed differ; remove it to start over",
      );
    const first = saved?.next ?? 0;
    if (saved) this.hidden.values = saved.hidden;
    for (let index = 0; index < this.#source.config.layers + 2; index++) {
      if (index < first) this.#skip(index);
      else {
        yield await this.#part(index);
        await state?.save({ run, next: index + 1, hidden: this.hidden.values });
      }
    }
  }

  #part(index: number): Promise<CompressedPart> {
    if (index === 0) return this.#embedding();
    return index <= this.#source.config.layers ? this.#layer(index) : this.#head();
  }

  async #embedding(): Promise<CompressedPart> {
    const weight = asWeight(await this.#source.read(EMBEDDING));
    const later = this.#methodOf(EMBEDDING)?.calibrated === true;
    const done = later ? null : await this.#compressed(EMBEDDING, weight, null);
    await this.hidden.embed(done?.weight ?? weight, this.#windows);
    const weights = done ? { [EMBEDDING]: done.report ? done.weight : await this.#original(EMBEDDING, weight) } : {};
    return { index: 0, weights, reports: done?.report ? [done.report] : [] };
  }

  async #layer(index: number): Promise<CompressedPart> {
    const names = this.#namesOf(index);
    const before: Record<string, Weight | HostTensor> = {};
    for (const name of names) before[name] = await this.#source.read(name);
    const planned = names.filter((name) => this.#methodOf(name));
    const points = new Map(planned.map((name) => [matrixInput(name), this.#shapes.get(name)![1]!]));
    const inputs = points.size > 0 ? await this.hidden.statistics(index - 1, before, points) : new Map();
    const weights = { ...before };
    const reports: MatrixReport[] = [];
    for (const name of planned) {
      const { weight, report } = await this.#compressed(name, asWeight(before[name]!), inputs.get(matrixInput(name))!);
      weights[name] = weight;
      if (report) reports.push(report);
    }
    await this.hidden.advance(index - 1, weights);
    for (const name of names) {
      const weight = before[name]!;
      if (weight instanceof Weight && !this.#methodOf(name)) weights[name] = await this.#original(name, weight);
    }
    return { index, weights, reports };
  }

  /** The last norm and the head; a tied embedding that its method calibrates is the head here. */
  async #head(): Promise<CompressedPart> {
    const norm = (await this.#source.read(NORM)) as HostTensor;
    const { tied, layers } = this.#source.config;
    const name = tied ? EMBEDDING : HEAD;
    const method = this.#methodOf(name);
    const weights: Record<string, Weight | HostTensor> = { [NORM]: norm };
    const reports: MatrixReport[] = [];
    if (!tied || method?.calibrated) {
      const inputs = method ? await this.hidden.finalStatistics(norm) : null;
      const before = asWeight(await this.#source.read(name));
      const { weight, report } = await this.#compressed(name, before, inputs);
      weights[name] = report ? weight : await this.#original(name, before);
      if (report) reports.push(report);
    }
    return { index: layers + 1, weights, reports };
  }

  /** A matrix that is left alone, in the precision that it is stored in. */
  async #original(name: string, weight: Weight): Promise<Weight> {
    const half = this.#source.half?.(name);
    return half ? denseIn(half, await denseValues(weight, this.#options)) : weight;
  }

  /** A matrix through its method, and how that went; as it is where the plan has none. */
  async #compressed(
    name: string,
    before: Weight,
    inputs: InputStatistics | null,
  ): Promise<{ weight: Weight; report: MatrixReport | null }> {
    this.#options.signal?.throwIfAborted();
    const method = this.#methodOf(name);
    if (!method) return { weight: before, report: null };
    const began = performance.now();
    const notes: string[] = [];
    const values = await denseValues(before, this.#options);
    const weight = await method.compress({
      name,
      weight: values,
      inputs,
      half: this.#source.half?.(name) ?? null,
      rng: this.#rng.fork(name),
      device: this.#options,
      note: (remark) => notes.push(remark),
    });
    const report: MatrixReport = {
      name,
      method: method.name,
      kind: weight.kind,
      shape: weight.shape,
      ...(await weightErrors(values, weight, inputs?.gram ?? null, this.#options)),
      bytes: weight.bytes,
      bitsPerWeight: weight.bitsPerWeight,
      seconds: seconds(began),
      notes,
    };
    this.#tell(report);
    return { weight, report };
  }

  #tell(report: MatrixReport): void {
    this.#done++;
    this.#worked += entries(report.shape);
    const passed = seconds(this.#began);
    const left = this.#entries - this.#skipped - this.#worked;
    this.#options.onProgress?.({
      done: this.#done,
      total: this.#total,
      report,
      seconds: passed,
      remaining: (passed / this.#worked) * left,
    });
  }

  /** Counts the matrices of a part that an earlier run did. */
  #skip(index: number): void {
    const later = index === 0 && this.#methodOf(EMBEDDING)?.calibrated;
    for (const name of later ? [] : this.#namesOf(index)) {
      if (!this.#methodOf(name)) continue;
      this.#done++;
      this.#skipped += entries(this.#shapes.get(name)!);
    }
  }

  #namesOf(index: number): string[] {
    if (index === 0) return [EMBEDDING];
    return [...this.#shapes.keys()].filter((name) => name.startsWith(`model.layers.${index - 1}.`));
  }

  #methodOf(name: string): MatrixMethod | null {
    return this.#shapes.get(name)!.length === 2 ? this.#plan(name) : null;
  }

  /** What tells this run from others: configuration, plan, windows and seed. The weights are for the caller to tell from others. */
  async #identity(): Promise<string> {
    const plan = [...this.#shapes.keys()].map((name) => this.#methodOf(name)?.name ?? null);
    return await runFingerprint([this.#source.config, plan, this.#options.seed ?? 0], this.#windows);
  }
}

/** @throws ArgumentError for windows that are no windows, or hold tokens that the model does not have */
export function checkedWindows(windows: HostTensor, { vocab }: { readonly vocab: number }): [number, number] {
  const [count, length] = windows.shape as [number, number];
  if (windows.dtype !== "i64" || windows.shape.length !== 2 || windows.size === 0)
    throw new ArgumentError(
      `calibration windows are i64 [windows, seq], not ${windows.dtype} [${windows.shape.join(", ")}]; make them with calibrationWindows`,
    );
  for (let i = 0; i < windows.size; i++) {
    const id = windows.at(i);
    if (id < 0 || id >= vocab)
      throw new ArgumentError(`the calibration windows hold token ${id}, but the model has ${vocab} tokens`);
  }
  return [count, length];
}

const entries = (shape: readonly number[]): number => shape[0]! * shape[1]!;
const seconds = (since: number): number => (performance.now() - since) / 1000;
