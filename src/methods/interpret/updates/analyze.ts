import type { Matrix } from "../../../linalg/matrix.ts";
import { type Products, withProducts } from "../../../linalg/products.ts";
import { ArgumentError, formatShape, type HostTensor, isFloat, sameShape } from "../../../tensor/index.ts";
import { changedMask, SAME, storedMask } from "./bfloat.ts";
import { type BitMask, overlap, rates } from "./bit-mask.ts";
import { checkBounds, type PerturbationBounds } from "./bounds.ts";
import {
  difference,
  exact,
  norm,
  principalEntries,
  type Rank,
  rankOf,
  shareOf,
  smallEntries,
  spectralDrift,
  spectrumOf,
  stableRank,
  subspaceRotation,
} from "./spectrum.ts";

export interface AnalyzeOptions {
  /** Relative difference below which bfloat16 numbers are the same. Default 1e-3. */
  readonly eta?: number;
  /** Share of entries in the masks of principal and of small entries. Default 0.3. */
  readonly alpha?: number;
  /** Rank of the principal part. Default `energy50`. */
  readonly rank?: Rank;
  /** Singular vectors whose subspaces are compared. Default as many as hold half of the energy, 512 at most. */
  readonly k?: Rank;
  readonly signal?: AbortSignal;
}

/** A matrix before and after training, `[out, in]`, in any floating-point type. */
export interface MatrixPair {
  readonly name: string;
  readonly before: HostTensor;
  readonly after: HostTensor;
}

/** What training did to one matrix. Null stands for what has no answer, such as where changes lie when there are none. */
export interface MatrixUpdate {
  readonly name: string;
  /** Last part of its name: `q_proj`. */
  readonly type: string;
  /** Number of its layer; null outside of layers. */
  readonly layer: number | null;
  readonly shape: readonly [number, number];
  /** Entries that differ as bfloat16. */
  readonly changed: number;
  /** Entries that differ as they are stored. */
  readonly storedChanged: number;
  /** Drift of the spectrum, `|sigma(after) - sigma(before)| / |sigma(before)|`. */
  readonly nss: number;
  /** Principal angles in degrees, of left and right subspaces together. */
  readonly angles: { readonly mean: number; readonly max: number; readonly curve: readonly number[] };
  /** Vectors that the angles are between, and rank of the principal part. */
  readonly k: number;
  readonly rank: number;
  /** Shares of the changed entries that lie in each region, and what chance would give. */
  readonly overlaps: Readonly<Record<Region, Overlap>>;
  /** `|D|_F / |before|_F` of the change `D`. */
  readonly size: number;
  readonly stableRank: number | null;
  /** Directions of the change that hold half of its energy. */
  readonly changeRank: number | null;
  readonly bounds: PerturbationBounds;
  /** Shares of changed entries along rows and along columns, in at most 64 groups of neighbours. */
  readonly byRow: readonly number[];
  readonly byColumn: readonly number[];
}

/** Entries that carry the principal part, entries of small magnitude, and those of the former that are none of the latter. */
export type Region = "principal" | "small" | "principalOnly";

export interface Overlap {
  readonly share: number | null;
  readonly chance: number;
}

/** What changed in a model, matrix by matrix, and in the whole. */
export interface UpdateReport {
  readonly eta: number;
  readonly alpha: number;
  readonly matrices: readonly MatrixUpdate[];
}

const STRIPES = 64;
const MOST_VECTORS = 512;
const degrees = (radians: number): number => (radians * 180) / Math.PI;

/**
 * Where and how far training moved the matrices of a model (the diagnostics of Zhu et al. 2025, arXiv:2511.08567), all
 * spectra in double precision. One pair is looked at after the other.
 * @param onMatrix told of each matrix when it is done
 * @throws ArgumentError for options out of range, matrices of different shapes, types that are no plain numbers, and
 *   numbers that are not finite, all with the name of the tensor; the signal's reason when stopped
 */
export async function analyzeUpdates(
  pairs: Iterable<MatrixPair> | AsyncIterable<MatrixPair>,
  { eta = SAME, alpha = 0.3, rank = "energy50", k, signal }: AnalyzeOptions = {},
  onMatrix?: (update: MatrixUpdate) => void,
): Promise<UpdateReport> {
  shareOf({ rows: 1, cols: 1, data: new Float64Array(1) }, alpha);
  const matrices: MatrixUpdate[] = [];
  await withProducts(async (p) => {
    for await (const pair of pairs) {
      signal?.throwIfAborted();
      const update = await analyzeMatrix(p, pair, { eta, alpha, rank, ...(k !== undefined && { k }) });
      onMatrix?.(update);
      matrices.push(update);
    }
  });
  return { eta, alpha, matrices };
}

async function analyzeMatrix(
  p: Products,
  pair: MatrixPair,
  { eta, alpha, rank, k }: Required<Omit<AnalyzeOptions, "signal" | "k">> & { readonly k?: Rank },
): Promise<MatrixUpdate> {
  const { name } = pair;
  checkPair(pair);
  const changed = changedMask(pair.before, pair.after, eta);
  const stored = storedMask(pair.before, pair.after).count;
  const before = await spectrumOf(p, finite(name, "before", pair.before));
  const after = stored === 0 ? before : await spectrumOf(p, finite(name, "after", pair.after));
  const change = await spectrumOf(p, difference(before.matrix, after.matrix));
  const part = inTensor(name, () => rankOf(rank, before));
  const vectors = inTensor(name, () =>
    k === undefined ? Math.min(MOST_VECTORS, rankOf("energy50", before)) : rankOf(k, before),
  );
  const { left, right } =
    stored === 0
      ? { left: new Float64Array(vectors), right: new Float64Array(vectors) }
      : await subspaceRotation(p, before, after, vectors);
  const curve = Array.from(left, (angle, i) => degrees((angle + right[i]!) / 2));
  const moves = stored > 0;
  return {
    name,
    ...placeOf(name),
    shape: pair.before.shape as readonly [number, number],
    changed: changed.count,
    storedChanged: stored,
    nss: spectralDrift(before, after),
    angles: {
      mean: curve.reduce((sum, x) => sum + x, 0) / curve.length,
      max: degrees(Math.max(...left, ...right)),
      curve,
    },
    k: vectors,
    rank: part,
    overlaps: overlapsOf(await principalEntries(p, before, part, alpha), smallEntries(before.matrix, alpha), changed),
    size: norm(before.factors.s) === 0 ? 0 : norm(change.factors.s) / norm(before.factors.s),
    stableRank: moves ? stableRank(change.factors.s) : null,
    changeRank: moves ? rankOf("energy50", change) : null,
    bounds: checkBounds(before, after, change, vectors, Math.max(...left, ...right)),
    ...stripesOf(changed),
  };
}

function overlapsOf(principal: BitMask, small: BitMask, changed: BitMask): MatrixUpdate["overlaps"] {
  const of = (region: BitMask): Overlap => ({ share: overlap(region, changed), chance: region.share });
  return { principal: of(principal), small: of(small), principalOnly: of(principal.and(small.not())) };
}

/** `model.layers.3.mlp.up_proj.weight` is an `up_proj` of layer 3. */
export function placeOf(name: string): { readonly type: string; readonly layer: number | null } {
  const parts = name.replace(/\.weight$/, "").split(".");
  const number = parts.find((part) => /^\d+$/.test(part));
  return { type: parts.at(-1)!, layer: number === undefined ? null : Number(number) };
}

/** Rates of changed entries along both axes, neighbours put together where there are many. */
function stripesOf(changed: BitMask): { byRow: number[]; byColumn: number[] } {
  const { byRow, byColumn } = rates(changed.rows, changed.cols, changed.bits);
  return { byRow: grouped(byRow), byColumn: grouped(byColumn) };
}

function grouped(values: readonly number[]): number[] {
  const groups = Math.min(STRIPES, values.length);
  return Array.from({ length: groups }, (_, i) => {
    const [from, to] = [(i * values.length) / groups, ((i + 1) * values.length) / groups].map(Math.round) as [
      number,
      number,
    ];
    return values.slice(from, to).reduce((sum, x) => sum + x, 0) / (to - from);
  });
}

function checkPair({ name, before, after }: MatrixPair): void {
  for (const { dtype } of [before, after])
    if (!isFloat(dtype))
      throw new ArgumentError(
        `"${name}" is ${dtype}; what training changed can be told of floating-point numbers only`,
      );
  if (!sameShape(before.shape, after.shape))
    throw new ArgumentError(`"${name}" is ${formatShape(before.shape)} before and ${formatShape(after.shape)} after`);
  if (before.shape.length !== 2)
    throw new ArgumentError(`"${name}" is ${formatShape(before.shape)}; only matrices have a spectrum`);
}

function finite(name: string, when: string, t: HostTensor): Matrix {
  const values = t.cast("f64");
  const bad = (values.data as Float64Array).findIndex((x) => !Number.isFinite(x));
  if (bad >= 0) {
    const width = t.shape[1]!;
    throw new ArgumentError(
      `"${name}" has ${values.at(bad)} at [${Math.floor(bad / width)}, ${bad % width}] in the checkpoint ${when}; it is damaged`,
    );
  }
  return exact(name, values);
}

function inTensor<T>(name: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (error instanceof ArgumentError) throw new ArgumentError(`"${name}": ${error.message}`);
    throw error;
  }
}
