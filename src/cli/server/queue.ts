import { ApiError } from "./errors.ts";

/** Lets one in at a time, in the order in which they came, and no more than so many wait. */
export class Queue {
  readonly #capacity: number;
  readonly #waiting: (() => void)[] = [];
  #busy = false;

  /** @param capacity how many may wait */
  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /**
   * Waits for a turn, which ends when what this returns is disposed.
   * @throws ApiError when too many wait; the signal's reason when it comes first
   */
  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#busy) await this.#wait(signal);
    this.#busy = true;
    return { [Symbol.dispose]: () => this.#next() };
  }

  #wait(signal: AbortSignal): Promise<void> {
    if (this.#waiting.length >= this.#capacity) {
      const message = `${this.#waiting.length} requests are waiting already; try again later`;
      throw new ApiError(429, message, { reason: "queue_full", headers: { "retry-after": "1" } });
    }
    return new Promise((resolve, reject) => {
      const enter = (): void => {
        signal.removeEventListener("abort", leave);
        resolve();
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(enter), 1);
        reject(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiting.push(enter);
    });
  }

  /** Hands the turn over without a moment in which a newcomer could take it. */
  #next(): void {
    const enter = this.#waiting.shift();
    if (enter) enter();
    else this.#busy = false;
  }
}
