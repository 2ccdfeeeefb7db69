import { ArgumentError, abs, div, max, maximum, reshape, stopGradient } from "../../tensor/index.ts";
import type { Weight } from "../weight.ts";
import { type BlockFormat, blockFormats } from "../weights/block-format.ts";
import { BlockGrid } from "../weights/round.ts";
import { LEAST_STEP, type RoundedMatrix, roundOnto, type WeightRounding } from "./rounding.ts";

/** Formats of whole numbers around zero. */
export type WholeFormat = Extract<BlockFormat, "int8" | "int4" | "int3" | "int2">;

export interface BlockRoundingOptions {
  readonly format: WholeFormat;
  /** Neighbours in a row that share a scale, a multiple of 16 that divides the width; `channel`: the whole row. */
  readonly block: number | "channel";
}

/**
 * Symmetric blocks of whole numbers, `s * clip(round(w / s), -2^(b-1), 2^(b-1) - 1)` with `s = max|w| / (2^(b-1) - 1)` of
 * the block as it is at that step; the gradient passes straight through where nothing is cut off.
 */
export function blockRounding({ format, block }: BlockRoundingOptions): WeightRounding {
  const half = blockFormats[format].levels / 2;
  const name = `${format} in ${block === "channel" ? "one block a row" : `blocks of ${block}`}`;
  return {
    name,
    start: ({ shape }) => {
      widthOf(block, shape[1] as number);
      return {};
    },
    apply(latent) {
      const [rows, columns] = latent.shape as [number, number];
      const blocks = reshape(latent, [rows, -1, widthOf(block, columns)]);
      const largest = max(abs(blocks), { axes: [-1], keepDims: true });
      const step = stopGradient(maximum(div(largest, Math.max(1, half - 1)), LEAST_STEP));
      return reshape(roundOnto(blocks, step, -half, half - 1), latent.shape);
    },
    pack: (matrix) => packBlocks(matrix, { format, block }),
  };
}

function widthOf(block: number | "channel", columns: number): number {
  if (block === "channel") return columns;
  if (columns % block === 0) return block;
  throw new ArgumentError(`a width of ${columns} is not made of blocks of ${block}; choose a block that divides it`);
}

/** Whole-number blocks of a matrix that lies on their grid. */
function packBlocks({ latent, rounded }: RoundedMatrix, { format, block }: BlockRoundingOptions): Weight {
  const [rows, columns] = latent.shape as [number, number];
  const grid = new BlockGrid([rows, columns], { format, block });
  const values = latent.data as Float32Array;
  const steps = Math.max(1, blockFormats[format].levels / 2 - 1);
  for (let r = 0; r < rows; r++)
    for (let b = 0; b < grid.blocks; b++) {
      const start = r * columns + b * grid.block;
      const end = Math.min(start + grid.block, (r + 1) * columns);
      let largest = 0;
      for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(values[i]!));
      grid.scales[r * grid.blocks + b] = Math.max(largest / steps, LEAST_STEP);
    }
  return grid.pack(grid.encode(rounded.data as Float32Array), { exact: true });
}
