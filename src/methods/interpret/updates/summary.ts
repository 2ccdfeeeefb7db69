import type { MatrixUpdate, Overlap, Region } from "./analyze.ts";

/** Several matrices taken together. Overlaps are means over those in which something changed. */
export interface UpdateSummary {
  /** Type of the matrices, or `all`. */
  readonly name: string;
  readonly matrices: number;
  readonly entries: number;
  /** Shares of all entries that stayed the same, as bfloat16 and as they are stored. */
  readonly sparsity: number;
  readonly storedSparsity: number;
  /** Medians over the matrices; angles in degrees. */
  readonly nss: number;
  readonly angle: number;
  readonly size: number;
  /** Median of drift over size, `nss / size`, which the length of a step does not change; null where nothing changed. */
  readonly driftPerSize: number | null;
  readonly stableRank: number | null;
  readonly overlaps: Readonly<Record<Region, Overlap>>;
  /** Whether all bounds of perturbation theory hold in all matrices. */
  readonly boundsHold: boolean;
}

export function median(values: readonly number[]): number | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
const present = (values: readonly (number | null)[]): number[] => values.filter((x) => x !== null);

/** What several matrices have in common. At least one. */
export function summaryOf(name: string, matrices: readonly MatrixUpdate[]): UpdateSummary {
  const sum = (of: (m: MatrixUpdate) => number): number => matrices.reduce((total, m) => total + of(m), 0);
  const entries = sum(({ shape }) => shape[0] * shape[1]);
  const over = (region: Region): Overlap => {
    const shares = present(matrices.map(({ overlaps }) => overlaps[region].share));
    return {
      share: shares.length === 0 ? null : mean(shares),
      chance: mean(matrices.map(({ overlaps }) => overlaps[region].chance)),
    };
  };
  return {
    name,
    matrices: matrices.length,
    entries,
    sparsity: 1 - sum(({ changed }) => changed) / entries,
    storedSparsity: 1 - sum(({ storedChanged }) => storedChanged) / entries,
    nss: median(matrices.map(({ nss }) => nss))!,
    angle: median(matrices.map(({ angles }) => angles.mean))!,
    size: median(matrices.map(({ size }) => size))!,
    driftPerSize: median(matrices.filter(({ size }) => size > 0).map(({ nss, size }) => nss / size)),
    stableRank: median(present(matrices.map((m) => m.stableRank))),
    overlaps: { principal: over("principal"), small: over("small"), principalOnly: over("principalOnly") },
    boundsHold: matrices.every(({ bounds }) => Object.values(bounds).every(({ holds }) => holds)),
  };
}

/** One summary for each type of matrix, in the order in which they first come. */
export function summaries(matrices: readonly MatrixUpdate[]): UpdateSummary[] {
  const types = [...new Set(matrices.map(({ type }) => type))];
  return types.map((type) =>
    summaryOf(
      type,
      matrices.filter((m) => m.type === type),
    ),
  );
}
