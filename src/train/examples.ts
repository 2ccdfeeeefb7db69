import { ArgumentError, HostTensor, Rng } from "../tensor/index.ts";
import { IGNORED } from "./answers.ts";
import { type BatchSource, placeIn, type TokenBatch, type TokenBatchOptions } from "./data.ts";

/** A text of which some tokens are to be learned: the answers of a conversation, say. */
export interface Example {
  readonly ids: readonly number[];
  /** For each token whether the model is to learn to predict it; the first one cannot be. */
  readonly learned: readonly boolean[];
}

/**
 * Batches of whole examples, several to a row where they fit, in another order each epoch; targets of what is not
 * learned, and of padding, are `IGNORED`. Rows are filled first-fit, so that little is padding. An example longer than a
 * row loses its beginning.
 */
export class ExampleBatches implements BatchSource<TokenBatch> {
  readonly #examples: readonly Example[];
  readonly #batch: number;
  readonly #length: number;
  readonly #seed: number;
  #epoch = 0;
  #at = 0;
  #rows: readonly (readonly number[])[] = [];

  /** @throws ArgumentError where no example has a token to learn within a row */
  constructor(examples: readonly Example[], { batch, length, seed = 0 }: TokenBatchOptions) {
    this.#examples = examples
      .map(({ ids, learned }) => ({ ids: ids.slice(-length - 1), learned: learned.slice(-length - 1) }))
      .filter(({ learned }) => learned.some((wanted, i) => wanted && i > 0));
    if (this.#examples.length === 0)
      throw new ArgumentError(`none of ${examples.length} examples has anything to learn within ${length} tokens`);
    this.#batch = batch;
    this.#length = length;
    this.#seed = seed;
    this.#pack();
  }

  /** Examples that have something to learn. */
  get count(): number {
    return this.#examples.length;
  }

  /** First-fit over a shuffled order; only the newest rows are looked at, so that it stays quick and random. */
  #pack(): void {
    const order = new Rng(this.#seed).fork(`epoch ${this.#epoch}`).permutation(this.#examples.length);
    const rows: { readonly members: number[]; room: number }[] = [];
    for (const i of order) {
      const need = this.#examples[i]!.ids.length;
      const fitting = rows.slice(-OPEN_ROWS).find(({ room }) => room >= need);
      if (fitting) {
        fitting.members.push(i);
        fitting.room -= need;
      } else rows.push({ members: [i], room: this.#length + 1 - need });
    }
    this.#rows = rows.map(({ members }) => members);
  }

  next(): TokenBatch {
    const [batch, length] = [this.#batch, this.#length];
    const ids = HostTensor.zeros("i64", [batch, length]);
    const targets = HostTensor.zeros("i64", [batch, length]);
    for (let i = 0; i < targets.size; i++) targets.set(i, IGNORED);
    for (let row = 0; row < batch; row++) {
      let place = row * length;
      for (const member of this.#row()) {
        const example = this.#examples[member]!;
        example.ids.forEach((id, i) => {
          // The last token of a full row is a target only.
          if (place + i < (row + 1) * length) ids.set(place + i, id);
          if (i > 0 && example.learned[i]) targets.set(place + i - 1, id);
        });
        place += example.ids.length;
      }
    }
    return { ids, targets };
  }

  #row(): readonly number[] {
    if (this.#at === this.#rows.length) {
      this.#epoch++;
      this.#at = 0;
      this.#pack();
    }
    return this.#rows[this.#at++]!;
  }

  state(): { epoch: number; at: number } {
    return { epoch: this.#epoch, at: this.#at };
  }

  restore(state: unknown): void {
    ({ epoch: this.#epoch, at: this.#at } = placeIn(state));
    this.#pack();
  }
}

/** Rows that an example may still go into. */
const OPEN_ROWS = 64;
