import { toSparse, toSparse24, type Weight } from "../../nn/index.ts";
import { ArgumentError, HostTensor } from "../../tensor/index.ts";
import { denseIn } from "./half.ts";
import type { MatrixJob } from "./method.ts";

/** Any entries: the share of them that is dropped, from 0 to below 1. */
export interface Unstructured {
  readonly sparsity: number;
}

/** All but `keep` of every `of` neighbours in a row are dropped: 2:4 is `{ keep: 2, of: 4 }`. */
export interface SemiStructured {
  readonly keep: number;
  readonly of: number;
}

/** Which entries of a matrix pruning may drop, and how many. */
export type Sparsity = Unstructured | SemiStructured;

/** @throws ArgumentError for a share or a group that is none */
export function checkSparsity(pattern: Sparsity): void {
  if ("sparsity" in pattern) {
    if (!(pattern.sparsity >= 0 && pattern.sparsity < 1))
      throw new ArgumentError(`sparsity must be from 0 to below 1, not ${pattern.sparsity}`);
    return;
  }
  const { keep, of } = pattern;
  if (!(Number.isSafeInteger(of) && Number.isSafeInteger(keep) && keep >= 1 && keep <= of))
    throw new ArgumentError(`of a group of neighbours one to all are kept, not ${keep} of ${of}`);
}

/** A pattern in words: `sparsity 0.5` or `2:4`. */
export function sparsityName(pattern: Sparsity): string {
  return "sparsity" in pattern ? `sparsity ${pattern.sparsity}` : `${pattern.keep}:${pattern.of}`;
}

/** @throws ArgumentError where a matrix's rows do not divide into the pattern's groups */
export function checkGroups(
  { name, weight }: { readonly name: string; readonly weight: { readonly shape: readonly number[] } },
  pattern: Sparsity,
): void {
  const columns = weight.shape[1]!;
  if ("of" in pattern && columns % pattern.of !== 0)
    throw new ArgumentError(
      `the rows of "${name}" have ${columns} entries, which do not divide into groups of ${pattern.of}; prune it without groups or leave it out`,
    );
}

/** Marks with 1 what the pattern drops: the least scores, the first among equal ones. */
export function dropMarks(scores: Float64Array, pattern: Sparsity): Uint8Array {
  if ("sparsity" in pattern) return leastOf(scores, Math.round(pattern.sparsity * scores.length));
  const marks = new Uint8Array(scores.length);
  for (let start = 0; start < scores.length; start += pattern.of) markGroup(scores, start, pattern, marks, start);
  return marks;
}

/** Marks with 1 the `count` least scores, the first among equal ones. */
export function leastOf(scores: Float64Array, count: number): Uint8Array {
  const marks = new Uint8Array(scores.length);
  if (count === 0) return marks;
  const sorted = scores.slice().sort();
  const greatest = sorted[count - 1]!;
  let equal = count - sorted.indexOf(greatest);
  for (let i = 0; i < scores.length; i++)
    if (scores[i]! < greatest || (scores[i] === greatest && equal-- > 0)) marks[i] = 1;
  return marks;
}

/** Marks, from `to` on, what is dropped of the group of `scores` that begins at `from`. */
export function markGroup(
  scores: Float64Array,
  from: number,
  { keep, of }: SemiStructured,
  marks: Uint8Array,
  to: number,
): void {
  for (let i = 0; i < of; i++) {
    // Groups are small, so that counting those before it is faster than sorting.
    let before = 0;
    for (let k = 0; k < of; k++) {
      const [one, other] = [scores[from + k]!, scores[from + i]!];
      if (one < other || (one === other && k < i)) before++;
    }
    marks[to + i] = before < of - keep ? 1 : 0;
  }
}

/** The matrix without the entries that are marked. */
export function withoutMarked(weight: HostTensor, marks: Uint8Array): HostTensor {
  const values = (weight.data as Float32Array).map((value, i) => (marks[i] ? 0 : value));
  return new HostTensor("f32", weight.shape, values);
}

/** A job's pruned matrix in the smallest representation: a sparse one only where it takes fewer bytes. */
export function smallest({ half }: MatrixJob, pruned: HostTensor, pattern: Sparsity): Weight {
  const is24 = "of" in pattern && pattern.keep === 2 && pattern.of === 4;
  const dense = denseIn(half, pruned);
  const kept = half ? pruned.cast(half) : pruned;
  const sparse = is24 ? toSparse24(kept) : toSparse(kept);
  return sparse.bytes < dense.bytes ? sparse : dense;
}
