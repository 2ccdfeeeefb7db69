import type { ByteSink } from "../../../formats/bytes.ts";
import type { PendingTensor, TensorFile, TensorInfo } from "../../../formats/tensor-file.ts";
import { ModelError } from "../../../models/errors.ts";
import { ArgumentError, formatShape, HostTensor } from "../../../tensor/index.ts";
import { ConflictMeter, ConflictSums, type Conflicts } from "./conflicts.ts";
import { Workspace } from "./kernels.ts";
import {
  type Mergeable,
  mergeable,
  type Piece,
  type Stored,
  TensorPieces,
  type TensorVersion,
  versionIn,
  workspaceBytes,
} from "./pieces.ts";
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

/** Takes the merged entries from `at` on. The array is written to again when the next but one is taken. */
type BlockTaker = (at: number, block: Stored) => Promise<void>;

/**
 * A merge of checkpoints, tensor by tensor: `tensors` are for a writer, and each is read from all checkpoints, merged and
 * written when its turn comes, some 500,000 entries at a time, so that not even one of them must fit in memory. Sums are
 * in double precision and rounded once, to the element type of `start`. `report` tells of the tensors that have been
 * merged.
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
  #merging = Promise.resolve();
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
      load: () => this.#load(info),
      write: (sink) => this.#write(info, sink),
    }));
  }

  async #load(info: TensorInfo): Promise<HostTensor> {
    const result = HostTensor.zeros(info.dtype!, info.shape);
    await this.#inTurn(info, async (at, block) => (result.data as Stored).set(block, at));
    return result;
  }

  /** Writes each block while the next one is merged. */
  async #write(info: TensorInfo, sink: ByteSink): Promise<void> {
    let writing = Promise.resolve();
    try {
      await this.#inTurn(info, async (_, block) => {
        await writing;
        writing = sink.write(new Uint8Array(block.buffer, block.byteOffset, block.byteLength));
        // Whoever comes next is told.
        writing.catch(() => {});
      });
    } finally {
      await writing;
    }
  }

  /** One tensor after the other has the workspace. */
  #inTurn(info: TensorInfo, take: BlockTaker): Promise<void> {
    const merging = this.#merging.then(() => this.#merge(info, take));
    this.#merging = merging.catch(() => {});
    return merging;
  }

  async #merge(info: TensorInfo, take: BlockTaker): Promise<void> {
    this.#began ??= performance.now();
    const { signal } = this.#options;
    signal?.throwIfAborted();
    const { name } = info;
    const { start, base, models } = this.#inputs;
    const versions = new Map(Array.from(this.#files, (file) => [file, versionIn(file, name)]));
    const of = (file: TensorFile): TensorVersion => versions.get(file)!;
    const workspace = (this.#workspace ??= new Workspace(workspaceBytes(models.length)));
    const tensor = new TensorPieces(
      { start: of(start), base: base && of(base), models: models.map(({ file }) => of(file)) },
      workspace,
    );
    const meter = new ConflictMeter(this.#updateNames, workspace);
    const merged = workspace.doubles(tensor.pieceLength);
    const dtype = info.dtype as Mergeable;
    const results = [0, 1].map(() =>
      workspace.bare<Stored>(dtype === "f32" ? Float32Array : Uint16Array, tensor.blockLength),
    );
    const weights = models.map(({ weight }) => weight);
    const combine = await this.#rule.prepare(tensor, weights, name);
    for await (const block of tensor.blocks(meter.updates)) {
      signal?.throwIfAborted();
      const result = results.reverse()[0]!;
      for (const piece of block) {
        meter.updated(piece);
        merged.fill(0);
        combine(piece, merged);
        meter.merged(piece, merged);
        const into = result.subarray(piece.at - block.at);
        if (!meter.finite || !workspace.round(merged, dtype, into, piece.count)) {
          for (const file of this.#files) await readFinite(file, name);
          throw overflow(info, piece, merged);
        }
      }
      await take(block.at, result.subarray(0, block.count));
    }
    this.#sums.set(name, meter.sums);
    this.#tell(info);
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
  const values = (await file.read(name)).cast("f32").data as Float32Array;
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
