import { ArgumentError, Rng } from "../../../tensor/index.ts";
import type { Piece, TensorPieces } from "./pieces.ts";

/**
 * Writes the merged values of a piece's entries, in double precision so that they are rounded once. It is given zeros, in
 * an array of the pieces' workspace.
 */
export type PieceMerger = (piece: Piece, merged: Float64Array) => void;

/** How the changes of several models come together in one tensor. */
export interface MergeRule {
  readonly name: string;
  /** What else than weights its results depend on. */
  readonly settings: Readonly<Record<string, number>>;
  /** Refuses weights of the changes that it can do nothing with. @throws ArgumentError */
  check(weights: readonly number[]): void;
  /**
   * Looks at one tensor as a whole and returns what merges its pieces. That is called once for each of them, in order.
   * @param weights of the changes
   * @param name the tensor's, which random numbers may depend on
   */
  prepare(tensor: TensorPieces, weights: readonly number[], name: string): PieceMerger | Promise<PieceMerger>;
}

/**
 * `start + sum of weight * (after - before)`: task arithmetic (Ilharco et al. 2023, arXiv:2212.04089) where all changes
 * are from `start`, and ParamDelta (Cao et al. 2025, arXiv:2504.21023) where `start` is a newer base than theirs.
 * Entries that nothing changes keep their bits.
 */
export const addition: MergeRule = {
  name: "addition",
  settings: {},
  check() {},
  prepare:
    ({ workspace }, weights) =>
    ({ count, start, changes }, merged) => {
      for (const [k, { delta }] of changes.entries()) workspace.subtractScaled(merged, weights[k]!, delta, count);
      // Zeros that were only subtracted from are never -0, so that a start of -0 stays as it is.
      workspace.subtractFrom(start, merged, count);
    },
};

export interface TiesOptions {
  /** Share of each change's entries that are kept, those of largest magnitude. The paper's k. Default 0.2. */
  readonly density?: number;
  /** What the merged change is multiplied with. The paper's lambda. Default 1. */
  readonly scale?: number;
}

/**
 * TIES (Yadav et al. 2023, arXiv:2306.01708): each change is trimmed to its largest entries, each entry elects the sign
 * that has the greater sum, and only changes of that sign are averaged. Entries whose sum is 0 stay as they are.
 * Weights count in the election and in the average, so only their ratios matter. Of equal magnitudes at the edge of
 * the trimming, all are kept.
 * @throws ArgumentError for a density outside of (0, 1] or a scale that is not finite
 */
export function ties({ density = 0.2, scale = 1 }: TiesOptions = {}): MergeRule {
  checkDensity(density);
  if (!Number.isFinite(scale)) throw new ArgumentError(`the scale of a TIES merge must be finite, not ${scale}`);
  return {
    name: "ties",
    settings: { density, scale },
    check(weights) {
      const bad = weights.find((weight) => !(weight > 0));
      if (bad !== undefined) throw new ArgumentError(`TIES averages with weights above 0, not ${bad}`);
    },
    async prepare(tensor, weights) {
      const floors = await trimmingFloors(tensor, weights.length, density);
      const [elected, total] = [new Float64Array(tensor.pieceLength), new Float64Array(tensor.pieceLength)];
      return ({ count, start, changes }, merged) => {
        elected.fill(0);
        total.fill(0);
        for (const [k, { delta }] of changes.entries()) {
          trim(delta, floors[k]!);
          for (let i = 0; i < count; i++) elected[i]! += weights[k]! * delta[i]!;
        }
        for (const [k, { delta }] of changes.entries()) {
          const weight = weights[k]!;
          for (let i = 0; i < count; i++) {
            if (delta[i]! * elected[i]! <= 0) continue;
            merged[i]! += weight * delta[i]!;
            total[i]! += weight;
          }
        }
        for (let i = 0; i < count; i++)
          merged[i] = total[i] === 0 ? start[i]! : start[i]! + (scale * merged[i]!) / total[i]!;
      };
    },
  };
}

function trim(delta: Float64Array, floor: number): void {
  for (let i = 0; i < delta.length; i++) if (Math.fround(Math.abs(delta[i]!)) < floor) delta[i] = 0;
}

export interface DareOptions {
  /** Probability that an entry of a change is kept, one minus the paper's p. Default 0.5. */
  readonly density?: number;
  readonly seed?: number;
}

/**
 * DARE (Yu et al. 2024, arXiv:2311.03099): each entry of each change is dropped at random, those kept are divided by the
 * probability of being kept, and the changes are added. The expected result is that of `addition`.
 * @throws ArgumentError for a density outside of (0, 1]
 */
export function dare({ density = 0.5, seed = 0 }: DareOptions = {}): MergeRule {
  checkDensity(density);
  const rng = new Rng(seed);
  const below = density * 2 ** 32;
  return {
    name: "dare",
    settings: { density, seed },
    check() {},
    prepare({ workspace }, weights, name) {
      const draws = weights.map((_, k) => rng.fork(name).fork(k));
      return ({ count, start, changes }, merged) => {
        for (const [k, { delta }] of changes.entries()) {
          const draw = draws[k]!;
          const weight = weights[k]!;
          for (let i = 0; i < count; i++) if (draw.next() < below) merged[i]! -= (weight * delta[i]!) / density;
        }
        workspace.subtractFrom(start, merged, count);
      };
    },
  };
}

/** Below this sine of their angle, two tensors are taken to be parallel. */
const PARALLEL = 1e-4;

/**
 * SLERP (Shoemake 1985): along the arc from `start` to the one changed tensor, both seen as vectors; the weight says how
 * far, from 0 to 1. Parallel tensors are interpolated linearly. At both ends the bits are those of the tensor there.
 */
export const slerp: MergeRule = {
  name: "slerp",
  settings: {},
  check(weights) {
    if (weights.length !== 1) throw new ArgumentError(`SLERP goes from one model to another, not to ${weights.length}`);
    const [t] = weights as [number];
    if (!(t >= 0 && t <= 1)) throw new ArgumentError(`SLERP goes a share of the way, from 0 to 1, not ${t}`);
  },
  async prepare(tensor, weights) {
    const [t] = weights as [number];
    let dot = 0;
    let a = 0;
    let b = 0;
    for await (const block of tensor.blocks())
      for (const { count, start, changes } of block) {
        const { to } = changes[0]!;
        for (let i = 0; i < count; i++) {
          dot += start[i]! * to[i]!;
          a += start[i]! ** 2;
          b += to[i]! ** 2;
        }
      }
    // A tensor of zeros has no direction: it counts as parallel to all.
    const cosine = a * b === 0 ? 1 : Math.max(-1, Math.min(1, dot / Math.sqrt(a * b)));
    const angle = Math.acos(cosine);
    const sine = Math.sin(angle);
    const flat = sine < PARALLEL;
    const near = flat ? 1 - t : Math.sin((1 - t) * angle) / sine;
    const far = flat ? t : Math.sin(t * angle) / sine;
    return ({ count, start, changes }, merged) => {
      const { to } = changes[0]!;
      if (t === 0 || t === 1) merged.set(t === 0 ? start : to);
      else for (let i = 0; i < count; i++) merged[i] = near * start[i]! + far * to[i]!;
    };
  },
};

function checkDensity(density: number): void {
  if (!(density > 0 && density <= 1))
    throw new ArgumentError(`a density is a share of the entries, above 0 and at most 1, not ${density}`);
}

/**
 * The magnitude that the largest `density` of each change's entries reach. The bits of floats that are not negative are
 * in the order of their values, so it is found by counting their upper halves, then the lower halves below the one
 * found: two passes and no copy.
 */
async function trimmingFloors(tensor: TensorPieces, changes: number, density: number): Promise<number[]> {
  const magnitudes = new Float32Array(tensor.pieceLength);
  const bits = new Uint32Array(magnitudes.buffer);
  const counted = async (count: (counts: Uint32Array, length: number, k: number) => void): Promise<Uint32Array[]> => {
    const counts = Array.from({ length: changes }, () => new Uint32Array(2 ** 16));
    for await (const block of tensor.blocks())
      for (const piece of block)
        for (const [k, { delta }] of piece.changes.entries()) {
          for (let i = 0; i < piece.count; i++) magnitudes[i] = Math.abs(delta[i]!);
          count(counts[k]!, piece.count, k);
        }
    return counts;
  };
  const upperCounts = await counted((counts, length) => {
    for (let i = 0; i < length; i++) counts[bits[i]! >>> 16]!++;
  });
  const upper = upperCounts.map((counts) => edge(counts, Math.max(1, Math.round(density * tensor.size))));
  const lowerCounts = await counted((counts, length, k) => {
    const { at } = upper[k]!;
    for (let i = 0; i < length; i++) if (bits[i]! >>> 16 === at) counts[bits[i]! & 0xffff]!++;
  });
  return lowerCounts.map((counts, k) => {
    const { at, left } = upper[k]!;
    return new Float32Array(Uint32Array.of((at << 16) | edge(counts, left).at).buffer)[0]!;
  });
}

/** Where, counted from the end, `wanted` are reached, and how many of them are there and before. */
function edge(counts: Uint32Array, wanted: number): { readonly at: number; readonly left: number } {
  let [at, left] = [counts.length - 1, wanted];
  while (at > 0 && counts[at]! < left) left -= counts[at--]!;
  return { at, left };
}
