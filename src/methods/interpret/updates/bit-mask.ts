import { ArgumentError, HostTensor, type Rng } from "../../../tensor/index.ts";

/** A set of entries of a matrix. */
export class BitMask {
  readonly rows: number;
  readonly cols: number;
  /** 1 where an entry belongs to the set, row-major. */
  readonly bits: Uint8Array;
  #count: number | undefined;

  constructor(rows: number, cols: number, bits: Uint8Array = new Uint8Array(rows * cols)) {
    if (bits.length !== rows * cols)
      throw new ArgumentError(`a mask of [${rows}, ${cols}] takes ${rows * cols} bits, not ${bits.length}`);
    this.rows = rows;
    this.cols = cols;
    this.bits = bits;
  }

  /** Entries in the set. */
  get count(): number {
    this.#count ??= this.bits.reduce((sum, bit) => sum + bit, 0);
    return this.#count;
  }

  /** The share of all entries that is in the set. */
  get share(): number {
    return this.count / this.bits.length;
  }

  /** Entries that are in both sets. */
  both(other: BitMask): number {
    return this.#combined(other, (a, b) => a & b).count;
  }

  and(other: BitMask): BitMask {
    return this.#combined(other, (a, b) => a & b);
  }

  or(other: BitMask): BitMask {
    return this.#combined(other, (a, b) => a | b);
  }

  not(): BitMask {
    return new BitMask(
      this.rows,
      this.cols,
      this.bits.map((bit) => 1 - bit),
    );
  }

  #combined(other: BitMask, how: (a: number, b: number) => number): BitMask {
    if (this.rows !== other.rows || this.cols !== other.cols)
      throw new ArgumentError(
        `masks of [${this.rows}, ${this.cols}] and [${other.rows}, ${other.cols}] do not lie on the same matrix`,
      );
    return new BitMask(
      this.rows,
      this.cols,
      this.bits.map((bit, i) => how(bit, other.bits[i]!)),
    );
  }

  /** As the trainer takes it: `bool [rows, cols]`. */
  toTensor(): HostTensor {
    return new HostTensor("bool", [this.rows, this.cols], this.bits);
  }
}

/** As many random entries as asked for. @throws ArgumentError for more than there are */
export function randomMask(rows: number, cols: number, count: number, rng: Rng): BitMask {
  const mask = new BitMask(rows, cols);
  if (!Number.isInteger(count) || count < 0 || count > mask.bits.length)
    throw new ArgumentError(`a mask of [${rows}, ${cols}] cannot have ${count} entries`);
  for (const i of rng.permutation(mask.bits.length).slice(0, count)) mask.bits[i] = 1;
  return mask;
}

/**
 * The `count` entries with the largest of `values`; of equal ones the first in row-major order.
 * @param values one for each entry, row-major
 */
export function largestEntries(rows: number, cols: number, values: Float64Array, count: number): BitMask {
  const mask = new BitMask(rows, cols);
  if (count === 0) return mask;
  const border = values.slice().sort()[values.length - count]!;
  let above = 0;
  for (const value of values) if (value > border) above++;
  let equal = count - above;
  for (let i = 0; i < values.length; i++)
    if (values[i]! > border || (values[i] === border && equal-- > 0)) mask.bits[i] = 1;
  return mask;
}

/** How far two masks agree: entries in both over entries in either; null where both are empty. */
export function jaccard(a: BitMask, b: BitMask): number | null {
  const both = a.both(b);
  const either = a.count + b.count - both;
  return either === 0 ? null : both / either;
}

/** The share of `changed` that lies within `region`; null where nothing changed. Chance gives the region's own share. */
export function overlap(region: BitMask, changed: BitMask): number | null {
  return changed.count === 0 ? null : region.both(changed) / changed.count;
}

export interface Consistency {
  /** Of each pair of masks; null where both are empty. */
  readonly jaccard: readonly (readonly (number | null)[])[];
  /** What independent masks of the same sizes would have on average: `pq / (p + q - pq)`. */
  readonly expected: readonly (readonly (number | null)[])[];
  /** The share of masks that have each entry, `f32 [rows, cols]`. */
  readonly consensus: HostTensor;
  /** Mean of the consensus of each row, and of each column. */
  readonly byRow: readonly number[];
  readonly byColumn: readonly number[];
}

/** How far several runs changed the same entries of a matrix. @throws ArgumentError for masks of different shapes, or none */
export function maskConsistency(masks: readonly BitMask[]): Consistency {
  const [first] = masks;
  if (!first) throw new ArgumentError("there is no mask to compare");
  const consensus = new Float32Array(first.bits.length);
  for (const mask of masks) {
    first.both(mask);
    for (let i = 0; i < consensus.length; i++) consensus[i]! += mask.bits[i]! / masks.length;
  }
  const expected = (a: BitMask, b: BitMask): number | null => {
    const [p, q] = [a.share, b.share];
    return p + q === 0 ? null : (p * q) / (p + q - p * q);
  };
  const { rows, cols } = first;
  return {
    jaccard: masks.map((a) => masks.map((b) => jaccard(a, b))),
    expected: masks.map((a) => masks.map((b) => (a === b ? jaccard(a, a) : expected(a, b)))),
    consensus: new HostTensor("f32", [rows, cols], consensus),
    ...rates(rows, cols, consensus),
  };
}

/** Means of each row and each column. */
export function rates(
  rows: number,
  cols: number,
  values: ArrayLike<number>,
): { readonly byRow: number[]; readonly byColumn: number[] } {
  const [byRow, byColumn] = [new Array<number>(rows).fill(0), new Array<number>(cols).fill(0)];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) {
      byRow[r]! += values[r * cols + c]! / cols;
      byColumn[c]! += values[r * cols + c]! / rows;
    }
  return { byRow, byColumn };
}
