import { LANES, type Workspace } from "./kernels.ts";
import type { Piece } from "./pieces.ts";

/** How large one update is. */
export interface UpdateSize {
  /** The model that it led to. */
  readonly name: string;
  /** `|to - from|`, Frobenius. */
  readonly norm: number;
  /** `|to - from| / |from|`; null where that is all zeros. */
  readonly relative: number | null;
  /** Cosine of the angle between `from` and `to`. */
  readonly cosine: number;
}

/** How two updates get along. */
export interface Pair {
  readonly names: readonly [string, string];
  /** Near 0 they do not interfere. */
  readonly cosine: number;
  /** Norm of the first over that of the second; null where the second changes nothing. */
  readonly normRatio: number | null;
  /** Share of the entries that both change in which they go in opposite directions. */
  readonly signConflicts: number;
}

/** What a merge did to a tensor, or to several together. */
export interface Conflicts {
  readonly updates: readonly UpdateSize[];
  /** Each update with each one after it. */
  readonly pairs: readonly Pair[];
  /** `|merged - start| / |start|`; null where that is all zeros. */
  readonly change: number | null;
}

/**
 * Sums over entries, in this order: `|merged - start|^2`, `|start|^2` and `|from|^2`, where all updates begin; for each
 * update `|to - from|^2`, `|to|^2` and `<from, to>`; for each pair of updates the product, the entries that both change,
 * and those in opposite directions.
 */
const countOf = (updates: number): number => 3 + 3 * updates + (3 * updates * (updates - 1)) / 2;

/** Takes the sums of one tensor, piece by piece. */
export class ConflictMeter {
  readonly #names: readonly string[];
  readonly #workspace: Workspace;
  readonly #lanes: Float64Array;

  /** @param names of the updates: the shift from the base to the start, where there is one, and the models' changes */
  constructor(names: readonly string[], workspace: Workspace) {
    this.#names = names;
    this.#workspace = workspace;
    this.#lanes = workspace.doubles(LANES * countOf(names.length));
  }

  /** Where the sums of each update are added up. */
  get updates(): Float64Array[] {
    return this.#names.map((_, k) => this.#at(3 + 3 * k));
  }

  /** Counts a piece in whose updates have been added up. */
  updated({ count, before, shift, changes }: Piece): void {
    const workspace = this.#workspace;
    const updates = shift ? [shift, ...changes] : changes;
    workspace.square(before, count, this.#at(2));
    let at = 3 + 3 * updates.length;
    for (const [k, { delta }] of updates.entries())
      for (const second of updates.slice(k + 1)) {
        workspace.compare(delta, second.delta, count, this.#at(at));
        at += 3;
      }
  }

  /** Counts what became of a piece in. */
  merged({ count, start }: Piece, result: Float64Array): void {
    this.#workspace.change(start, result, count, this.#at(0));
  }

  #at(sum: number): Float64Array {
    return this.#lanes.subarray(LANES * sum);
  }

  /** Whether all numbers that were counted in were finite. */
  get finite(): boolean {
    return this.#lanes.every(Number.isFinite);
  }

  get sums(): ConflictSums {
    const sums = Array.from({ length: this.#lanes.length / LANES }, (_, i) =>
      this.#at(i)
        .subarray(0, LANES)
        .reduce((a, b) => a + b, 0),
    );
    return new ConflictSums(this.#names, sums);
  }
}

/** The sums of a tensor, or of several. */
export class ConflictSums {
  readonly #names: readonly string[];
  readonly #sums: Float64Array;

  /** @param sums as `toJSON` gives them; without them, those of no tensor */
  constructor(names: readonly string[], sums?: readonly number[]) {
    this.#names = names;
    this.#sums = sums ? Float64Array.from(sums) : new Float64Array(countOf(names.length));
  }

  /** Adds the sums of another tensor. */
  add(other: ConflictSums): void {
    for (let i = 0; i < this.#sums.length; i++) this.#sums[i]! += other.#sums[i]!;
  }

  toJSON(): number[] {
    return [...this.#sums];
  }

  figures(): Conflicts {
    const [change, start, before] = this.#three(0);
    const updates = this.#names.map((name, k): UpdateSize => {
      const [difference, after, product] = this.#three(1 + k);
      return {
        name,
        norm: Math.sqrt(difference),
        relative: ratio(difference, before),
        cosine: difference === 0 ? 1 : cosine(product, before, after),
      };
    });
    const pairs: Pair[] = [];
    for (const [k, first] of updates.entries())
      for (const second of updates.slice(k + 1)) {
        const [product, both, opposite] = this.#three(1 + updates.length + pairs.length);
        pairs.push({
          names: [first.name, second.name],
          cosine: cosine(product, first.norm ** 2, second.norm ** 2),
          normRatio: ratio(first.norm ** 2, second.norm ** 2),
          signConflicts: both === 0 ? 0 : opposite / both,
        });
      }
    return { updates, pairs, change: ratio(change, start) };
  }

  #three(i: number): Three {
    return this.#sums.subarray(3 * i, 3 * i + 3) as unknown as Three;
  }
}

type Three = readonly [number, number, number];

/** Root of a ratio of squares. */
function ratio(square: number, of: number): number | null {
  return of === 0 ? null : Math.sqrt(square / of);
}

/** 0 where one of the two is nothing. */
function cosine(product: number, first: number, second: number): number {
  return first === 0 || second === 0 ? 0 : Math.max(-1, Math.min(1, product / Math.sqrt(first * second)));
}
