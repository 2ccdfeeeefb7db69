import { ArgumentError, type HostTensor } from "../../tensor/index.ts";
import { type BlockFormat, blockFormats } from "./block-format.ts";
import type { BlockWeight } from "./blocks.ts";
import { BlockGrid } from "./round.ts";

/** How far, in relation to the scale, an entry may lie off what its code stands for: rounding of `f32`. */
const TOLERANCE = 1e-5;

/**
 * A matrix `[out, in]` that lies on a block grid already, as the codes and scales of it: no entry changes by more than
 * the rounding of `f32`. What quantization-aware training ends with.
 * @param block neighbours in a row that share a scale, or `channel` for the whole row
 * @throws ArgumentError where the entries of a block are not whole multiples of one scale, naming the block
 */
export function exactBlocks(
  matrix: HostTensor,
  { format, block, exact = false }: { format: BlockFormat; block: number | "channel"; exact?: boolean },
): BlockWeight {
  const grid = new BlockGrid(matrix.shape as readonly [number, number], { format, block });
  const values = matrix.cast("f32").data as Float32Array;
  for (let r = 0; r < grid.rows; r++)
    for (let b = 0; b < grid.blocks; b++) {
      const start = r * grid.columns + b * grid.block;
      const entries = values.subarray(start, Math.min(start + grid.block, (r + 1) * grid.columns));
      const scale = scaleOf(entries, format);
      if (scale === undefined)
        throw new ArgumentError(
          `block ${b} of row ${r} does not lie on a grid of ${format}: its entries are no multiples of one scale that ${blockFormats[format].levels} codes reach`,
        );
      grid.scales[r * grid.blocks + b] = scale;
    }
  return grid.pack(grid.encode(values), { exact });
}

/** A scale of which all entries are multiples that the format has a code for; undefined where there is none. */
function scaleOf(entries: Float32Array, format: BlockFormat): number | undefined {
  const { levels, step, zero } = blockFormats[format];
  const multiples = Array.from({ length: levels }, (_, c) => step * c - zero);
  const sizes = [...new Set(entries.map(Math.abs))].filter((x) => x > 0);
  if (sizes.length === 0) return 0;
  const least = Math.min(...sizes);
  const fits = (scale: number): boolean =>
    entries.every((x) => {
      const nearest = multiples.reduce((a, m) => (Math.abs(m * scale - x) < Math.abs(a * scale - x) ? m : a));
      return Math.abs(nearest * scale - x) <= TOLERANCE * scale;
    });
  const divisors = [...new Set(multiples.map(Math.abs))].filter((m) => m > 0).sort((a, b) => a - b);
  return divisors.map((m) => Math.fround(least / m)).find(fits);
}
