import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Choice, type Item, knapsack, smallest } from "../../../src/methods/index.ts";

const itemsOf = fc
  .array(
    fc.array(fc.record({ bytes: fc.nat(30), cost: fc.nat(1000).map((n) => n / 64) }), { minLength: 1, maxLength: 4 }),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  .map((lists): Item[] => lists.map((choices, i) => ({ name: `part ${i}`, choices })));

/** Every way to choose. */
function* selections(items: readonly Item[], from = 0): Generator<{ bytes: number; cost: number }> {
  if (from === items.length) yield { bytes: 0, cost: 0 };
  else
    for (const { bytes, cost } of items[from]!.choices)
      for (const rest of selections(items, from + 1)) yield { bytes: bytes + rest.bytes, cost: cost + rest.cost };
}

const sums = (chosen: Readonly<Record<string, Choice>>) =>
  Object.values(chosen).reduce((a, c) => ({ bytes: a.bytes + c.bytes, cost: a.cost + c.cost }), { bytes: 0, cost: 0 });

test("the least cost under a budget is that of trying everything", () => {
  fc.assert(
    fc.property(itemsOf, fc.nat(150), (items, budget) => {
      const fitting = [...selections(items)].filter(({ bytes }) => bytes <= budget);
      if (fitting.length === 0) {
        expect(() => knapsack(items, budget)).toThrow(`${budget} bytes are too few: the smallest choices take`);
        return;
      }
      const best = knapsack(items, budget);
      expect(best.cost).toBe(Math.min(...fitting.map(({ cost }) => cost)));
      expect(best.bytes).toBeLessThanOrEqual(budget);
      expect(sums(best.chosen)).toEqual({ bytes: best.bytes, cost: best.cost });
      expect(Object.keys(best.chosen).sort()).toEqual(items.map(({ name }) => name).sort());
    }),
    { seed: 1, numRuns: 300 },
  );
});

test("the least size under a limit of cost is that of trying everything", () => {
  fc.assert(
    fc.property(itemsOf, fc.nat(80), (items, limit) => {
      const fitting = [...selections(items)].filter(({ cost }) => cost <= limit);
      if (fitting.length === 0) {
        expect(() => smallest(items, limit)).toThrow(`a cost of ${limit} cannot be met: the best choices cost`);
        return;
      }
      const best = smallest(items, limit);
      expect(best.bytes).toBe(Math.min(...fitting.map(({ bytes }) => bytes)));
      expect(best.cost).toBeLessThanOrEqual(limit);
      expect(sums(best.chosen)).toEqual({ bytes: best.bytes, cost: best.cost });
    }),
    { seed: 2, numRuns: 300 },
  );
});

test("hundreds of parts of unrelated sizes come close to the bound that dividing parts would give", () => {
  const items: Item[] = Array.from({ length: 200 }, (_, i) => ({
    name: `part ${i}`,
    choices: [2, 3, 4, 8].map((bits) => ({
      bytes: bits * (100_003 + 7919 * i),
      cost: ((i % 13) + 1) * 4 ** -bits,
    })),
  }));
  const least = items.reduce((n, { choices }) => n + choices[0]!.bytes, 0);
  const budget = Math.floor(least * 1.7);
  const found = knapsack(items, budget);
  expect(found.bytes).toBeLessThanOrEqual(budget);
  // By duality, each price of a byte bounds every selection's cost from below.
  const bound = (price: number): number =>
    items.reduce((n, { choices }) => n + Math.min(...choices.map(({ bytes, cost }) => cost + price * bytes)), 0) -
    price * budget;
  const best = Math.max(...Array.from({ length: 400 }, (_, i) => bound(10 ** (-4 - i / 50))));
  expect(found.cost).toBeGreaterThanOrEqual(best);
  expect(found.cost).toBeLessThan(best * 1.002);
}, 120_000);

describe("refuses", () => {
  test("parts without choices and choices without sizes", () => {
    expect(() => knapsack([{ name: "up", choices: [] }], 1)).toThrow('there is nothing to choose from for "up"');
    expect(() => knapsack([{ name: "up", choices: [{ bytes: 1.5, cost: 0 }] }], 1)).toThrow(
      'a choice for "up" has 1.5 bytes and cost 0',
    );
    expect(() => knapsack([{ name: "up", choices: [{ bytes: 1, cost: Number.NaN }] }], 1)).toThrow("cost NaN");
  });
});
