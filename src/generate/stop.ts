import { ArgumentError } from "../tensor/index.ts";

/**
 * Looks for stop strings in text that comes in pieces. What may be the start of one is held back until it is known, so
 * that nothing of a stop string is ever let through; where the text was cut into pieces makes no difference.
 */
export class StopFinder {
  readonly #stops: readonly string[];
  #held = "";

  /** @throws ArgumentError for an empty stop string */
  constructor(stops: readonly string[]) {
    if (stops.includes("")) throw new ArgumentError("a stop string must not be empty: it would end every text");
    this.#stops = stops;
  }

  /** Takes more text. @returns the text that is certain now, up to the stop string that is complete first */
  push(text: string): { readonly text: string; readonly stopped: boolean } {
    const held = this.#held + text;
    let [start, end] = [held.length, Number.POSITIVE_INFINITY];
    for (const stop of this.#stops) {
      const at = held.indexOf(stop);
      if (at < 0 || at + stop.length > end) continue;
      start = at + stop.length < end ? at : Math.min(start, at);
      end = at + stop.length;
    }
    const stopped = end < Number.POSITIVE_INFINITY;
    if (!stopped) start -= this.#startOfStop(held);
    this.#held = stopped ? "" : held.slice(start);
    return { text: held.slice(0, start), stopped };
  }

  /** What is still held back, at the end of the text. */
  end(): string {
    const held = this.#held;
    this.#held = "";
    return held;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  #startOfStop(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      let length = Math.min(stop.length - 1, text.length);
      while (length > longest && !text.endsWith(stop.slice(0, length))) length--;
      longest = Math.max(longest, length);
    }
    return longest;
  }
}
