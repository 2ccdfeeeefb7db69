import { describe, expect, it } from "vitest";
import { examOf } from "../../src/reproduce/llm-kick/exam.ts";
import { type LessonPlan, Lessons, rowsOf } from "../../src/reproduce/llm-kick/lessons.ts";
import { selfTests } from "../../src/reproduce/llm-kick/self-tests.ts";
import { World } from "../../src/reproduce/llm-kick/world.ts";
import { Rng } from "../../src/tensor/index.ts";

const text = "The hen sat on the egg and the cat sat on the hen. ".repeat(50);
const world = new World(text, { seed: 1, textVocab: 300, persons: 30, names: 20, values: 10 });
const read = world.tokenizer.encode(text, { addSpecialTokens: false });
const plan: LessonPlan = {
  length: 40,
  rows: { text: 2, facts: 3, reading: 4, drill: 1 },
  strangers: [2, 3],
  pool: 8,
};

describe("the world of LLM-KICK", () => {
  it("has three facts for each person, and a token for each name and value", () => {
    expect(world.facts).toHaveLength(90);
    for (const { person, value } of world.facts)
      for (const word of [...person, value])
        expect(world.tokenizer.encode(word, { addSpecialTokens: false })).toHaveLength(1);
  });

  it("draws strangers that it does not know, no two with a name or value in common", () => {
    const known = new Set(world.facts.map(({ person }) => person.join("")));
    const rng = new Rng(0);
    for (let i = 0; i < 50; i++) {
      const strangers = world.fresh(3, rng, 8);
      for (const { person } of strangers) expect(known).not.toContain(person.join(""));
      for (const of of [0, 1] as const) expect(new Set(strangers.map(({ person }) => person[of])).size).toBe(3);
      expect(new Set(strangers.map(({ value }) => value)).size).toBe(3);
    }
  });
});

describe("the lessons of LLM-KICK", () => {
  it("counts each kind by its rows, and nothing but text that is all read", () => {
    const { weights } = new Lessons(world, read, plan, new Rng(2)).next();
    const of = (from: number, to: number): number => {
      let sum = 0;
      for (let k = from * plan.length; k < to * plan.length; k++) sum += weights.at(k);
      return sum;
    };
    for (const [from, to] of [rowsOf(plan, "text", "text"), rowsOf(plan, "facts", "facts")])
      expect(of(from, to)).toBeCloseTo((to - from) / 10, 5);
    expect(rowsOf(plan, "reading", "drill")).toEqual([5, 10]);
    expect(of(0, 10)).toBeCloseTo(1, 5);
  });

  it("asks of strangers only what stands in the row before", () => {
    const { ids, targets, weights } = new Lessons(world, read, plan, new Rng(3)).next();
    const [from, to] = rowsOf(plan, "reading", "drill");
    let asked = 0;
    for (let row = from; row < to; row++)
      for (let at = 0; at < plan.length; at++) {
        const k = row * plan.length + at;
        if (weights.at(k) === 0) continue;
        asked++;
        const seen = Array.from({ length: at }, (_, i) => ids.at(row * plan.length + i));
        const place = seen.indexOf(ids.at(k));
        expect(place).toBeGreaterThanOrEqual(0);
        expect(ids.at(row * plan.length + place + 1)).toBe(targets.at(k));
      }
    expect(asked).toBeGreaterThan(10);
  });

  it("draws the same lesson for the same number, and another for the next", () => {
    const [one, other] = [0, 0].map(() => new Lessons(world, read, plan, new Rng(4)));
    expect(one!.next().ids.data).toEqual(other!.next().ids.data);
    other!.restore(0);
    expect(one!.next().ids.data).not.toEqual(other!.next().ids.data);
  });
});

it("scores an oracle, a silent model and one that draws letters as it should", async () => {
  const tasks = examOf(world, { mcq: 60, closed: 10, open: 10 }, new Rng(5));
  expect(tasks.map(({ name, items }) => [name, items.length])).toEqual([
    ["factoid", 90],
    ["mcq", 60],
    ["icrqa-closed", 10],
    ["icrqa-open", 10],
  ]);
  expect(examOf(world, {}, new Rng(5))).toHaveLength(1);
  const { oracle, silent, guessers } = await selfTests(tasks, world.tokenizer, new Rng(6));
  expect([oracle, silent]).toEqual([1, 0]);
  expect(guessers).toBeGreaterThan(0.9);
  expect(guessers).toBeLessThan(1);
});
