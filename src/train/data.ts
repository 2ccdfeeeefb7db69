import { ArgumentError, HostTensor, Rng } from "../tensor/index.ts";

/**
 * A stream of batches that knows where it is: `state` and `restore` let a stopped run go on with exactly the batch that would
 * have come next.
 */
export interface BatchSource<B> {
  next(): B;
  /** Where the stream stands, as plain JSON. */
  state(): unknown;
  restore(state: unknown): void;
}

/** Token sequences and, one position ahead, their targets, both `i64 [batch, length]`. */
export interface TokenBatch<T = HostTensor> {
  readonly ids: T;
  readonly targets: T;
}

export interface TokenBatchOptions {
  readonly batch: number;
  readonly length: number;
  readonly seed?: number;
}

/**
 * Windows of a long token sequence in random order: each epoch goes through all non-overlapping windows once, starting from
 * another offset.
 */
export class TokenBatches implements BatchSource<TokenBatch> {
  readonly #tokens: ArrayLike<number>;
  readonly #batch: number;
  readonly #length: number;
  readonly #seed: number;
  #epoch = 0;
  #at = 0;
  #order: readonly number[] = [];
  #offset = 0;

  /** @throws ArgumentError when the tokens do not fill one batch. */
  constructor(tokens: ArrayLike<number>, { batch, length, seed = 0 }: TokenBatchOptions) {
    if (Math.floor((tokens.length - 1) / length) - 1 < batch) {
      throw new ArgumentError(
        `${tokens.length} tokens do not fill one batch of ${batch} x ${length}; give more text or smaller batches`,
      );
    }
    this.#tokens = tokens;
    this.#batch = batch;
    this.#length = length;
    this.#seed = seed;
    this.#shuffle();
  }

  /** Batches in one epoch. */
  get batchesPerEpoch(): number {
    return Math.floor(this.#order.length / this.#batch);
  }

  #shuffle(): void {
    const rng = new Rng(this.#seed).fork(`epoch ${this.#epoch}`);
    this.#offset = rng.integer(this.#length);
    this.#order = rng.permutation(Math.floor((this.#tokens.length - 1 - this.#offset) / this.#length));
  }

  next(): TokenBatch {
    if (this.#at + this.#batch > this.#order.length) {
      this.#epoch++;
      this.#at = 0;
      this.#shuffle();
    }
    const windows = this.#order.slice(this.#at, this.#at + this.#batch);
    this.#at += this.#batch;
    return tokenBatch(
      this.#tokens,
      windows.map((i) => this.#offset + i * this.#length),
      this.#length,
    );
  }

  state(): { epoch: number; at: number } {
    return { epoch: this.#epoch, at: this.#at };
  }

  restore(state: unknown): void {
    ({ epoch: this.#epoch, at: this.#at } = placeIn(state));
    this.#shuffle();
  }
}

/** A saved position in epochs of data. @throws ArgumentError where it is damaged */
export function placeIn(state: unknown): { epoch: number; at: number } {
  const { epoch, at } = (state ?? {}) as { epoch?: unknown; at?: unknown };
  if (!Number.isSafeInteger(epoch) || !Number.isSafeInteger(at))
    throw new ArgumentError("the saved position in the data is damaged: epoch and at must be whole numbers");
  return { epoch: epoch as number, at: at as number };
}

/** The windows that begin at `starts`, with the tokens one further as targets. */
export function tokenBatch(tokens: ArrayLike<number>, starts: readonly number[], length: number): TokenBatch {
  const ids = HostTensor.zeros("i64", [starts.length, length]);
  const targets = HostTensor.zeros("i64", [starts.length, length]);
  starts.forEach((start, row) => {
    for (let i = 0; i < length; i++) {
      ids.set(row * length + i, tokens[start + i]!);
      targets.set(row * length + i, tokens[start + i + 1]!);
    }
  });
  return { ids, targets };
}

/** Batches that are made with random numbers; the stream's state is the generator's. */
export function drawnBatches<B>(start: Rng, make: (rng: Rng) => B): BatchSource<B> {
  let rng = start;
  return {
    next: () => make(rng),
    state: () => rng.toJSON(),
    restore(state) {
      rng = Rng.fromJSON(state);
    },
  };
}
