import { inputsOf, type MatrixMethod } from "./method.ts";
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
 * Wanda (Sun et al. 2024, section 3): of each row the entries are dropped whose `|W_ij| ||X_j||_2` is least, a weight's
 * magnitude times the norm of the inputs that it meets. What is kept stays as it is.
 * @throws ArgumentError for a sparsity that is none, and when compressing rows that do not divide into groups
 */
export function wanda(pattern: Sparsity): MatrixMethod {
  checkSparsity(pattern);
  return {
    name: `wanda ${sparsityName(pattern)}`,
    calibrated: true,
    async compress(job) {
      checkGroups(job, pattern);
      const { gram } = inputsOf(job);
      const { weight } = job;
      const [rows, columns] = weight.shape as [number, number];
      const norms = Float64Array.from({ length: columns }, (_, j) => Math.sqrt(gram.at(j * columns + j)));
      const values = weight.data as Float32Array;
      const scores = new Float64Array(columns);
      const marks = new Uint8Array(values.length);
      for (let r = 0; r < rows; r++) {
        for (let j = 0; j < columns; j++) scores[j] = Math.abs(values[r * columns + j]!) * norms[j]!;
        marks.set(dropMarks(scores, pattern), r * columns);
      }
      return smallest(job, withoutMarked(weight, marks), pattern);
    },
  };
}
