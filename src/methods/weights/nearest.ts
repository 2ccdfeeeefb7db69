import { type RoundOptions, roundToBlocks } from "../../nn/index.ts";
import type { MatrixMethod } from "./method.ts";

/** How blocks are laid out and run. */
export interface BlockOptions extends RoundOptions {
  /** See `BlockLayout.exact`. */
  readonly exact?: boolean;
}

/** The plain baseline: each entry to the nearest value of its block's grid. */
export function nearest(options: BlockOptions): MatrixMethod {
  return {
    name: `nearest ${gridName(options)}`,
    calibrated: false,
    compress: async ({ weight }) => roundToBlocks(weight, options),
  };
}

/** A grid in words: `int4 in blocks of 32, asymmetric`. */
export function gridName({ format, block, symmetric = true, search, scales, exact }: BlockOptions): string {
  const blocks = block === "channel" ? "one block a row" : `blocks of ${block}`;
  const further = [!symmetric && "asymmetric", searchName(search), scales, exact && "exact"].filter(Boolean);
  return [`${format} in ${blocks}`, ...further].join(", ");
}

function searchName(search: BlockOptions["search"]): string | false {
  if (typeof search !== "object") return search === true && "searched";
  const { power, by, count } = search;
  return `searched by errors to the ${power} in ${count} steps of ${by}`;
}
