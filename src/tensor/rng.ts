import type { DType } from "./dtype.ts";
import { ArgumentError } from "./errors.ts";
import { HostTensor } from "./host.ts";
import { randomKey } from "./ops/random.ts";

/** A generator's whole state, as plain numbers that JSON keeps exactly. */
export interface RngState {
  /** What forks are derived from: the state that the generator started with. */
  readonly root: readonly number[];
  readonly state: readonly number[];
  /** The second half of the last pair of normal numbers, until it is asked for. */
  readonly spare: number | null;
}

/** A 32-bit finalizer (the one of MurmurHash3): every bit of the result depends on every bit of `x`. */
function mix32(x: number): number {
  let h = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Four well-mixed words that depend on all of `words`, in order. */
function digest(words: Iterable<number>): number[] {
  const state = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
  const absorb = (w: number): void => {
    for (let i = 0; i < 4; i++)
      state[i] = mix32(((state[i]! ^ w) + Math.imul(state[(i + 1) & 3]!, 0x9e3779b1) + i) | 0);
  };
  for (const w of words) absorb(w);
  absorb(1);
  absorb(2);
  return state;
}

const isWords = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length === 4 && value.every((w) => Number.isInteger(w) && w >= 0 && w < 2 ** 32);

/**
 * A seeded generator of random numbers for everything outside of graphs: xoshiro128** (Blackman and Vigna 2021), period
 * 2^128 - 1. `JSON.stringify` of it is its state, from which `Rng.fromJSON` goes on exactly where it was.
 */
export class Rng {
  readonly #root: readonly number[];
  /** A typed array, because words above 2^31 in fields would be boxed. */
  readonly #state: Int32Array;
  #spare: number | null;

  /** @param seed a whole number; neighbouring seeds give unrelated sequences. */
  constructor(seed: number | RngState) {
    if (typeof seed === "number" && !Number.isSafeInteger(seed))
      throw new ArgumentError(`a seed is a whole number below 2^53, not ${seed}`);
    const fresh = typeof seed === "number" ? digest([seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0]) : undefined;
    const { root, state, spare } = fresh ? { root: fresh, state: fresh, spare: null } : (seed as RngState);
    this.#root = root;
    this.#state = Int32Array.from(state);
    this.#spare = spare;
  }

  /** A generator that goes on from a state that `toJSON` gave. @throws ArgumentError when it is none. */
  static fromJSON(value: unknown): Rng {
    const { root, state, spare } = (value ?? {}) as Partial<Record<keyof RngState, unknown>>;
    if (
      !isWords(root) ||
      !isWords(state) ||
      state.every((w) => w === 0) ||
      !(spare === null || typeof spare === "number")
    )
      throw new ArgumentError(
        "this is not the state of a random generator: it needs root and state of four 32-bit words, and spare",
      );
    return new Rng({ root, state, spare });
  }

  toJSON(): RngState {
    return { root: this.#root, state: Array.from(this.#state, (w) => w >>> 0), spare: this.#spare };
  }

  /**
   * The generator called `name` of this one. It depends on the seed and the name only, not on what was drawn before,
   * so that parts of a program do not disturb each other's numbers.
   */
  fork(name: string | number): Rng {
    const root = digest([...this.#root, ...Array.from(`${name}`, (c) => c.codePointAt(0)!)]);
    return new Rng({ root, state: root, spare: null });
  }

  /** A random 32-bit number. */
  next(): number {
    const state = this.#state;
    const [a, b, c, d] = [state[0]!, state[1]!, state[2]!, state[3]!];
    const product = Math.imul(b, 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9) >>> 0;
    const turned = d ^ b;
    state[0] = a ^ turned;
    state[1] = b ^ c ^ a;
    state[2] = c ^ a ^ (b << 9);
    state[3] = (turned << 11) | (turned >>> 21);
    return result;
  }

  /** A random 53-bit number. */
  #wide(): number {
    return (this.next() >>> 5) * 2 ** 26 + (this.next() >>> 6);
  }

  /** Uniform from `low` to below `high`, at 2^53 equally spaced fractions. */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * (this.#wide() * 2 ** -53);
  }

  /** Normal with the given mean and standard deviation (polar method of Marsaglia and Bray 1964). */
  normal(mean = 0, std = 1): number {
    let value = this.#spare;
    if (value !== null) {
      this.#spare = null;
    } else {
      let [x, y, square] = [0, 0, 0];
      do {
        // Signed words, moved off zero by half a step.
        x = ((this.next() | 0) + 0.5) * 2 ** -31;
        y = ((this.next() | 0) + 0.5) * 2 ** -31;
        square = x * x + y * y;
      } while (square >= 1);
      const stretch = Math.sqrt((-2 * Math.log(square)) / square);
      value = x * stretch;
      this.#spare = y * stretch;
    }
    return mean + std * value;
  }

  /** A whole number from 0 to below `bound`, all equally likely. */
  integer(bound: number): number {
    if (!Number.isSafeInteger(bound) || bound < 1)
      throw new ArgumentError(`a random whole number needs a bound from 1 to 2^53, not ${bound}`);
    const range = bound <= 2 ** 32 ? 2 ** 32 : 2 ** 53;
    const fair = range - (range % bound);
    for (;;) {
      const drawn = range === 2 ** 32 ? this.next() : this.#wide();
      if (drawn < fair) return drawn % bound;
    }
  }

  /** `count` whole numbers from 0 to below `bound`, repetitions allowed. */
  integers(count: number, bound: number): number[] {
    return Array.from({ length: count }, () => this.integer(bound));
  }

  /** Puts `items` in random order, in place, and returns them (Fisher and Yates). */
  shuffle<A extends { [index: number]: unknown; readonly length: number }>(items: A): A {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      [items[i], items[j]] = [items[j], items[i]];
    }
    return items;
  }

  /** The numbers from 0 to below `count` in random order. */
  permutation(count: number): number[] {
    return this.shuffle(Array.from({ length: count }, (_, i) => i));
  }

  /** One of `items`; with `weights` (not negative, any sum) in proportion to them. */
  choice<T>(items: readonly T[], weights?: ArrayLike<number>): T {
    if (items.length === 0) throw new ArgumentError("there is nothing to choose from");
    if (!weights) return items[this.integer(items.length)]!;
    if (weights.length !== items.length)
      throw new ArgumentError(`${weights.length} weights were given for ${items.length} items`);
    let total = 0;
    for (let i = 0; i < weights.length; i++) {
      if (!(weights[i]! >= 0 && weights[i]! < Infinity))
        throw new ArgumentError(`weight ${i} is ${weights[i]}; weights are finite and not negative`);
      total += weights[i]!;
    }
    if (total === 0) throw new ArgumentError("all weights are 0");
    let left = this.uniform(0, total);
    // Rounding may leave a remainder behind the last weight: the last item with a weight takes it.
    let chosen = 0;
    for (let i = 0; i < weights.length; i++) {
      if (weights[i] === 0) continue;
      chosen = i;
      left -= weights[i]!;
      if (left < 0) break;
    }
    return items[chosen]!;
  }

  /** `count` different ones of `items`, in random order. */
  sample<T>(items: readonly T[], count: number): T[] {
    if (!Number.isInteger(count) || count < 0 || count > items.length)
      throw new ArgumentError(`${count} different items cannot be drawn from ${items.length}`);
    const pool = [...items];
    for (let i = 0; i < count; i++) {
      const j = i + this.integer(pool.length - i);
      [pool[i], pool[j]] = [pool[j]!, pool[i]!];
    }
    return pool.slice(0, count);
  }

  /** A key for random operations inside of graphs. */
  key(): HostTensor {
    return randomKey(this.integer(Number.MAX_SAFE_INTEGER));
  }

  /** A tensor of uniform numbers from `low` to `high`. */
  uniformTensor(shape: readonly number[], { low = 0, high = 1, dtype = "f32" as DType } = {}): HostTensor {
    return this.#fill(shape, dtype, () => this.uniform(low, high));
  }

  /** A tensor of normal numbers. */
  normalTensor(shape: readonly number[], { mean = 0, std = 1, dtype = "f32" as DType } = {}): HostTensor {
    return this.#fill(shape, dtype, () => this.normal(mean, std));
  }

  #fill(shape: readonly number[], dtype: DType, draw: () => number): HostTensor {
    const wide = HostTensor.zeros(dtype === "f64" ? "f64" : "f32", shape);
    const numbers = wide.data as Float64Array | Float32Array;
    for (let i = 0; i < numbers.length; i++) numbers[i] = draw();
    return wide.cast(dtype);
  }
}
