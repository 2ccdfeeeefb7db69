import type { MatrixMethod } from "./method.ts";
import {
  checkGroups,
  checkSparsity,
  dropMarks,
  type Sparsity,
  smallest,
  sparsityName,
  withoutMarked,
} from "./sparsity.ts";

/**
 * The plain baseline of pruning: the entries of least magnitude are dropped, of the whole matrix or of each group.
 * @throws ArgumentError for a sparsity that is none, and when compressing rows that do not divide into groups
 */
export function magnitude(pattern: Sparsity): MatrixMethod {
  checkSparsity(pattern);
  return {
    name: `magnitude ${sparsityName(pattern)}`,
    calibrated: false,
    async compress(job) {
      checkGroups(job, pattern);
      const marks = dropMarks(Float64Array.from(job.weight.data as Float32Array, Math.abs), pattern);
      return smallest(job, withoutMarked(job.weight, marks), pattern);
    },
  };
}
