import {
  type DecoderConfig,
  decoderBlock,
  decoderShapes,
  embedTokens,
  finalNorm,
  headLogits,
  matrixInput,
  type Weights,
} from "../../models/index.ts";
import { asWeight, Dense, distillation } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, type HostTensor, isHostTensor, Rng, spec, type Tensor } from "../../tensor/index.ts";
import { HiddenStates } from "./hidden.ts";
import type { Choice, Item } from "./knapsack.ts";
import { rowOf } from "./loss.ts";
import type { MatrixMethod } from "./method.ts";
import { denseValues } from "./report.ts";
import type { InputStatistics } from "./statistics.ts";

/** A method for a matrix with what it was measured to do; null is the matrix as it is. */
export interface MeasuredChoice extends Choice {
  readonly method: MatrixMethod | null;
  /** The method's remarks. */
  readonly notes: readonly string[];
}

export interface SensitivityOptions extends DeviceOptions {
  /** Which matrices; default: all. */
  readonly include?: (name: string) => boolean;
  readonly seed?: number;
  readonly onProgress?: (name: string, choice: MeasuredChoice) => void;
  readonly signal?: AbortSignal;
}

const EMBEDDING = "model.embed_tokens.weight";

/**
 * What each matrix costs under each candidate, everything else left as it is: the mean Kullback-Leibler divergence of the
 * model's next-token distributions from the original's, in nats per token. For small changes these add up over matrices,
 * and come to the increase of the loss. `knapsack` chooses under a budget from what this returns.
 *
 * The whole model is held in memory. A matrix that a candidate cannot calibrate on (an embedding that is no head) is
 * measured without that candidate.
 * @param windows `i64 [windows, seq]`
 */
export async function sensitivity(
  model: { readonly config: DecoderConfig; readonly weights: Weights },
  windows: HostTensor,
  candidates: readonly (MatrixMethod | null)[],
  options: SensitivityOptions = {},
): Promise<Item<MeasuredChoice>[]> {
  const { config } = model;
  const weights = await densified(model.weights, options);
  const shape = windows.shape as readonly [number, number];
  const [walk, ahead] = [0, 1].map(() => new HiddenStates(config, shape, options)) as [HiddenStates, HiddenStates];
  const wanted = [...decoderShapes(config)]
    .filter(([name, dims]) => dims.length === 2 && (options.include?.(name) ?? true))
    .map(([name]) => name);
  const items: Item<MeasuredChoice>[] = [];
  try {
    await ahead.embed(asWeight(weights[EMBEDDING]!), windows);
    for (let i = 0; i < config.layers; i++) await ahead.advance(i, weights);
    const final = await ahead.finalStatistics(weights["model.norm.weight"] as HostTensor);
    const measureFrom = async (
      from: number,
      names: readonly string[],
      inputs: ReadonlyMap<string, InputStatistics>,
    ) => {
      if (names.length === 0) return;
      const start = from === 0 ? windows : walk.values;
      await using divergence = await suffixDivergence(config, weights, from, start, ahead.values, options);
      for (const name of names)
        items.push(await measured(name, weights, candidates, inputs.get(name) ?? null, divergence.of, options));
    };
    const embedded: [string, InputStatistics][] = config.tied ? [[EMBEDDING, final]] : [];
    await measureFrom(
      0,
      wanted.filter((name) => name === EMBEDDING),
      new Map(embedded),
    );
    await walk.embed(asWeight(weights[EMBEDDING]!), windows);
    for (let i = 0; i < config.layers; i++) {
      const names = wanted.filter((name) => name.startsWith(`model.layers.${i}.`));
      const points = new Map(names.map((name) => [matrixInput(name), widthOf(weights, name)]));
      const found = points.size > 0 ? await walk.statistics(i, weights, points) : new Map<string, InputStatistics>();
      await measureFrom(i + 1, names, new Map(names.map((name) => [name, found.get(matrixInput(name))!])));
      await walk.advance(i, weights);
    }
    await measureFrom(
      config.layers + 1,
      wanted.filter((name) => name === "lm_head.weight"),
      new Map([["lm_head.weight", final]]),
    );
  } finally {
    await walk[Symbol.asyncDispose]();
    await ahead[Symbol.asyncDispose]();
  }
  return items;
}

type DenseWeights = Record<string, Dense | HostTensor>;

async function densified(weights: Weights, device: DeviceOptions): Promise<DenseWeights> {
  const result: DenseWeights = {};
  for (const [name, weight] of Object.entries(weights)) {
    if (isHostTensor(weight) && weight.shape.length === 1) result[name] = weight;
    else result[name] = new Dense(await denseValues(asWeight(weight), device));
  }
  return result;
}

const widthOf = (weights: DenseWeights, name: string): number => weights[name]!.shape[1] as number;

async function measured(
  name: string,
  weights: DenseWeights,
  candidates: readonly (MatrixMethod | null)[],
  inputs: InputStatistics | null,
  divergence: (weights: DenseWeights) => Promise<number>,
  options: SensitivityOptions,
): Promise<Item<MeasuredChoice>> {
  const before = weights[name] as Dense;
  const choices: MeasuredChoice[] = [];
  for (const method of candidates) {
    options.signal?.throwIfAborted();
    if (method?.calibrated && !inputs) continue;
    const notes: string[] = [];
    let choice: MeasuredChoice = { method, bytes: before.bytes, cost: 0, notes };
    if (method) {
      const weight = await method.compress({
        name,
        weight: before.values as HostTensor,
        inputs,
        rng: new Rng(options.seed ?? 0).fork(name),
        device: options,
        note: (remark) => notes.push(remark),
      });
      const changed = { ...weights, [name]: new Dense(await denseValues(weight, options)) };
      choice = { method, bytes: weight.bytes, cost: await divergence(changed), notes };
    }
    choices.push(choice);
    options.onProgress?.(name, choice);
  }
  if (choices.length === 0)
    throw new ArgumentError(`none of the candidates can compress "${name}"; leave it out, or add one that can`);
  return { name, choices };
}

/**
 * The divergence that changed weights cause when all before stretch `from` (0 is the embedding, then the layers, then the
 * head) is as it was.
 * @param start what that stretch begins with: windows of tokens, or the residual stream
 * @param end the original's residual stream behind the last layer
 */
async function suffixDivergence(
  config: DecoderConfig,
  original: DenseWeights,
  from: number,
  start: HostTensor,
  end: HostTensor,
  device: DeviceOptions,
): Promise<{ of(weights: DenseWeights): Promise<number> } & AsyncDisposable> {
  const headName = config.tied ? EMBEDDING : "lm_head.weight";
  const isUsed = (name: string): boolean => {
    const layer = /^model\.layers\.(\d+)\./.exec(name);
    return layer ? Number(layer[1]) >= from - 1 : from === 0 || name !== EMBEDDING || config.tied;
  };
  const used = (weights: DenseWeights): DenseWeights =>
    Object.fromEntries(Object.entries(weights).filter(([name]) => isUsed(name)));
  const ending = (weights: DenseWeights): DenseWeights => ({
    [headName]: weights[headName]!,
    "model.norm.weight": weights["model.norm.weight"]!,
  });
  const logits = (weights: Weights, hidden: Tensor): Tensor =>
    headLogits(config, weights, finalNorm(config, weights, hidden));
  const program = await compile(
    (weights, reference, begin, target) => {
      const bag = weights as Weights;
      let hidden = from === 0 ? embedTokens(config, bag, begin) : begin;
      for (let i = Math.max(0, from - 1); i < config.layers; i++) hidden = decoderBlock(config, bag, i, hidden);
      return distillation(logits(bag, hidden), logits(reference as Weights, target));
    },
    [
      used(original),
      ending(original),
      spec(start.dtype, [1, ...start.shape.slice(1)]),
      spec("f32", [1, ...end.shape.slice(1)]),
    ] as const,
    device,
  );
  return {
    async of(weights) {
      let total = 0;
      for (let row = 0; row < start.shape[0]!; row++)
        total += (
          await program(used(weights) as never, ending(original) as never, rowOf(start, row), rowOf(end, row))
        ).item();
      return total / start.shape[0]!;
    },
    [Symbol.asyncDispose]: () => program.dispose(),
  };
}
