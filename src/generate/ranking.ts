/**
 * Indices in the order of their keys, largest first, equal keys by index: a binary heap, so that asking for the first
 * few of a whole vocabulary costs far less than sorting it.
 */
export class Ranking {
  readonly #keys: Float32Array | Float64Array;
  readonly #heap: Uint32Array;
  #size: number;

  /** @param indices what to rank; it is taken over and rearranged */
  constructor(keys: Float32Array | Float64Array, indices: Uint32Array) {
    this.#keys = keys;
    this.#heap = indices;
    this.#size = indices.length;
    for (let i = (this.#size >>> 1) - 1; i >= 0; i--) this.#sink(i);
  }

  /** The next index, or undefined when all have been given. */
  next(): number | undefined {
    if (this.#size === 0) return undefined;
    const first = this.#heap[0]!;
    this.#heap[0] = this.#heap[--this.#size]!;
    this.#sink(0);
    return first;
  }

  #sink(start: number): void {
    const [keys, heap, size] = [this.#keys, this.#heap, this.#size];
    const moved = heap[start]!;
    const key = keys[moved]!;
    let at = start;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= size) break;
      const right = child + 1;
      if (right < size && before(keys[heap[right]!]!, heap[right]!, keys[heap[child]!]!, heap[child]!)) child = right;
      const index = heap[child]!;
      if (!before(keys[index]!, index, key, moved)) break;
      heap[at] = index;
      at = child;
    }
    heap[at] = moved;
  }
}

function before(key: number, index: number, otherKey: number, otherIndex: number): boolean {
  return key > otherKey || (key === otherKey && index < otherIndex);
}
