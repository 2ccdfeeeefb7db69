import type { PendingTensor, TensorFile, TensorInfo } from "../../../formats/tensor-file.ts";
import { ModelError } from "../../../models/errors.ts";
import { ArgumentError, formatShape, HostTensor } from "../../../tensor/index.ts";
import { ConflictMeter, ConflictSums, type Conflicts } from "./conflicts.ts";
import { Workspace } from "./kernels.ts";
import { type Piece, TensorPieces, workspaceBytes } from "./pieces.ts";
import type { MergeRule } from "./rules.ts";

/** A model whose changes are merged. */
export interface MergedModel {
  /** What reports call it. */
  readonly name: string;
  readonly file: TensorFile;
  readonly weight: number;
}

export interface MergeInputs {
  /** What the changes are applied to. Names, shapes and element types of the result are its own. */
  readonly start: TensorFile;
  /**
   * What the models were trained from: `start` itself, or for ParamDelta the base that `start` is newer than. Null where
   * the models are changes already (`extractDelta`).
   */
  readonly base: TensorFile | null;
  readonly models: readonly MergedModel[];
}

export interface MergeOptions {
  /** Stops before the next tensor. */
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: MergeProgress) => void;
}

export interface MergeProgress {
  readonly tensor: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Seconds since the first tensor, and those that are left at this rate. */
  readonly seconds: number;
  readonly remaining: number;
}

export interface MergeReport {
  readonly rule: string;
  readonly tensors: readonly (Conflicts & { readonly name: string; readonly shape: readonly number[] })[];
  /** Tensors of a layer together: `model.layers.0`; those of no layer stand for themselves. */
  readonly layers: readonly (Conflicts & { readonly name: string })[];
  readonly overall: Conflicts;
  readonly warnings: readonly string[];
}

/** The update from the base to the start, in reports. */
const SHIFT = "new base";

/** Above this, or below this cosine in a large matrix, bases look unrelated. */
const farShift = 0.5;
const farCosine = 0.8;
const largeMatrix = 4096;

/** Element types that can be merged. */
const mergeable = ["f32", "bf16", "f16"] as const;
type Mergeable = (typeof mergeable)[number];

/**
 * A merge of checkpoints, tensor by tensor: `tensors` are for a writer, and each is read from all checkpoints and
 * merged when its turn comes, so that no more than one of them is in memory. Sums are in double precision and rounded
 * once, to the element type of `start`. `report` tells of the tensors that have been merged.
 * @throws ModelError naming the first tensors in which the checkpoints differ, or one that is not in F32, F16 or BF16;
 *   ArgumentError for weights that the rule refuses or that are not finite. While a tensor loads, ModelError where an
 *   input is not finite or the result does not fit its element type, and the signal's reason when stopped
 */
export class Merge {
  readonly tensors: readonly PendingTensor[];
  readonly #inputs: MergeInputs;
  readonly #rule: MergeRule;
  readonly #options: MergeOptions;
  readonly #files: ReadonlySet<TensorFile>;
  readonly #updateNames: readonly string[];
  readonly #sums = new Map<string, ConflictSums>();
  readonly #totalBytes: number;
  #workspace: Workspace | undefined;
  /** What is being read before its turn comes. */
  #ahead: { readonly name: string; readonly versions: Promise<Map<TensorFile, HostTensor>> } | undefined;
  #began: number | undefined;
  #doneBytes = 0;
  /** What of these an earlier run has done. */
  #resumedBytes = 0;

  constructor(inputs: MergeInputs, rule: MergeRule, options: MergeOptions = {}) {
    const { start, base, models } = inputs;
    const bad = models.find(({ weight }) => !Number.isFinite(weight));
    if (bad) throw new ArgumentError(`the weight of ${bad.name} must be finite, not ${bad.weight}`);
    if (models.length === 0) throw new ArgumentError("there is no model to merge");
    rule.check(models.map(({ weight }) => weight));
    this.#files = new Set([start, ...(base ? [base] : []), ...models.map(({ file }) => file)]);
    for (const file of this.#files) checkTypes(file);
    for (const file of this.#files) checkAlike(start, file);
    this.#inputs = inputs;
    this.#rule = rule;
    this.#options = options;
    this.#totalBytes = [...start.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    this.#updateNames = [...(base && start !== base ? [SHIFT] : []), ...models.map(({ name }) => name)];
    this.tensors = Array.from(start.tensors.values(), (info) => ({
      name: info.name,
      dtype: info.dtype!,
      shape: info.shape,
      load: () => this.#merge(info),
    }));
  }

  /** Begins to read the tensor that will be asked for next, so that it is there when its turn comes. */
  readAhead(name: string): void {
    const versions = this.#read(name);
    // Whoever asks for it is told.
    versions.catch(() => {});
    this.#ahead = { name, versions };
  }

  async #read(name: string): Promise<Map<TensorFile, HostTensor>> {
    this.#options.signal?.throwIfAborted();
    const files = [...this.#files];
    const tensors = await Promise.all(files.map((file) => file.read(name)));
    return new Map(files.map((file, i) => [file, tensors[i]!]));
  }

  async #merge(info: TensorInfo): Promise<HostTensor> {
    this.#began ??= performance.now();
    const { name, shape } = info;
    const ahead = this.#ahead?.name === name ? this.#ahead.versions : undefined;
    if (ahead) this.#ahead = undefined;
    const versions = await (ahead ?? this.#read(name));
    this.#options.signal?.throwIfAborted();
    const { start, base, models } = this.#inputs;
    const of = (file: TensorFile): HostTensor => versions.get(file)!;
    const workspace = (this.#workspace ??= new Workspace(workspaceBytes(models.length)));
    const tensor = new TensorPieces(
      { start: of(start), base: base && of(base), models: models.map(({ file }) => of(file)) },
      workspace,
    );
    const meter = new ConflictMeter(this.#updateNames, workspace);
    const merged = workspace.doubles(tensor.length);
    const dtype = info.dtype as Mergeable;
    const narrow = dtype === "f32" ? workspace.floats(tensor.length) : workspace.halves(tensor.length);
    const combine = this.#rule.prepare(
      tensor,
      models.map(({ weight }) => weight),
      name,
    );
    const result = HostTensor.zeros(dtype, shape);
    for (const piece of tensor) {
      meter.updated(piece);
      merged.fill(0);
      combine(piece, merged);
      meter.merged(piece, merged);
      if (!meter.finite)
        for (const [file, version] of versions) finite(file, name, version.cast("f32").data as Float32Array);
      if (!workspace.round(merged, dtype, narrow, piece.count)) throw overflow(info, piece, merged);
      (result.data as Float32Array).set(narrow.subarray(0, piece.count), piece.at);
    }
    this.#sums.set(name, meter.sums);
    this.#tell(info);
    return result;
  }

  #tell({ name, bytes }: TensorInfo): void {
    this.#doneBytes += bytes;
    const seconds = (performance.now() - this.#began!) / 1000;
    this.#options.onProgress?.({
      tensor: name,
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      seconds,
      remaining: (seconds / (this.#doneBytes - this.#resumedBytes)) * (this.#totalBytes - this.#doneBytes),
    });
  }

  /** What of the report comes from tensors that have been merged, as plain JSON. */
  sumsOf(tensors: Iterable<{ readonly name: string }>): Record<string, number[]> {
    return Object.fromEntries(Array.from(tensors, ({ name }) => [name, this.#sums.get(name)!.toJSON()]));
  }

  /** Counts tensors in that an equal merge has done and told of by `sumsOf`. */
  resume(sums: Readonly<Record<string, readonly number[]>>): void {
    for (const [name, values] of Object.entries(sums)) {
      if (this.#sums.has(name)) continue;
      this.#sums.set(name, new ConflictSums(this.#updateNames, values));
      const { bytes } = this.#inputs.start.tensors.get(name)!;
      this.#doneBytes += bytes;
      this.#resumedBytes += bytes;
    }
  }

  report(): MergeReport {
    const overall = new ConflictSums(this.#updateNames);
    const layers = new Map<string, ConflictSums>();
    for (const [name, sums] of this.#sums) {
      const layer = /^(.*?\.\d+)\./.exec(name)?.[1] ?? name;
      const together = layers.get(layer) ?? new ConflictSums(this.#updateNames);
      layers.set(layer, together);
      together.add(sums);
      overall.add(sums);
    }
    const shapes = this.#inputs.start.tensors;
    const tensors = Array.from(this.#sums, ([name, sums]) => ({
      name,
      shape: shapes.get(name)!.shape,
      ...sums.figures(),
    }));
    return {
      rule: this.#rule.name,
      tensors,
      layers: Array.from(layers, ([name, sums]) => ({ name, ...sums.figures() })),
      overall: overall.figures(),
      warnings: unrelatedBases(tensors, overall.figures()),
    };
  }
}

/**
 * The mean of models with weights in proportion to those given: the first model with the others' changes added.
 * @throws ArgumentError for weights that add up to 0, or no model
 */
export function averaged(models: readonly MergedModel[]): MergeInputs {
  const total = models.reduce((sum, { weight }) => sum + weight, 0);
  const [first, ...others] = models;
  if (!first) throw new ArgumentError("there is no model to average");
  if (total === 0) throw new ArgumentError("weights that add up to 0 give no average");
  const shares = others.map((model) => ({ ...model, weight: model.weight / total }));
  return { start: first.file, base: first.file, models: shares };
}

/** A tensor's numbers. @throws ModelError where one is not finite */
export async function readFinite(file: TensorFile, name: string): Promise<Float32Array> {
  return finite(file, name, (await file.read(name)).cast("f32").data as Float32Array);
}

function finite(file: TensorFile, name: string, values: Float32Array): Float32Array {
  // Zero times anything finite is zero: one pass without branches for what is nearly always sound.
  let nought = 0;
  for (let i = 0; i < values.length; i++) nought += values[i]! * 0;
  if (nought === 0) return values;
  const at = values.findIndex((value) => !Number.isFinite(value));
  throw new ModelError(`${file.name}: "${name}" holds ${values[at]} at entry ${at}; the checkpoint is damaged`);
}

/** What is wrong with merged values of which one does not fit. */
function overflow({ name, dtype }: TensorInfo, { at }: Piece, merged: Float64Array): ModelError {
  const fits = (value: number): boolean =>
    Number.isFinite(HostTensor.from([value], { dtype: "f64" }).cast(dtype!).item());
  const entry = merged.findIndex((value) => !fits(value));
  return new ModelError(
    `"${name}" becomes ${merged[entry]} at entry ${at + entry}, which ${dtype} cannot hold; merge with smaller weights`,
  );
}

/** @throws ModelError naming a tensor that is not in F32, F16 or BF16 */
export function checkTypes(file: TensorFile): void {
  for (const { name, type, dtype } of file.tensors.values()) {
    if (mergeable.some((it) => it === dtype)) continue;
    throw new ModelError(
      `${file.name}: "${name}" is of type ${type}; F32, F16 and BF16 can be merged. If it holds codes of quantized weights, dequantize the model first: differences of codes mean nothing`,
    );
  }
}

/** @throws ModelError naming the first tensors that are not in both, or not of the same shape */
export function checkAlike(start: TensorFile, other: TensorFile): void {
  const names = new Set([...start.tensors.keys(), ...other.tensors.keys()]);
  const differing = [...names].filter((name) => {
    const [a, b] = [start.tensors.get(name), other.tensors.get(name)];
    return !a || !b || a.shape.join() !== b.shape.join();
  });
  if (differing.length === 0) return;
  const shown = (file: TensorFile, name: string): string => {
    const info = file.tensors.get(name);
    return info ? `${formatShape(info.shape)} in ${file.name}` : `missing in ${file.name}`;
  };
  const listed = differing.slice(0, 10).map((name) => `"${name}" is ${shown(start, name)} and ${shown(other, name)}`);
  const more = differing.length > 10 ? [`and ${differing.length - 10} more differ`] : [];
  throw new ModelError(
    `the checkpoints differ: ${[...listed, ...more].join("; ")}${adviceOn(differing, start, other)}`,
  );
}

function adviceOn(differing: readonly string[], start: TensorFile, other: TensorFile): string {
  if (
    differing.length === 1 &&
    differing[0] === "lm_head.weight" &&
    start.tensors.has("lm_head.weight") !== other.tensors.has("lm_head.weight")
  )
    return ". One shares its head with its embedding and the other does not: save both in the same way";
  if (differing.every((name) => vocabularyTables.has(name) && start.tensors.has(name) && other.tensors.has(name)))
    return ". Only the vocabularies differ: their rows can be matched by token (alignVocabulary, --vocab map)";
  return "";
}

/** Tensors with a row for each token. */
export const vocabularyTables: ReadonlySet<string> = new Set([
  "model.embed_tokens.weight",
  "lm_head.weight",
  "transformer.wte.weight",
  "wte.weight",
]);

/** The thresholds are rules of thumb: ParamDelta needs bases that are close to each other. */
function unrelatedBases(tensors: MergeReport["tensors"], overall: Conflicts): string[] {
  const [shift] = overall.updates;
  if (shift?.name !== SHIFT) return [];
  const warnings: string[] = [];
  if ((shift.relative ?? 0) > farShift)
    warnings.push(
      `the bases look unrelated: the new base lies ${shift.relative!.toFixed(2)} of the old one's norm away from it`,
    );
  const turned = tensors.find(({ shape, updates }) => {
    const large = shape.length === 2 && shape[0]! * shape[1]! >= largeMatrix;
    return large && updates[0]!.cosine < farCosine;
  });
  if (turned)
    warnings.push(
      `the bases look unrelated: the cosine between their "${turned.name}" is ${turned.updates[0]!.cosine.toFixed(2)}`,
    );
  return warnings;
}
