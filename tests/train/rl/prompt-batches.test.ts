import { describe, expect, it } from "vitest";
import { PromptBatches } from "../../../src/train/index.ts";

describe("PromptBatches", () => {
  const prompts = Array.from({ length: 10 }, (_, i) => i);

  it("shows every prompt once an epoch, in another order each time", () => {
    const batches = new PromptBatches(prompts, { batch: 4, seed: 3 });
    const drawn = Array.from({ length: 5 }, () => batches.next()).flat();
    const [first, second] = [drawn.slice(0, 10), drawn.slice(10)];
    const ascending = (part: readonly number[]): number[] => [...part].sort((a, b) => a - b);
    expect([ascending(first), ascending(second)]).toEqual([prompts, prompts]);
    expect(first).not.toEqual(second);
  });

  it("goes on where a saved position was, across epochs", () => {
    const batches = new PromptBatches(prompts, { batch: 4 });
    for (let i = 0; i < 4; i++) batches.next();
    const state = JSON.parse(JSON.stringify(batches.state()));
    const expected = [batches.next(), batches.next(), batches.next()];
    const other = new PromptBatches(prompts, { batch: 4 });
    other.restore(state);
    expect([other.next(), other.next(), other.next()]).toEqual(expected);
  });

  it("refuses no prompts, and batches of none", () => {
    expect(() => new PromptBatches([], { batch: 4 })).toThrow("there are no prompts");
    expect(() => new PromptBatches(prompts, { batch: 0 })).toThrow("batch must be a whole number from 1, not 0");
  });
});
