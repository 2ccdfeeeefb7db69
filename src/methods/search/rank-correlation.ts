import { ArgumentError } from "../../tensor/index.ts";

/**
 * Kendall's tau of two lists of numbers (tau-b, which allows for ties): 1 where they order the same things alike, -1 where
 * the other way round, 0 where one says nothing of the other.
 * @throws ArgumentError for lists of unequal lengths, or of less than two
 */
export function kendallTau(a: readonly number[], b: readonly number[]): number {
  if (a.length !== b.length || a.length < 2)
    throw new ArgumentError(`two lists of at least two numbers can be compared, not of ${a.length} and ${b.length}`);
  let [agreement, pairsA, pairsB] = [0, 0, 0];
  for (let i = 0; i < a.length; i++)
    for (let j = 0; j < i; j++) {
      const [x, y] = [Math.sign(a[i]! - a[j]!), Math.sign(b[i]! - b[j]!)];
      agreement += x * y;
      pairsA += x * x;
      pairsB += y * y;
    }
  return pairsA === 0 || pairsB === 0 ? 0 : agreement / Math.sqrt(pairsA * pairsB);
}
