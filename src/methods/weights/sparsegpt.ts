import { choleskyOfInverse } from "../../linalg/index.ts";
import { HostTensor } from "../../tensor/index.ts";
import { BATCH, batchOfBlocks, type ColumnRule, settleColumns } from "./column-updates.ts";
import { HessianFactors, naturalOrder } from "./hessian-factors.ts";
import { inputsOf, type MatrixMethod } from "./method.ts";
import {
  checkGroups,
  checkSparsity,
  leastOf,
  markGroup,
  type SemiStructured,
  type Sparsity,
  smallest,
  sparsityName,
} from "./sparsity.ts";

export interface SparseGptOptions {
  /** Added to the Hessian's diagonal, as a share of its mean. Default 0.01. */
  readonly damping?: number;
}

/**
 * SparseGPT (Frantar and Alistarh 2023, Algorithm 1): entries are dropped column by column, and the columns behind make up
 * for them as in GPTQ. What dropping entry `w` of column `i` costs is `w^2 / U_ii^2`. The entries of least cost are chosen
 * among all rows of 128 columns when the first of them comes, or in a row's group of neighbours when its first comes:
 * always on the weights as they are by then.
 * @throws ArgumentError for sparsity or damping that is none, and when compressing rows that do not divide into groups
 */
export function sparseGpt(pattern: Sparsity, { damping = 0.01 }: SparseGptOptions = {}): MatrixMethod {
  checkSparsity(pattern);
  const factors = new HessianFactors(choleskyOfInverse, damping);
  return {
    name: `sparsegpt ${sparsityName(pattern)}, damping ${damping}`,
    calibrated: true,
    async compress(job) {
      checkGroups(job, pattern);
      const { weight, device } = job;
      const upper = await factors.of(job);
      const values = (weight.data as Float32Array).slice();
      const batch = "of" in pattern ? batchOfBlocks(pattern.of) : BATCH;
      const spread = spreads(upper, inputsOf(job).gram);
      const rule = "of" in pattern ? groupRule(spread, pattern) : batchRule(spread, pattern.sparsity);
      await settleColumns(rule, { values, order: naturalOrder(job), upper, batch, device });
      return smallest(job, new HostTensor("f32", weight.shape, values), pattern);
    },
  };
}

/** The diagonal of `U`. What meets channels without any energy is not worth its damping: it costs nothing to drop. */
function spreads(upper: HostTensor, gram: HostTensor): Float64Array {
  const diagonal = ({ shape, data }: HostTensor, i: number): number => data[i * shape[0]! + i] as number;
  return Float64Array.from({ length: upper.shape[0]! }, (_, i) =>
    diagonal(gram, i) === 0 ? Infinity : diagonal(upper, i),
  );
}

/** Drops the same share of every batch, its total over all batches right to an entry. */
function batchRule(spread: Float64Array, sparsity: number): ColumnRule {
  let dropped: Uint8Array = new Uint8Array(0);
  let width = 0;
  return {
    begin(batch, start, columns) {
      width = columns;
      const rows = batch.length / width;
      const until = (column: number): number => Math.round(sparsity * rows * column);
      const costs = Float64Array.from(batch, (value, k) => (value / spread[start + (k % width)]!) ** 2);
      dropped = leastOf(costs, until(start + width) - until(start));
    },
    settle: (r, _i, row, j) => (dropped[r * width + j] ? 0 : row[j]!),
  };
}

function groupRule(spread: Float64Array, pattern: SemiStructured): ColumnRule {
  const { of } = pattern;
  const costs = new Float64Array(of);
  const dropped = new Uint8Array(of);
  return {
    settle(_r, i, row, j) {
      if (i % of === 0) {
        for (let k = 0; k < of; k++) costs[k] = (row[j + k]! / spread[i + k]!) ** 2;
        markGroup(costs, 0, pattern, dropped, 0);
      }
      return dropped[i % of] ? 0 : row[j]!;
    },
  };
}
