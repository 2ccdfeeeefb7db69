import {
  and,
  cast,
  clip,
  customVjp,
  div,
  greater,
  greaterEqual,
  HostTensor,
  less,
  lessEqual,
  maximum,
  mul,
  round,
  scalar,
  sub,
  sum,
  type Tensor,
  unsqueeze,
  where,
} from "../../tensor/index.ts";
import type { BlockFormat } from "../weights/block-format.ts";
import { BlockGrid } from "../weights/round.ts";
import type { RoundedMatrix, WeightRounding } from "./rounding.ts";

/** A grid of one unit, which the scale of a row stretches. `z` is the matrix over its scale. */
export interface UnitGrid {
  readonly name: string;
  /** `z [out, in]` on the grid. */
  onto(z: Tensor): Tensor;
  /** 1 where the gradient of the matrix passes, 0 elsewhere. */
  passes(z: Tensor): Tensor;
  /** The derivative of `scale * onto(matrix / scale)` by the scale, as it is taken to be. */
  byScale(z: Tensor, onGrid: Tensor): Tensor;
  /** Levels on the positive side, `P` of the gradient's factor. */
  readonly positive: number;
  /** The scale of a row to begin with. */
  start(row: Float32Array): number;
  /** Blocks that hold such rows, and their scale over the row's. */
  readonly format: BlockFormat;
  readonly stored: number;
}

/** Scales do not fall below this, nor below zero. */
export const LEAST_SCALE = 1e-5;

/**
 * A rounding whose scale, one for each row of the matrix, is learned (`scale [out]` beside the matrix): forward
 * `scale * onto(W / scale)`; backward the grid's own derivatives, that of the scale times `1 / sqrt(N P)` for a matrix of
 * `N` entries (Esser et al. 2020, arXiv:1902.08153), without which scales run away.
 */
export function rowScaleRounding(grid: UnitGrid): WeightRounding {
  return {
    name: grid.name,
    start: (latent) => {
      const [rows, columns] = latent.shape as [number, number];
      const values = latent.data as Float32Array;
      return {
        scale: HostTensor.from(
          Float32Array.from({ length: rows }, (_, r) =>
            Math.max(LEAST_SCALE, grid.start(values.subarray(r * columns, (r + 1) * columns))),
          ),
        ),
      };
    },
    apply: (latent, { scale }) =>
      customVjp(
        (w: Tensor, s: Tensor) => {
          const column = columnOf(s);
          return mul(grid.onto(div(w, column)), column);
        },
        (dy, _y, w, s) => {
          const [rows, columns] = w.shape as [number, number];
          const z = div(w, columnOf(s));
          const factor = 1 / Math.sqrt(rows * columns * grid.positive);
          const byScale = sum(mul(dy, grid.byScale(z, grid.onto(z))), { axes: 1 });
          return [mul(dy, grid.passes(z)), mul(byScale, factor)];
        },
      )(latent, scale!),
    pack: (matrix) => packRows(matrix, grid),
  };
}

const columnOf = (scale: Tensor): Tensor => unsqueeze(maximum(scale, LEAST_SCALE), 1);

/** One block a row: the same numbers as were computed with. */
function packRows({ latent, rounded, learned }: RoundedMatrix, { format, stored }: UnitGrid) {
  const blocks = new BlockGrid(latent.shape as [number, number], { format, block: "channel" });
  const scales = learned.scale!.data as Float32Array;
  blocks.scales.set(scales.map((s) => Math.max(s, LEAST_SCALE) * stored));
  return blocks.pack(blocks.encode(rounded.data as Float32Array), { exact: true });
}

const within = (z: Tensor, low: number, high: number): Tensor =>
  cast(and(greaterEqual(z, low), lessEqual(z, high)), z.dtype);

/** `middle` between `low` and `high`, and what is given beyond. */
function byRange(z: Tensor, low: number, high: number, below: number, above: number, middle: Tensor): Tensor {
  return where(greater(z, high), above, where(less(z, low), below, middle));
}

const meanSize = (row: Float32Array): number => row.reduce((a, x) => a + Math.abs(x), 0) / row.length;
const largest = (row: Float32Array): number => row.reduce((a, x) => Math.max(a, Math.abs(x)), 0);

/** Elastic binarization (Liu et al. 2022, arXiv:2205.13016): `scale * sign(W)`, with the sign of 0 taken as 1. */
export const elasticBinarization: UnitGrid = {
  name: "elastic binarization",
  onto: (z) => where(less(z, 0), scalar(-1, z.dtype), 1),
  passes: (z) => within(z, -1, 1),
  byScale: (_z, onGrid) => onGrid,
  positive: 1,
  start: meanSize,
  format: "binary",
  stored: 1,
};

/** What the scale gets from entries beyond the range of ternary: 1 as the authors' program has it, or the level, 2/3. */
export type TernaryGradient = "reference" | "exact";

/**
 * Stretched elastic quantization (Liu et al. 2025, arXiv:2502.02631, section 4): `levels` levels spread evenly over -1 to
 * 1, `scale * (round(clip(z) n - s) + s) / n` with `n = levels / 2`; 3 levels are -2/3, 0 and 2/3, 4 are -3/4, -1/4, 1/4
 * and 3/4. The scale is half of the range, not the step.
 */
export function stretchedElastic(levels: 3 | 4, gradient: TernaryGradient = "reference"): UnitGrid {
  const n = levels / 2;
  const shift = levels === 4 ? 0.5 : 0;
  const outermost = (levels - 1) / levels;
  const beyond = levels === 3 && gradient === "reference" ? 1 : outermost;
  const edge = 0.99;
  const shifted = (x: Tensor, by: number): Tensor => (by === 0 ? x : sub(x, by));
  return {
    name: `stretched elastic, ${levels} levels`,
    onto: (z) => mul(shifted(round(shifted(mul(clip(z, -edge, edge), n), shift)), -shift), 1 / n),
    passes: (z) => within(z, -edge, edge),
    byScale: (z, onGrid) => byRange(z, -edge, edge, -beyond, beyond, sub(onGrid, z)),
    positive: 1,
    start: largest,
    format: levels === 4 ? "mid2" : "ternary",
    stored: levels === 4 ? 1 / 4 : 2 / 3,
  };
}

/** Learned step size (Esser et al. 2020): `scale * clip(round(z), -2^(b-1), 2^(b-1) - 1)`, zero being a level. */
export function learnedStep(bits: 2 | 3 | 4 | 8): UnitGrid {
  const [low, high] = [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  return {
    name: `learned step, ${bits} bits`,
    onto: (z) => clip(round(z), low, high),
    passes: (z) => within(z, low, high),
    byScale: (z, onGrid) => byRange(z, low, high, low, high, sub(onGrid, z)),
    positive: high,
    start: (row) => largest(row) / high,
    format: `int${bits}`,
    stored: 1,
  };
}
