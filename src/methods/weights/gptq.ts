import { choleskyOfInverse } from "../../linalg/index.ts";
import { BlockGrid, blockGrid } from "../../nn/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { BATCH, batchOfBlocks, type ColumnRule, settleColumns } from "./column-updates.ts";
import { HessianFactors, naturalOrder } from "./hessian-factors.ts";
import { inputsOf, type MatrixMethod } from "./method.ts";
import { type BlockOptions, gridName } from "./nearest.ts";

export interface GptqOptions extends BlockOptions {
  /**
   * Rounds columns in order of falling input energy, on grids fitted to the original weights (the reference's `desc_act`
   * with `static_groups`). Default false: from left to right, grids fitted to the weights as they are by then.
   */
  readonly activationOrder?: boolean;
  /** Added to the Hessian's diagonal, as a share of its mean. Default 0.01. */
  readonly damping?: number;
}

/**
 * GPTQ (Frantar et al. 2023, Algorithm 1): columns are rounded one after the other, and what rounding one loses is made up
 * for by the columns not yet rounded, as the inverse of the Hessian `X^T X` says.
 */
export function gptq(options: GptqOptions): MatrixMethod {
  const { activationOrder = false, damping = 0.01 } = options;
  const factors = new HessianFactors(choleskyOfInverse, damping);
  return {
    name: `gptq ${gridName(options)}${activationOrder ? ", activation order" : ""}, damping ${damping}`,
    calibrated: true,
    async compress(job) {
      const { weight, device } = job;
      const order = activationOrder ? fallingDiagonal(inputsOf(job).gram) : naturalOrder(job);
      const upper = await factors.of(job, order);
      const grid = activationOrder
        ? blockGrid(weight, options)
        : new BlockGrid(weight.shape as [number, number], options);
      const values = (weight.data as Float32Array).slice();
      const rounding = new Rounding(grid, values, order, !activationOrder);
      await settleColumns(rounding, { values, order, upper, batch: rounding.batch, device });
      return grid.pack(rounding.codes, options);
    },
  };
}

/** Columns by falling diagonal, equal ones from left to right. */
function fallingDiagonal({ shape, data }: HostTensor): Int32Array {
  const n = shape[0]!;
  const energy = (i: number): number => data[i * n + i] as number;
  return Int32Array.from({ length: n }, (_, i) => i).sort((a, b) => energy(b) - energy(a) || a - b);
}

/** Settles entries at the nearest values of a grid, and notes their codes. */
class Rounding implements ColumnRule {
  /** `[out, in]` */
  readonly codes: Uint8Array;
  readonly #grid: BlockGrid;
  /** `[out, in]`: where a grid is fitted, the weights as they are by then. */
  readonly #values: Float32Array;
  readonly #order: Int32Array;
  /** Whether a block's grid is fitted when its first column comes. */
  readonly #fits: boolean;

  constructor(grid: BlockGrid, values: Float32Array, order: Int32Array, fits: boolean) {
    this.codes = new Uint8Array(values.length);
    this.#grid = grid;
    this.#values = values;
    this.#order = order;
    this.#fits = fits;
  }

  /** A block that is fitted on the way must not reach into columns that are not up to date; the first always is. */
  get batch(): number {
    const { block, blocks } = this.#grid;
    return this.#fits && blocks > 1 ? batchOfBlocks(block) : BATCH;
  }

  settle(r: number, i: number, row: Float32Array, j: number): number {
    const { columns, block, blocks } = this.#grid;
    const column = this.#order[i]!;
    const index = r * blocks + Math.floor(column / block);
    if (this.#fits && column % block === 0) {
      if (blocks > 1) this.#values.set(row.subarray(j, j + block), r * columns + column);
      this.#grid.fit(this.#values, r, column / block);
    }
    const code = this.#grid.code(row[j]!, index);
    this.codes[r * columns + column] = code;
    return this.#grid.value(code, index);
  }
}
