import type { Tokenizer } from "../../formats/index.ts";
import {
  calibrationWindows,
  checkGroups,
  compressDecoder,
  denseValues,
  type MatrixReport,
  memorySource,
  planFor,
} from "../../methods/index.ts";
import { type DecoderConfig, decoderShapes, type Weights } from "../../models/index.ts";
import { asWeight, type Weight } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, type HostTensor } from "../../tensor/index.ts";
import { bootstrap } from "../bootstrap.ts";
import { perplexity, type WindowOptions } from "../perplexity.ts";
import { type Compressor, type KickSetting, settingName, sparsityOf } from "./compressors.ts";
import type { LoggedJudge } from "./judge.ts";
import { DecoderReader } from "./reader.ts";
import { disagreementsOf, dropOf, type KickReport, type KickRow, maxMatchingOf, type RowScore } from "./report.ts";
import {
  FEW_ITEMS,
  type ItemResult,
  type KickItem,
  type KickTask,
  scoreKey,
  scoreOf,
  type TaskContext,
  type TaskScore,
} from "./task.ts";

/** A dense model to be compressed and audited. */
export interface KickModel {
  readonly config: DecoderConfig;
  readonly weights: Weights;
  readonly tokenizer: Tokenizer;
}

/** Where finished parts are kept, so that an audit can go on. */
export interface KickStore {
  get(key: string): unknown;
  put(key: string, value: unknown): Promise<void>;
}

export interface KickOptions extends DeviceOptions {
  readonly tasks: readonly KickTask[];
  readonly compressors: readonly { readonly compressor: Compressor; readonly grid: readonly KickSetting[] }[];
  /** What a score may lose to count as matching, as a share. Default 0.05. */
  readonly eps?: number;
  /** Calibration seeds. Default 3. */
  readonly runs?: number;
  /** Of the first run; the others follow it. Default 0. */
  readonly seed?: number;
  /** Text to calibrate on, which must not be the one that is measured on. */
  readonly calibration: { readonly tokens: ArrayLike<number>; readonly count: number; readonly length: number };
  /** Text of perplexity: always in the same windows, which do not overlap. */
  readonly text: { readonly tokens: readonly number[] } & Pick<WindowOptions, "window">;
  /** Items of a task at most. */
  readonly limit?: number;
  readonly judging?: LoggedJudge | undefined;
  readonly store?: KickStore | undefined;
  /** Ends the audit between two groups of items. */
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: KickProgress) => void;
}

export interface KickProgress {
  /** What is in work: `dense`, `wanda 30 %`. */
  readonly model: string;
  /** Models done and in total, the dense one and each run included. */
  readonly done: number;
  readonly total: number;
  readonly task: string | null;
}

/** Items that are put to a model before results are kept. */
const GROUP = 64;

/**
 * Audits compressed versions of a model (Jaiswal et al. 2024): perplexity, and what each task finds of the knowledge and
 * abilities of the dense model. Nothing is trained after compression. Calibrated methods run once for each seed.
 * @throws ArgumentError for settings that compressors do not take, before anything is measured; TaskError; the signal's
 *   reason when stopped
 */
export async function kick(dense: KickModel, options: KickOptions): Promise<KickReport> {
  return await new Audit(dense, options).run();
}

/** What one model gave. */
interface Measured {
  readonly perplexity: number;
  readonly results: Readonly<Record<string, readonly ItemResult[]>>;
}

/** What compression did, over all matrices. */
interface Compression {
  readonly sparsity: number;
  readonly bitsPerWeight: number;
  readonly notes: readonly string[];
}

class Audit {
  readonly #dense: KickModel;
  readonly #options: KickOptions;
  readonly #tasks: readonly KickTask[];
  readonly #eps: number;
  readonly #runs: number;
  readonly #seed: number;
  readonly #total: number;
  readonly #warnings = new Set<string>();
  #done = 0;

  constructor(dense: KickModel, options: KickOptions) {
    const { eps = 0.05, runs = 3, seed = 0, limit, compressors, tasks } = options;
    if (!(eps >= 0 && eps < 1)) throw new ArgumentError(`eps must be from 0 to below 1, not ${eps}`);
    if (!Number.isInteger(runs) || runs < 1) throw new ArgumentError(`runs must be a whole number from 1, not ${runs}`);
    if (tasks.length === 0) throw new ArgumentError("an audit takes at least one task");
    this.#dense = dense;
    this.#options = options;
    this.#tasks = tasks.map((task) => (limit === undefined ? task : { ...task, items: task.items.slice(0, limit) }));
    this.#eps = eps;
    this.#runs = runs;
    this.#seed = seed;
    for (const { name, items, judged } of this.#tasks) {
      if (items.length === 0) throw new ArgumentError(`the task ${name} has no item`);
      if (judged && !options.judging)
        throw new ArgumentError(`the task ${name} takes a judge; name one, or leave it out`);
      if (items.length < FEW_ITEMS)
        this.#warnings.add(`${name}: ${items.length} items say little; see how wide the intervals are`);
    }
    const methods = compressors.flatMap(({ compressor, grid }) =>
      grid.map((setting) => {
        this.#check(compressor, setting);
        return this.#runsOf(compressor);
      }),
    );
    this.#total = 1 + methods.reduce((sum, count) => sum + count, 0);
  }

  /** @throws ArgumentError for what the compressor or the model's matrices cannot take */
  #check(compressor: Compressor, setting: KickSetting): void {
    const { calibration } = this.#options;
    const { name, calibrated } = compressor;
    compressor.method(setting);
    let widest = 0;
    for (const [matrix, shape] of decoderShapes(this.#dense.config)) {
      if (shape.length !== 2 || !matrix.startsWith("model.layers.")) continue;
      widest = Math.max(widest, shape[1]!);
      if (setting.bits === undefined) checkGroups({ name: matrix, weight: { shape } }, sparsityOf(name, setting));
    }
    const tokens = calibration.count * calibration.length;
    if (calibrated && tokens < widest)
      this.#warnings.add(
        `${name} ${settingName(setting)}: ${tokens} calibration tokens are fewer than the ${widest} inputs of a matrix, so that the Hessian is singular and only damping makes up for it; give more`,
      );
  }

  #runsOf({ calibrated }: Compressor): number {
    return calibrated ? this.#runs : 1;
  }

  async run(): Promise<KickReport> {
    const dense = await this.#measure("dense", this.#dense, () => undefined);
    const said = new Map(
      this.#tasks.map(({ name, items }) => [
        name,
        new Map(items.map(({ id }, i) => [id, dense.results[name]![i]!.output])),
      ]),
    );
    const scores = this.#scores((task, metric) => scoreOf(task.items, dense.results[task.name]!, metric, this.#seed));
    const rows: KickRow[] = [];
    for (const { compressor, grid } of this.#options.compressors)
      for (const setting of grid) rows.push(await this.#row(compressor, setting, dense, scores, said));
    return {
      eps: this.#eps,
      dense: { perplexity: dense.perplexity, scores },
      rows,
      maxMatching: maxMatchingOf(rows),
      disagreements: disagreementsOf(rows),
      warnings: [...this.#warnings],
    };
  }

  #scores<T>(of: (task: KickTask, metric: string) => T): Record<string, T> {
    return Object.fromEntries(
      this.#tasks.flatMap((task) => task.metrics.map((metric) => [scoreKey(task, metric), of(task, metric)])),
    );
  }

  async #row(
    compressor: Compressor,
    setting: KickSetting,
    dense: Measured,
    denseScores: Readonly<Record<string, TaskScore>>,
    said: ReadonlyMap<string, ReadonlyMap<string, string>>,
  ): Promise<KickRow> {
    const runs: { readonly compression: Compression; readonly measured: Measured }[] = [];
    for (let run = 0; run < this.#runsOf(compressor); run++) {
      const name = `${compressor.name} ${settingName(setting)}`;
      const key = `${name}, seed ${this.#seed + run}`;
      const model = new Later(() => this.#compress(compressor, setting, this.#seed + run));
      const compression = await this.#kept(`${key}, compression`, async () => (await model.value).compression);
      for (const note of compression.notes) this.#warnings.add(`${name}: ${note}`);
      const weights = async (): Promise<KickModel> => ({ ...this.#dense, weights: (await model.value).weights });
      const measured = await this.#measure(key, weights, (task, id) => said.get(task)?.get(id));
      runs.push({ compression, measured });
    }
    const perplexities = runs.map(({ measured }) => measured.perplexity);
    const mean = average(perplexities);
    return {
      method: compressor.name,
      setting,
      achievedSparsity: average(runs.map(({ compression }) => compression.sparsity)),
      bitsPerWeight: average(runs.map(({ compression }) => compression.bitsPerWeight)),
      perplexity: mean,
      perplexityStd: deviation(perplexities),
      perplexityRise: mean / dense.perplexity - 1,
      runs: runs.length,
      scores: this.#scores((task, metric) => {
        const results = runs.map(({ measured }) => measured.results[task.name]!);
        return this.#rowScore(task, metric, results, denseScores[scoreKey(task, metric)]!);
      }),
    };
  }

  #rowScore(task: KickTask, metric: string, results: readonly (readonly ItemResult[])[], dense: TaskScore): RowScore {
    const values = task.items.map((_, i) =>
      results.map((run) => run[i]!.values[metric] ?? null).filter((value) => value !== null),
    );
    const means = values.map((known) => (known.length > 0 ? average(known) : null));
    const known = means.filter((value) => value !== null);
    const excluded = values.reduce((sum, of) => sum + results.length - of.length, 0);
    if (known.length === 0)
      return { mean: null, std: 0, ci95: null, drop: null, matching: false, excluded, groups: {} };
    const { value, low, high } = bootstrap(
      known.map((total) => ({ total, weight: 1 })),
      { seed: this.#seed },
    );
    const byRun = results.map((run) => scoreOf(task.items, run, metric).value).filter((score) => score !== null);
    const drop = dropOf(dense.value, value);
    const merged = means.map((mean) => ({ values: { [metric]: mean }, output: "" }));
    return {
      mean: value,
      std: deviation(byRun),
      ci95: [low, high],
      drop,
      matching: drop !== null && drop <= this.#eps,
      excluded,
      groups: scoreOf(task.items, merged, metric).groups,
    };
  }

  async #compress(compressor: Compressor, setting: KickSetting, seed: number) {
    const { calibration, device, threads, signal } = this.#options;
    const options = { seed, ...(device && { device }), ...(threads && { threads }), ...(signal && { signal }) };
    const plan = planFor(this.#dense.config, { layers: compressor.method(setting) });
    const windows = calibrationWindows(calibration.tokens, { ...calibration, seed });
    const { weights, reports } = await compressDecoder(memorySource(this.#dense), plan, windows, options);
    return { weights, compression: await compressionOf(weights, reports, options) };
  }

  /** Perplexity and all tasks' results of a model, which is made and opened only for what is not kept. */
  async #measure(
    key: string,
    model: KickModel | (() => Promise<KickModel>),
    dense: (task: string, id: string) => string | undefined,
  ): Promise<Measured> {
    const { text, device, threads, signal, judging, onProgress } = this.#options;
    const options = { ...(device && { device }), ...(threads && { threads }) };
    const reader = new Later(async () =>
      DecoderReader.open(typeof model === "function" ? await model() : model, options),
    );
    const tell = (task: string | null): void =>
      onProgress?.({ model: key, done: this.#done, total: this.#total, task });
    try {
      tell(null);
      const nats = await this.#kept(`${key}, perplexity`, async () => {
        const { scorer } = await reader.value;
        const window = text.window ?? scorer.maxLength;
        return (await perplexity(scorer, text.tokens, { window })).perplexity;
      });
      const results: Record<string, ItemResult[]> = {};
      for (const task of this.#tasks) {
        tell(task.name);
        const context: TaskContext = { judging, dense: (id) => dense(task.name, id), seed: this.#seed, signal };
        const own: ItemResult[] = [];
        for (let first = 0; first < task.items.length; first += GROUP) {
          const group: readonly KickItem[] = task.items.slice(first, first + GROUP);
          own.push(
            ...(await this.#kept(`${key}, ${task.name}, items from ${first} to ${first + group.length}`, async () =>
              task.run(await reader.value, group, context),
            )),
          );
        }
        results[task.name] = own;
      }
      this.#done++;
      return { perplexity: nats, results };
    } finally {
      await reader.dispose();
    }
  }

  /** What the store has under `key`, else what `make` gives, which it then has. */
  async #kept<T>(key: string, make: () => Promise<T>): Promise<T> {
    const { store, signal } = this.#options;
    const known = store?.get(key);
    if (known !== undefined) return known as T;
    signal?.throwIfAborted();
    const made = await make();
    // What was cut short by the signal is no result.
    signal?.throwIfAborted();
    await store?.put(key, made);
    return made;
  }
}

/** Something that is made when it is first asked for. */
class Later<T> {
  readonly #make: () => Promise<T>;
  #value: Promise<T> | undefined;

  constructor(make: () => Promise<T>) {
    this.#make = make;
  }

  get value(): Promise<T> {
    return (this.#value ??= this.#make());
  }

  async dispose(this: Later<AsyncDisposable>): Promise<void> {
    const value = await this.#value?.catch(() => undefined);
    await value?.[Symbol.asyncDispose]();
  }
}

async function compressionOf(
  weights: Readonly<Record<string, Weight | HostTensor>>,
  reports: readonly MatrixReport[],
  device: DeviceOptions,
): Promise<Compression> {
  let [zeros, entries, bits] = [0, 0, 0];
  const notes = new Set<string>();
  for (const { name, shape, bitsPerWeight, notes: own } of reports) {
    const { data } = await denseValues(asWeight(weights[name]!), device);
    for (let i = 0; i < data.length; i++) if (data[i] === 0) zeros++;
    entries += data.length;
    bits += bitsPerWeight * shape[0] * shape[1];
    for (const note of own) notes.add(note);
  }
  return { sparsity: zeros / entries, bitsPerWeight: bits / entries, notes: [...notes] };
}

const average = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;

/** The sample's deviation; 0 of a single value. */
function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const mean = average(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (values.length - 1));
}
