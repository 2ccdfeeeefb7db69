import { ArgumentError, Rng } from "../../../tensor/index.ts";

/** The numbers of one tensor, row-major. */
export type Values = Float32Array;

/** What training made of one tensor. */
export interface TensorChange {
  readonly before: Values;
  readonly after: Values;
  readonly weight: number;
}

/** How the changes of several models come together in one tensor. */
export interface MergeRule {
  readonly name: string;
  /** Refuses weights of the changes that it can do nothing with. @throws ArgumentError */
  check(weights: readonly number[]): void;
  /**
   * Looks at one tensor as a whole and returns what gives the merged value of each entry, in double precision so that
   * it is rounded once. It is called once for each entry, in order.
   * @param start the tensor that the changes are applied to
   * @param name the tensor's, which random numbers may depend on
   */
  prepare(start: Values, changes: readonly TensorChange[], name: string): (entry: number) => number;
}

/**
 * `start + sum of weight * (after - before)`: task arithmetic (Ilharco et al. 2023, arXiv:2212.04089) where all changes
 * are from `start`, and ParamDelta (Cao et al. 2025, arXiv:2504.21023) where `start` is a newer base than theirs.
 * Entries that nothing changes keep their bits.
 */
export const addition: MergeRule = {
  name: "addition",
  check() {},
  prepare(start, changes) {
    const [only, ...others] = changes;
    if (only && others.length === 0) {
      const { before, after, weight } = only;
      return (i) => {
        const change = weight * (after[i]! - before[i]!);
        return change === 0 ? start[i]! : start[i]! + change;
      };
    }
    return (i) => {
      let sum = 0;
      for (let k = 0; k < changes.length; k++) {
        const { before, after, weight } = changes[k]!;
        sum += weight * (after[i]! - before[i]!);
      }
      // Adding 0 would take the sign of a negative 0.
      return sum === 0 ? start[i]! : start[i]! + sum;
    };
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
    check(weights) {
      const bad = weights.find((weight) => !(weight > 0));
      if (bad !== undefined) throw new ArgumentError(`TIES averages with weights above 0, not ${bad}`);
    },
    prepare(start, changes) {
      const floors = changes.map((change) => trimmingFloor(change, density));
      const kept = ({ before, after }: TensorChange, k: number, i: number): number => {
        const delta = after[i]! - before[i]!;
        return Math.fround(Math.abs(delta)) >= floors[k]! ? delta : 0;
      };
      return (i) => {
        let elected = 0;
        for (let k = 0; k < changes.length; k++) elected += changes[k]!.weight * kept(changes[k]!, k, i);
        let [sum, weights] = [0, 0];
        for (let k = 0; k < changes.length; k++) {
          const delta = kept(changes[k]!, k, i);
          if (delta * elected <= 0) continue;
          sum += changes[k]!.weight * delta;
          weights += changes[k]!.weight;
        }
        return weights === 0 ? start[i]! : start[i]! + (scale * sum) / weights;
      };
    },
  };
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
    check() {},
    prepare(start, changes, name) {
      const draws = changes.map((_, k) => rng.fork(name).fork(k));
      return (i) => {
        let sum = 0;
        for (let k = 0; k < changes.length; k++) {
          const { before, after, weight } = changes[k]!;
          if (draws[k]!.next() < below) sum += (weight * (after[i]! - before[i]!)) / density;
        }
        return sum === 0 ? start[i]! : start[i]! + sum;
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
  check(weights) {
    if (weights.length !== 1) throw new ArgumentError(`SLERP goes from one model to another, not to ${weights.length}`);
    const [t] = weights as [number];
    if (!(t >= 0 && t <= 1)) throw new ArgumentError(`SLERP goes a share of the way, from 0 to 1, not ${t}`);
  },
  prepare(start, changes) {
    const { after, weight: t } = changes[0]!;
    let [dot, a, b] = [0, 0, 0];
    for (let i = 0; i < start.length; i++) {
      dot += start[i]! * after[i]!;
      a += start[i]! ** 2;
      b += after[i]! ** 2;
    }
    // A tensor of zeros has no direction: it counts as parallel to all.
    const cosine = a * b === 0 ? 1 : Math.max(-1, Math.min(1, dot / Math.sqrt(a * b)));
    const angle = Math.acos(cosine);
    const sine = Math.sin(angle);
    const flat = sine < PARALLEL;
    const from = flat ? 1 - t : Math.sin((1 - t) * angle) / sine;
    const to = flat ? t : Math.sin(t * angle) / sine;
    if (t === 0) return (i) => start[i]!;
    if (t === 1) return (i) => after[i]!;
    return (i) => from * start[i]! + to * after[i]!;
  },
};

function checkDensity(density: number): void {
  if (!(density > 0 && density <= 1))
    throw new ArgumentError(`a density is a share of the entries, above 0 and at most 1, not ${density}`);
}

/**
 * The magnitude that the largest `density` of a change's entries reach. The bits of floats that are not negative are in
 * the order of their values, so it is found by counting their upper halves, then the lower halves below the one found:
 * two passes and no copy.
 */
function trimmingFloor({ before, after }: TensorChange, density: number): number {
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  const size = before.length;
  let left = Math.max(1, Math.round(density * size));
  const upper = new Uint32Array(2 ** 16);
  for (let i = 0; i < size; i++) {
    float[0] = Math.abs(after[i]! - before[i]!);
    upper[bits[0]! >>> 16]!++;
  }
  const edge = (counts: Uint32Array): number => {
    let at = counts.length - 1;
    while (at > 0 && counts[at]! < left) left -= counts[at--]!;
    return at;
  };
  const high = edge(upper);
  const lower = new Uint32Array(2 ** 16);
  for (let i = 0; i < size; i++) {
    float[0] = Math.abs(after[i]! - before[i]!);
    if (bits[0]! >>> 16 === high) lower[bits[0]! & 0xffff]!++;
  }
  bits[0] = ((high << 16) | edge(lower)) >>> 0;
  return float[0]!;
}
