import { ArgumentError, Rng } from "../../tensor/index.ts";
import { type BatchSource, placeIn } from "../data.ts";

export interface PromptBatchOptions {
  /** Prompts in a batch. */
  readonly batch: number;
  readonly seed?: number;
}

/** Prompts in batches, all of them once an epoch, in another order each time. A batch may reach into the next epoch. */
export class PromptBatches<P> implements BatchSource<readonly P[]> {
  readonly #prompts: readonly P[];
  readonly #batch: number;
  readonly #seed: number;
  #epoch = 0;
  #at = 0;
  #order: readonly number[] = [];

  /** @throws ArgumentError where there are no prompts, or for a batch of none */
  constructor(prompts: readonly P[], { batch, seed = 0 }: PromptBatchOptions) {
    if (prompts.length === 0) throw new ArgumentError("there are no prompts");
    if (!Number.isInteger(batch) || batch < 1)
      throw new ArgumentError(`batch must be a whole number from 1, not ${batch}`);
    this.#prompts = prompts;
    this.#batch = batch;
    this.#seed = seed;
    this.#shuffle();
  }

  #shuffle(): void {
    this.#order = new Rng(this.#seed).fork(`epoch ${this.#epoch}`).permutation(this.#prompts.length);
  }

  next(): readonly P[] {
    return Array.from({ length: this.#batch }, () => {
      if (this.#at === this.#order.length) {
        this.#epoch++;
        this.#at = 0;
        this.#shuffle();
      }
      return this.#prompts[this.#order[this.#at++]!]!;
    });
  }

  state(): { epoch: number; at: number } {
    return { epoch: this.#epoch, at: this.#at };
  }

  restore(state: unknown): void {
    ({ epoch: this.#epoch, at: this.#at } = placeIn(state));
    this.#shuffle();
  }
}
