import {
  type LevelBits,
  levelCount,
  type ProxKind,
  packQuantized,
  parq,
  type QuantGroup,
} from "../../methods/index.ts";
import { Dense, distinctLevels, optim, type Weight } from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import { HostTensor, type Leaf } from "../../tensor/index.ts";
import { throughFile } from "../through-file.ts";

export type Bag = Readonly<Record<string, Weight | Leaf>>;

/** A model that is trained with and without quantization. */
export interface Task {
  /** Steps of a run. */
  readonly steps: number;
  readonly rate: number;
  /** Whether a parameter, by its path, is quantized. */
  readonly quantized: (path: string) => boolean;
  /** What it starts from, with and without quantization. */
  readonly start: Bag;
  /** @returns the trained weights, and the loss of each step */
  train(optimizer: optim.Optimizer, what: string): Promise<{ weights: Bag; losses: readonly number[] }>;
  /** How good a model is, larger being better. */
  score(weights: Bag): Promise<number>;
}

export interface Trained {
  /** Of the model in the exported file. */
  readonly score: number;
  readonly losses: readonly number[];
  /** Most different values in a row of a quantized matrix of the file. */
  readonly distinct: number;
}

const base = (): optim.Optimizer => optim.adamw({ weightDecay: 0 });

/** Trains in full precision. */
export async function plainRun(task: Task): Promise<{ weights: Bag; score: number; losses: readonly number[] }> {
  const { weights, losses } = await task.train(base(), "full precision");
  return { weights, losses, score: await task.score(weights) };
}

const groupFor = (task: Task, bits: LevelBits): QuantGroup => ({
  match: (path, shape) => shape.length >= 2 && task.quantized(path),
  bits,
  levels: bits <= 2 ? "lsbq-optimal" : "lsbq",
});

/** Trains with a map between latent and quantized weights, exports, and judges what is read from the file. */
export async function quantizedRun(
  task: Task,
  bits: LevelBits,
  prox: ProxKind,
  { steepness = 15 }: { steepness?: number } = {},
): Promise<Trained> {
  const group = groupFor(task, bits);
  const rule = parq(base(), [group], { prox, annealEnd: Math.round(0.8 * task.steps), steepness });
  const { weights, losses } = await task.train(rule, `${prox}, ${bits === 0 ? "ternary" : `${bits} bits`}`);
  return { losses, ...(await fromFile(task, weights, group)) };
}

/** A trained model rounded to 1 bit of each row, in squared error the best that can be done without training. */
export async function roundedScore(task: Task, weights: Bag): Promise<number> {
  const group = groupFor(task, 1);
  const rounded: Record<string, Weight | Leaf> = { ...weights };
  for (const [name, weight] of Object.entries(weights)) {
    const leaf = weight instanceof Dense ? weight.values : weight;
    if (!(leaf instanceof HostTensor) || !group.match(weight instanceof Dense ? `${name}.values` : name, leaf.shape))
      continue;
    const width = leaf.size / leaf.shape[0]!;
    const result = leaf.clone();
    for (let r = 0; r < leaf.shape[0]!; r++) {
      const row = (leaf.data as Float32Array).subarray(r * width, (r + 1) * width);
      const size = row.reduce((sum, x) => sum + Math.abs(x), 0) / width;
      row.forEach((x, i) => {
        result.set(r * width + i, x < 0 ? -size : size);
      });
    }
    rounded[name] = weight instanceof Dense ? new Dense(result) : result;
  }
  return (await fromFile(task, rounded, group)).score;
}

async function fromFile(task: Task, weights: Bag, group: QuantGroup): Promise<{ score: number; distinct: number }> {
  const { weights: read } = await throughFile(packQuantized(weights, [group]));
  let distinct = 0;
  for (const [name, weight] of Object.entries(read)) {
    if (weight instanceof HostTensor || weight instanceof Dense || !(name in weights)) continue;
    await using program = await compile(() => weight.dense(), []);
    const sets = distinctLevels(await program(), { levels: levelCount(4), sets: weight.shape[0] });
    distinct = Math.max(distinct, ...sets.map((set) => set.length));
  }
  return { score: await task.score(read), distinct };
}

/** Mean distance of two curves of losses over the first fifth of the steps. */
export function earlyDistance(a: readonly number[], b: readonly number[]): number {
  const count = Math.ceil(a.length / 5);
  return a.slice(0, count).reduce((sum, x, i) => sum + Math.abs(x - b[i]!), 0) / count;
}

/** Mean loss over the last twentieth of the steps. */
export function endOf(losses: readonly number[]): number {
  const last = losses.slice(-Math.ceil(losses.length / 20));
  return last.reduce((sum, x) => sum + x, 0) / last.length;
}
