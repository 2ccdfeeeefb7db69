import { describe, expect, it } from "vitest";
import { Rng } from "../../src/tensor/index.ts";
import { type Example, ExampleBatches, IGNORED } from "../../src/train/index.ts";

/** `question` tokens, then `answer` tokens that are learned; every token is its own. */
function example(first: number, question: number, answer: number): Example {
  const ids = Array.from({ length: question + answer }, (_, i) => first + i);
  return { ids, learned: ids.map((_, i) => i >= question) };
}

const numbers = (data: ArrayLike<unknown>): number[] => Array.from(data, Number);

describe("ExampleBatches", () => {
  it("has the token before each learned one predict it, and ignores all else", () => {
    const batches = new ExampleBatches([example(10, 2, 3)], { batch: 1, length: 8 });
    const { ids, targets } = batches.next();
    expect(numbers(ids.data)).toEqual([10, 11, 12, 13, 14, 0, 0, 0]);
    const none = IGNORED;
    expect(numbers(targets.data)).toEqual([none, 12, 13, 14, none, none, none, none]);
  });

  it("shows every example once an epoch, several to a row, with nothing of one learned from another", () => {
    const rng = new Rng(3);
    const examples = Array.from({ length: 40 }, (_, i) =>
      example(100 * (i + 1), 1 + rng.integer(4), 1 + rng.integer(5)),
    );
    const [batch, length] = [4, 24];
    const source = new ExampleBatches(examples, { batch, length, seed: 5 });
    const seen = new Map<number, number>();
    let rows = 0;
    while (source.state().epoch === 0) {
      const { ids, targets } = source.next();
      for (let i = 0; i < ids.size; i++) {
        const target = Number(targets.at(i));
        if (target === IGNORED) continue;
        // Each token stands right behind the one that its example has before it.
        expect(target).toBe(Number(ids.at(i)) + 1);
        seen.set(target, (seen.get(target) ?? 0) + 1);
      }
      rows += batch;
    }
    const learned = examples.flatMap(({ ids, learned }) => ids.filter((_, i) => learned[i]));
    for (const id of learned) expect(seen.get(id)).toBeGreaterThanOrEqual(1);
    const tokens = examples.reduce((sum, { ids }) => sum + ids.length, 0);
    // Little is padding: not many more rows than the tokens fill.
    expect(rows).toBeLessThanOrEqual(Math.ceil((1.35 * tokens) / length) + batch);
  });

  it("keeps the end of what is longer than a row", () => {
    const { ids, targets } = new ExampleBatches([example(0, 6, 4)], { batch: 1, length: 5 }).next();
    expect(numbers(ids.data)).toEqual([4, 5, 6, 7, 8]);
    expect(numbers(targets.data)).toEqual([IGNORED, 6, 7, 8, 9]);
  });

  it("goes on where it was", () => {
    const examples = Array.from({ length: 9 }, (_, i) => example(10 * i, 2, 3));
    const source = new ExampleBatches(examples, { batch: 2, length: 9, seed: 1 });
    for (let i = 0; i < 4; i++) source.next();
    const place = JSON.parse(JSON.stringify(source.state())) as unknown;
    const expected = numbers(source.next().ids.data);
    const other = new ExampleBatches(examples, { batch: 2, length: 9, seed: 1 });
    other.restore(place);
    expect(numbers(other.next().ids.data)).toEqual(expected);
    expect(() => other.restore({ epoch: "x" })).toThrow("the saved position in the data is damaged");
  });

  it("refuses examples of which nothing would be learned", () => {
    expect(() => new ExampleBatches([example(0, 1, 0), example(0, 0, 1)], { batch: 1, length: 8 })).toThrow(
      "none of 2 examples has anything to learn within 8 tokens",
    );
  });
});
