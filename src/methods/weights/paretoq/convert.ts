import { isLayerMatrix, type Weights } from "../../../models/index.ts";
import {
  asWeight,
  elasticBinarization,
  FakeQuantized,
  fakeQuantized,
  LEAST_SCALE,
  learnedStep,
  packedWeights,
  rowScaleRounding,
  stretchedElastic,
  type TernaryGradient,
  type Weight,
  type WeightRounding,
} from "../../../nn/index.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import { ArgumentError, formatShape, type HostTensor, isHostTensor, type Leaf } from "../../../tensor/index.ts";

/** Bits of a weight; 1.58 is ternary. */
export type ParetoBits = 1 | 1.58 | 2 | 3 | 4;

/**
 * The rounding that ParetoQ uses at these bits: elastic binarization at 1, stretched elastic quantization at 1.58 and 2,
 * learned steps at 3 and 4.
 * @throws ArgumentError for other bits
 */
export function paretoqRounding(bits: ParetoBits, gradient: TernaryGradient = "reference"): WeightRounding {
  switch (bits) {
    case 1:
      return rowScaleRounding(elasticBinarization);
    case 1.58:
      return rowScaleRounding(stretchedElastic(3, gradient));
    case 2:
      return rowScaleRounding(stretchedElastic(4));
    case 3:
    case 4:
      return rowScaleRounding(learnedStep(bits));
    default:
      throw new ArgumentError(`ParetoQ supports 1, 1.58, 2, 3, 4 bits, not ${bits as number}`);
  }
}

export interface ParetoqOptions {
  /** Of all matrices, or by name; with names, matrices that are not named stay as they are. */
  readonly bits: ParetoBits | Readonly<Record<string, ParetoBits>>;
  /** Matrices that stay as they are. */
  readonly skip?: RegExp;
  readonly ternaryGrad?: TernaryGradient;
}

/**
 * A decoder's weights ready to be trained in few bits (Liu et al. 2025): every matrix of its layers rounded forward, with
 * a learned scale for each row beside it. Train the result with the ordinary loss, then `paretoqPack` it.
 * @throws ArgumentError for bits that are not supported, for names that are no matrices, and for weights that have been
 *   converted already
 */
export async function paretoqConvert(
  weights: Weights,
  { bits, skip, ternaryGrad }: ParetoqOptions,
  device: DeviceOptions = {},
): Promise<Record<string, Weight | Leaf>> {
  const done = Object.keys(weights).find((name) => weights[name] instanceof FakeQuantized);
  if (done !== undefined)
    throw new ArgumentError(`"${done}" is in training for few bits already; convert the full-precision model`);
  const named = typeof bits === "object" ? bits : undefined;
  for (const name of Object.keys(named ?? {})) {
    const weight = weights[name];
    if (!weight) throw new ArgumentError(`there is no weight "${name}" to give bits to`);
    if (weight.shape.length !== 2)
      throw new ArgumentError(`"${name}" is ${formatShape(weight.shape)}; only matrices [out, in] are rounded`);
  }
  const roundings = new Map(
    [...new Set(named ? Object.values(named) : [bits as ParetoBits])].map((b) => [b, paretoqRounding(b, ternaryGrad)]),
  );
  const bitsOf = (name: string): ParetoBits | undefined => {
    if (skip?.test(name)) return undefined;
    if (named) return named[name];
    return isLayerMatrix(name) ? (bits as ParetoBits) : undefined;
  };
  return fakeQuantized(
    weights,
    (name) => {
      const mine = bitsOf(name);
      return mine === undefined ? null : { weight: roundings.get(mine)! };
    },
    device,
  );
}

/** The trained weights as codes and a scale for each row, which native products run on. */
export function paretoqPack(weights: Weights, device: DeviceOptions = {}): Promise<Record<string, Weight | Leaf>> {
  return packedWeights(weights, device);
}

/** How many rows of a converted model have a scale that training drove to the floor, or below zero, by matrix. */
export function flooredScales(weights: Weights): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [name, weight] of Object.entries(weights)) {
    if (!(weight instanceof FakeQuantized)) continue;
    const scale = weight.learned.scale;
    if (!scale || !isHostTensor(scale)) continue;
    const rows = scale.toArray().filter((s) => s <= LEAST_SCALE).length;
    if (rows > 0) found[name] = rows;
  }
  return found;
}

const SCALE = "weight_clip_val";

/** A converted model as plain tensors under the names that the authors' program uses: `X.weight`, `X.weight_clip_val [out, 1]`. */
export function toParetoqCheckpoint(weights: Weights): Record<string, HostTensor> {
  const tensors: Record<string, HostTensor> = {};
  const put = (name: string, leaf: Leaf): void => {
    if (!isHostTensor(leaf)) throw new ArgumentError(`"${name}" is symbolic; only host tensors can be saved`);
    tensors[name] = leaf;
  };
  for (const [name, weight] of Object.entries(weights)) {
    if (weight instanceof FakeQuantized) {
      put(name, weight.latent);
      const scale = weight.learned.scale as HostTensor;
      put(name.replace(/weight$/, SCALE), scale.reshape([scale.size, 1]));
    } else if ("kind" in weight) {
      if (!("values" in weight))
        throw new ArgumentError(`"${name}" is ${weight.kind}; a checkpoint holds plain tensors`);
      put(name, weight.values as Leaf);
    } else put(name, weight);
  }
  return tensors;
}

/**
 * A converted model out of such tensors.
 * @throws ArgumentError for a matrix that comes without its scales, and for scales that do not fit it
 */
export async function fromParetoqCheckpoint(
  tensors: Readonly<Record<string, HostTensor>>,
  options: ParetoqOptions,
): Promise<Record<string, Weight | Leaf>> {
  const isScale = (name: string): boolean => name.endsWith(`.${SCALE}`);
  const plain = Object.fromEntries(Object.entries(tensors).filter(([name]) => !isScale(name)));
  const converted = await paretoqConvert(plain, options);
  return Object.fromEntries(
    Object.entries(converted).map(([name, weight]) => {
      if (!(weight instanceof FakeQuantized)) return [name, weight];
      const scale = tensors[name.replace(/weight$/, SCALE)];
      if (!scale)
        throw new ArgumentError(
          `the checkpoint has "${name}" without its scales "${name.replace(/weight$/, SCALE)}": a quantized model cannot be opened without them`,
        );
      const [rows] = weight.shape;
      if (scale.size !== rows)
        throw new ArgumentError(`"${name}" has ${rows} rows, but scales of ${formatShape(scale.shape)}`);
      return [name, new FakeQuantized(weight.latent, { scale: scale.cast("f32").reshape([rows]) }, weight.how)];
    }),
  );
}

/** The matrix that a weight trains or holds densely, on the host; undefined for other representations. */
export function latentOf(weight: Weight | Leaf): HostTensor | undefined {
  if (weight instanceof FakeQuantized) return isHostTensor(weight.latent) ? weight.latent : undefined;
  const values = "kind" in weight ? (asWeight(weight) as { values?: unknown }).values : weight;
  return isHostTensor(values) ? values : undefined;
}
