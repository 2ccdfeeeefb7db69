import type { Values } from "./rules.ts";

/** Two versions of a tensor between which training lies. */
export interface Update {
  readonly from: Values;
  readonly to: Values;
}

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

/** Sums over entries from which the figures follow; those of several tensors add up. */
export class ConflictSums {
  readonly #names: readonly string[];
  /** For each update `|to - from|^2`, `|from|^2`, `|to|^2` and `<from, to>`. */
  readonly #sizes: Float64Array;
  /** For each pair the product, the entries that both change, and those in opposite directions. */
  readonly #pairs: Float64Array;
  /** `|merged - start|^2` and `|start|^2`. */
  readonly #merged = new Float64Array(2);

  constructor(names: readonly string[]) {
    this.#names = names;
    this.#sizes = new Float64Array(4 * names.length);
    this.#pairs = new Float64Array((3 * names.length * (names.length - 1)) / 2);
  }

  /** The sums of a tensor's updates, which are those named, in their order. */
  measure(updates: readonly Update[]): void {
    updates.forEach(({ from, to }, k) => {
      let [difference, before, after, product] = [0, 0, 0, 0];
      for (let i = 0; i < from.length; i++) {
        const a = from[i]!;
        const b = to[i]!;
        difference += (b - a) * (b - a);
        before += a * a;
        after += b * b;
        product += a * b;
      }
      this.#sizes.set([difference, before, after, product], 4 * k);
    });
    let at = 0;
    for (const [k, first] of updates.entries())
      for (const second of updates.slice(k + 1)) {
        this.#pairs.set(compared(first, second), at);
        at += 3;
      }
  }

  /** Counts entries of the merged tensor in. */
  merged(start: ArrayLike<number>, result: ArrayLike<number>): void {
    let [change, before] = [0, 0];
    for (let i = 0; i < start.length; i++) {
      const difference = result[i]! - start[i]!;
      change += difference * difference;
      before += start[i]! * start[i]!;
    }
    this.#merged[0]! += change;
    this.#merged[1]! += before;
  }

  /** Adds the sums of another tensor. */
  add(other: ConflictSums): void {
    const sum = (into: Float64Array, from: Float64Array): void => {
      for (let i = 0; i < into.length; i++) into[i]! += from[i]!;
    };
    sum(this.#sizes, other.#sizes);
    sum(this.#pairs, other.#pairs);
    sum(this.#merged, other.#merged);
  }

  figures(): Conflicts {
    const updates = this.#names.map((name, k): UpdateSize => {
      const [difference, before, after, product] = this.#sizes.subarray(4 * k) as unknown as Four;
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
        const [product, both, opposite] = this.#pairs.subarray(3 * pairs.length) as unknown as Three;
        pairs.push({
          names: [first.name, second.name],
          cosine: cosine(product, first.norm ** 2, second.norm ** 2),
          normRatio: ratio(first.norm ** 2, second.norm ** 2),
          signConflicts: both === 0 ? 0 : opposite / both,
        });
      }
    return { updates, pairs, change: ratio(this.#merged[0]!, this.#merged[1]!) };
  }
}

type Three = readonly [number, number, number];
type Four = readonly [number, number, number, number];

function compared(first: Update, second: Update): Three {
  let [product, both, opposite] = [0, 0, 0];
  for (let i = 0; i < first.from.length; i++) {
    const each = (first.to[i]! - first.from[i]!) * (second.to[i]! - second.from[i]!);
    if (each === 0) continue;
    product += each;
    both++;
    if (each < 0) opposite++;
  }
  return [product, both, opposite];
}

/** Root of a ratio of squares. */
function ratio(square: number, of: number): number | null {
  return of === 0 ? null : Math.sqrt(square / of);
}

/** 0 where one of the two is nothing. */
function cosine(product: number, first: number, second: number): number {
  return first === 0 || second === 0 ? 0 : Math.max(-1, Math.min(1, product / Math.sqrt(first * second)));
}
