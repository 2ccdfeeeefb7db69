import { isLayerMatrix, type Weights } from "../../../models/index.ts";
import { asWeight, Dense } from "../../../nn/index.ts";
import { ArgumentError, type HostTensor, isHostTensor, type Rng } from "../../../tensor/index.ts";
import { type BitMask, randomMask } from "./bit-mask.ts";
import { lowMagnitudeMask, principalMask, type Rank, safeMask } from "./spectrum.ts";

/**
 * Which entries training is held to: small or not principal ones (`safe`), those that carry the principal part
 * (`principal`), small ones (`low`), or as many as there are safe ones, at random.
 */
export const maskKinds = ["safe", "principal", "low", "random"] as const;
export type MaskKind = (typeof maskKinds)[number];

export interface TrainingMaskOptions {
  readonly kind: MaskKind;
  /** Share of a matrix's entries that count as principal, and as small. Default 0.5. */
  readonly share?: number;
  /** Rank of the principal part. Default `energy50`. */
  readonly rank?: Rank;
  /** Of random masks. */
  readonly rng: Rng;
  readonly signal?: AbortSignal;
}

/** The dense matrices of the layers by name. @throws ArgumentError for one that is packed */
export function layerMatrices(weights: Weights): Map<string, HostTensor> {
  const matrices = Object.keys(weights).filter(isLayerMatrix);
  return new Map(
    matrices.map((name) => {
      const weight = asWeight(weights[name]!);
      if (!(weight instanceof Dense && isHostTensor(weight.values)))
        throw new ArgumentError(
          `"${name}" is represented as ${weight.kind}; only dense weights have entries to choose`,
        );
      return [name, weight.values];
    }),
  );
}

/**
 * Masks for all matrices of the layers (Zhu et al. 2025, section 5), which sparse training leaves as they are elsewhere.
 * @param onMatrix told how many are done
 * @throws ArgumentError for packed weights, a share or a rank out of range; the signal's reason when stopped
 */
export async function trainingMasks(
  weights: Weights,
  { kind, share = 0.5, rank = "energy50", rng, signal }: TrainingMaskOptions,
  onMatrix?: (done: number, count: number) => void,
): Promise<Map<string, BitMask>> {
  const matrices = layerMatrices(weights);
  const masks = new Map<string, BitMask>();
  for (const [name, matrix] of matrices) {
    signal?.throwIfAborted();
    masks.set(name, await maskOf(matrix, kind, rank, share, rng.fork(name)));
    onMatrix?.(masks.size, matrices.size);
  }
  return masks;
}

async function maskOf(matrix: HostTensor, kind: MaskKind, rank: Rank, share: number, rng: Rng): Promise<BitMask> {
  switch (kind) {
    case "low":
      return lowMagnitudeMask(matrix, share);
    case "principal":
      return principalMask(matrix, rank, share);
    case "safe":
      return safeMask(matrix, rank, share);
    case "random": {
      const { rows, cols, count } = await safeMask(matrix, rank, share);
      return randomMask(rows, cols, count, rng);
    }
  }
}

/** Masks of matrices as the trainer takes them, by path in the tree of weights. */
export function masksByPath(masks: ReadonlyMap<string, BitMask>): Record<string, HostTensor> {
  return Object.fromEntries(Array.from(masks, ([name, mask]) => [`${name}.values`, mask.toTensor()]));
}
