import { isLayerMatrix, type Weights } from "../../../models/index.ts";
import {
  type FakeQuantization,
  fakeQuantized,
  gaussianScale,
  packedWeights,
  unrounded,
  type Weight,
} from "../../../nn/index.ts";
import type { DeviceOptions } from "../../../runtime/index.ts";
import { ArgumentError, type Leaf } from "../../../tensor/index.ts";
import { type TrustOptions, trustInputRounding, trustRounding } from "./trust.ts";

/** Bits of weights or inputs: 1.585 is three levels, 16 leaves them as they are. */
export type QuestBits = 1 | 1.585 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 16;

export interface QuestOptions extends Omit<TrustOptions, "bits"> {
  readonly weightBits: QuestBits;
  readonly inputBits: QuestBits;
  /** Turns weights and inputs by Hadamard transforms before they are rounded. Default true. */
  readonly hadamard?: boolean;
  /** Input channels that are turned together, a power of two. Default: the largest up to 128 that divides the width. */
  readonly block?: number;
}

/**
 * How QuEST trains a matrix with `width` inputs: both are turned by the same Hadamard transform, rounded to Gaussian
 * grids, and get gradients through what is trusted (Panferov et al. 2025, arXiv:2502.05003, Algorithm 1). Null where
 * neither has fewer than 16 bits.
 * @throws ArgumentError for widths that cannot be turned, and bits without a Gaussian scale
 */
export function questQuantization(width: number, options: QuestOptions): FakeQuantization | null {
  const { weightBits, inputBits, hadamard = true, block, sparsity, ...how } = options;
  for (const bits of [weightBits, inputBits]) if (bits !== 16) gaussianScale(bits);
  if (weightBits === 16 && inputBits === 16) return null;
  return {
    weight: weightBits === 16 ? unrounded : trustRounding({ ...how, ...(sparsity && { sparsity }), bits: weightBits }),
    ...(inputBits !== 16 && { input: trustInputRounding({ ...how, bits: inputBits }) }),
    ...(hadamard && { hadamard: turnedBlock(width, block) }),
  };
}

/** Longest block that is turned where none is asked for. */
const LONGEST = 128;

function turnedBlock(width: number, wanted: number | undefined): number {
  let largest = 1;
  while (width % (2 * largest) === 0) largest *= 2;
  if (largest === 1)
    throw new ArgumentError(
      `QuEST turns inputs in blocks of a power of two, which a width of ${width} is not made of; choose an even width, or hadamard: false`,
    );
  if (wanted === undefined) return Math.min(largest, LONGEST);
  if (!Number.isInteger(Math.log2(wanted)))
    throw new ArgumentError(`QuEST turns inputs in blocks of a power of two, not of ${wanted}`);
  if (width % wanted !== 0)
    throw new ArgumentError(
      `QuEST needs the input width to be a multiple of ${wanted}, not ${width}; choose block <= ${largest}`,
    );
  return wanted;
}

/**
 * A decoder's weights, from scratch or trained, with all matrices of its layers in training for few bits; embedding,
 * norms and head stay as they are. `train` goes on from here as from any weights.
 * @param skip names that stay as they are
 * @throws ArgumentError naming the matrix that cannot be trained so
 */
export function questWeights(
  weights: Weights,
  { skip, ...options }: QuestOptions & { readonly skip?: RegExp },
  device: DeviceOptions = {},
): Promise<Record<string, Weight | Leaf>> {
  const choose = (name: string, { shape }: Weight): FakeQuantization | null => {
    if (!isLayerMatrix(name) || skip?.test(name)) return null;
    try {
      return questQuantization(shape[1], options);
    } catch (cause) {
      if (!(cause instanceof ArgumentError)) throw cause;
      throw new ArgumentError(`"${name}": ${cause.message}`, { cause });
    }
  };
  return fakeQuantized(weights, choose, device);
}

/**
 * A model trained with QuEST in few bits: codes and one scale for each row, in the turned basis, behind the rounding of
 * inputs that it was trained with.
 */
export function questPack(weights: Weights, device: DeviceOptions = {}): Promise<Record<string, Weight | Leaf>> {
  return packedWeights(weights, device);
}
