import { isLayerMatrix, type Weights } from "../models/index.ts";
import { asWeight, Dense, LowRank, SumWeight, TransformedWeight, type Weight } from "../nn/index.ts";
import { compile, type DeviceOptions } from "../runtime/index.ts";
import { ArgumentError, HostTensor, type Leaf, type Rng } from "../tensor/index.ts";

export interface LoraOptions {
  /** Rows of the thin matrices. */
  readonly rank: number;
  /** The change is multiplied by `alpha / rank`. Default: twice the rank. */
  readonly alpha?: number;
  /** Names of the matrices that get an adapter. Default: those of the layers. */
  readonly targets?: (name: string) => boolean;
  readonly rng: Rng;
}

/** Paths of adapters inside of a matrix that has one. */
const ADAPTER = /\.weight(?:\.inner)?\.1\.(up|down)\.values$/;

/**
 * A model's weights with a low-rank adapter on each target, `W + alpha / rank * B A` with `A [rank, in]` random and
 * `B [out, rank]` zero, so that the model computes what it did (Hu et al. 2022, arXiv:2106.09685). The matrices below
 * may be in any representation: on packed blocks this is QLoRA. Where a matrix has its input turned or scaled first, so has
 * the adapter. Train them with `trainable: isLora`.
 * @throws ArgumentError for a rank that is none, or where no matrix is a target
 */
export function withLora(
  weights: Weights,
  { rank, alpha = 2 * rank, targets = isLayerMatrix, rng }: LoraOptions,
): Record<string, Weight | Leaf> {
  if (!Number.isInteger(rank) || rank < 1)
    throw new ArgumentError(`the rank of an adapter is a whole number from 1, not ${rank}`);
  let adapters = 0;
  const result = Object.fromEntries(
    Object.entries(weights).map(([name, value]) => {
      if (value.shape.length !== 2 || !targets(name)) return [name, value];
      adapters++;
      const whole = asWeight(value);
      const [out, width] = whole.shape;
      const down = rng.fork(name).normalTensor([rank, width], { std: 1 / Math.sqrt(width) });
      const change = new LowRank(new Dense(HostTensor.zeros("f32", [out, rank])), new Dense(down));
      const adapted = (inner: Weight): Weight =>
        new SumWeight([{ weight: inner }, { weight: change, scale: alpha / rank }]);
      return [name, whole instanceof TransformedWeight ? whole.around(adapted(whole.inner)) : adapted(whole)];
    }),
  );
  if (adapters === 0) throw new ArgumentError("no matrix of the model is a target of the adapter");
  return result;
}

/** Whether the parameter at that path belongs to an adapter: what `train` is to change. */
export const isLora = (path: string): boolean => ADAPTER.test(path);

/** The weights with every adapter added to the matrix that it stands on, which is dense then. */
export async function mergeLora(weights: Weights, device: DeviceOptions = {}): Promise<Record<string, Weight | Leaf>> {
  const result: Record<string, Weight | Leaf> = {};
  for (const [name, value] of Object.entries(weights)) {
    result[name] = value;
    const sum = value instanceof TransformedWeight ? value.inner : value;
    if (!(sum instanceof SumWeight && sum.terms[1]?.weight instanceof LowRank)) continue;
    await using program = await compile(() => sum.dense(), [], device);
    const merged = new Dense(await program());
    result[name] = value instanceof TransformedWeight ? value.around(merged) : merged;
  }
  return result;
}
