import type { PendingTensor, TensorFile, TensorInfo } from "../../../formats/tensor-file.ts";
import { ModelError } from "../../../models/errors.ts";
import { ArgumentError, type DType, formatShape, HostTensor } from "../../../tensor/index.ts";
import { ConflictSums, type Conflicts, type Update } from "./conflicts.ts";
import type { MergeRule, Values } from "./rules.ts";

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

/** Magnitudes from which on rounding gives infinity. */
const overflow: Readonly<Partial<Record<DType, number>>> = {
  f32: (2 - 2 ** -24) * 2 ** 127,
  bf16: (2 - 2 ** -8) * 2 ** 127,
  f16: 65520,
};

/** Entries that are rounded at once. */
const CHUNK = 2 ** 16;

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
  readonly #scratch: Uint32Array<ArrayBuffer>[] = [];
  #began: number | undefined;
  #doneBytes = 0;

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
    this.#updateNames = [...(base && start !== base ? [SHIFT] : []), ...models.map(({ name }) => name)];
    this.tensors = Array.from(start.tensors.values(), (info) => ({
      name: info.name,
      dtype: info.dtype!,
      shape: info.shape,
      load: () => this.#merge(info),
    }));
  }

  async #merge(info: TensorInfo): Promise<HostTensor> {
    this.#began ??= performance.now();
    const read: [TensorFile, HostTensor][] = [];
    for (const file of this.#files) {
      this.#options.signal?.throwIfAborted();
      read.push([file, await file.read(info.name)]);
    }
    // From here on nothing waits, so that no other tensor uses the scratch.
    const values = new Map(
      read.map(([file, tensor], i) => [file, finite(file, info.name, this.#widened(tensor, i))] as const),
    );
    const of = (file: TensorFile): Values => values.get(file)!;
    const { start, base, models } = this.#inputs;
    const before = base ? of(base) : new Float32Array(of(start).length);
    const changes = models.map(({ file, weight }) => ({ before, after: of(file), weight }));
    const updates: Update[] = changes.map(({ after }) => ({ from: before, to: after }));
    if (base && start !== base) updates.unshift({ from: of(base), to: of(start) });
    const sums = new ConflictSums(this.#updateNames);
    sums.measure(updates);
    const merged = this.#rule.prepare(of(start), changes, info.name);
    const result = rounded(info, of(start), merged, sums);
    this.#sums.set(info.name, sums);
    this.#tell(info);
    return result;
  }

  /** A tensor in single precision, `bf16` in memory that is used again for each: touching new memory takes longer. */
  #widened(tensor: HostTensor, index: number): Values {
    if (tensor.dtype !== "bf16") return tensor.cast("f32").data as Values;
    const { data, size } = tensor;
    if ((this.#scratch[index]?.length ?? 0) < size) this.#scratch[index] = new Uint32Array(size);
    const bits = this.#scratch[index]!;
    for (let i = 0; i < size; i++) bits[i] = (data as Uint16Array)[i]! << 16;
    return new Float32Array(bits.buffer, 0, size);
  }

  #tell({ name, bytes }: TensorInfo): void {
    this.#doneBytes += bytes;
    const totalBytes = [...this.#inputs.start.tensors.values()].reduce((sum, info) => sum + info.bytes, 0);
    const seconds = (performance.now() - this.#began!) / 1000;
    this.#options.onProgress?.({
      tensor: name,
      doneBytes: this.#doneBytes,
      totalBytes,
      seconds,
      remaining: (seconds / this.#doneBytes) * (totalBytes - this.#doneBytes),
    });
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
export async function readFinite(file: TensorFile, name: string): Promise<Values> {
  return finite(file, name, (await file.read(name)).cast("f32").data as Values);
}

function finite(file: TensorFile, name: string, values: Values): Values {
  // Zero times anything finite is zero: one pass without branches for what is nearly always sound.
  let nought = 0;
  for (let i = 0; i < values.length; i++) nought += values[i]! * 0;
  if (nought === 0) return values;
  const at = values.findIndex((value) => !Number.isFinite(value));
  throw new ModelError(`${file.name}: "${name}" holds ${values[at]} at entry ${at}; the checkpoint is damaged`);
}

function rounded({ name, dtype, shape }: TensorInfo, start: Values, merged: (i: number) => number, sums: ConflictSums) {
  const result = HostTensor.zeros(dtype!, shape);
  const limit = overflow[dtype!]!;
  const wide = new Float64Array(Math.min(CHUNK, result.size));
  for (let at = 0; at < result.size; at += wide.length) {
    const chunk = wide.subarray(0, Math.min(wide.length, result.size - at));
    for (let i = 0; i < chunk.length; i++) {
      const value = merged(at + i);
      if (!(Math.abs(value) < limit))
        throw new ModelError(
          `"${name}" becomes ${value} at entry ${at + i}, which ${dtype} cannot hold; merge with smaller weights`,
        );
      chunk[i] = value;
    }
    sums.merged(start.subarray(at, at + chunk.length), chunk);
    const narrow = new HostTensor("f64", [chunk.length], chunk).cast(dtype!);
    (result.data as Float32Array).set(narrow.data as Float32Array, at);
  }
  return result;
}

/** @throws ModelError naming a tensor that is not in F32, F16 or BF16 */
export function checkTypes(file: TensorFile): void {
  for (const { name, type, dtype } of file.tensors.values()) {
    if (dtype && overflow[dtype] !== undefined) continue;
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
