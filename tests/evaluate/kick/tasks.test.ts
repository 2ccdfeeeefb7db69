import { describe, expect, test } from "vitest";
import {
  closedBook,
  factoid,
  instruct,
  type KickItem,
  type KickTask,
  multipleChoice,
  openBook,
  type Reader,
  scoreOf,
  summary,
  uniqueTokens,
} from "../../../src/evaluate/index.ts";
import { guesser, listJudge, oracle, plainReader, silent } from "./readers.ts";

const questions: KickItem[] = Array.from({ length: 400 }, (_, i) => ({
  id: `${i}`,
  question: `Who rules land ${i}?`,
  answers: [`Queen ${i}X`, `${i}X the First`],
  context: `Land ${i} is ruled by Queen ${i}X.`,
  choices: ["w", "x", "y", "z"].map((end) => `Queen ${i}${end.toUpperCase()}`),
  groups: { subject: i % 2 === 0 ? "even lands" : "odd lands" },
}));
const turns: KickItem[] = questions.slice(0, 20).map((item) => ({ ...item, further: ["And why?"] }));
const letters = questions.map((item, i) => {
  const at = i % 4;
  const right = item.choices![1]!;
  const others = item.choices!.filter((choice) => choice !== right);
  return { ...item, choices: others.toSpliced(at, 0, right) };
});

/** Scores by the share of the right answer that is there. */
const fair = () => listJudge(async (_, a, b) => ({ a: fairScores(a), b: fairScores(b), raw: "" }));
const fairScores = (text: string): number[] => [text === "" ? 1 : 10];
const fourfold = () =>
  listJudge(async (_, a, b) => ({
    a: Array.from({ length: 4 }, () => fairScores(a)[0]!),
    b: Array.from({ length: 4 }, () => fairScores(b)[0]!),
    raw: "",
  }));

async function score(task: KickTask, reader: Reader, judging = fair()): Promise<Record<string, number | null>> {
  const results = await task.run(reader, task.items, { seed: 0, judging });
  return Object.fromEntries(task.metrics.map((metric) => [metric, scoreOf(task.items, results, metric).value]));
}

const first = ({ answers }: KickItem): string => answers[0]!;

describe("an oracle", () => {
  test("is right everywhere", async () => {
    expect(await score(factoid(questions), oracle(questions, first))).toEqual({ hit: 1 });
    for (const book of [closedBook, openBook])
      expect(await score(book(questions), oracle(questions, first))).toEqual({ match: 1, equal: 1, f1: 1 });
    const letter = (item: KickItem): string => "ABCD"[item.choices!.indexOf(first(item))]!;
    expect(await score(multipleChoice(letters), oracle(letters, letter))).toEqual({ letter: 1, argmax: 1 });
    expect((await score(instruct(turns), oracle(turns, first)))["score"]).toBe(10);
    const judged = await score(summary(turns), oracle(turns, first), fourfold());
    expect(judged["ratio"]).toBe(1);
  });
});

describe("a model that says nothing", () => {
  test("is wrong everywhere", async () => {
    expect(await score(factoid(questions), silent)).toEqual({ hit: 0 });
    for (const book of [closedBook, openBook])
      expect(await score(book(questions), silent)).toEqual({ match: 0, equal: 0, f1: 0 });
    expect((await score(multipleChoice(letters), silent))["letter"]).toBe(0);
    expect(await score(instruct(turns), silent)).toEqual({ score: 0, unique: 0 });
    expect((await score(summary(turns), silent, fourfold()))["ratio"]).toBe(0);
    expect(await score(uniqueTokens(turns), silent)).toEqual({ unique: 0 });
  });
});

describe("a model that guesses letters", () => {
  test("is right a quarter of the time, within the interval, whatever the seed", async () => {
    for (const seed of [1, 2, 3]) {
      const task = multipleChoice(letters);
      const results = await task.run(guesser(seed), task.items, { seed: 0 });
      for (const metric of task.metrics) {
        const { low, high, items } = scoreOf(task.items, results, metric);
        expect(items).toBe(400);
        // Half as wide again: three seeds and two metrics are six draws.
        const slack = (high! - low!) / 4;
        expect(low! - slack).toBeLessThan(0.25);
        expect(high! + slack).toBeGreaterThan(0.25);
      }
    }
  });
});

describe("the factoid task", () => {
  test("looks at what was generated, not at the prompt", async () => {
    const item = { id: "0", question: "Is it Paris?", answers: ["Paris"] };
    expect(
      await score(
        factoid([item]),
        plainReader(() => "London"),
      ),
    ).toEqual({ hit: 0 });
  });

  test("allows twice the prompt's tokens, and asks as the paper does", async () => {
    const limits: unknown[] = [];
    const reader = plainReader(() => "x");
    const answer = reader.answer.bind(reader);
    await score(factoid(questions.slice(0, 1)), {
      ...reader,
      answer: (prompts, options) => {
        limits.push(options.maxTokens);
        return answer(prompts, options);
      },
    });
    const prompt = "Please give answer to this question: Who rules land 0?\nThe answer is ";
    expect(reader.prompts).toEqual([prompt]);
    // The characters' tokenizer puts no token before a text.
    expect(limits).toEqual([[2 * prompt.length]]);
  });

  test("divides by the items that were asked", async () => {
    const three = questions.slice(0, 3);
    expect(
      await score(
        factoid(three),
        oracle(three, ({ id, answers }) => (id === "0" ? answers[1]! : "?")),
      ),
    ).toEqual({
      hit: 1 / 3,
    });
  });
});

describe("the open book", () => {
  test("is cut where it is too long for the model, and the question is not", async () => {
    const reader = plainReader(() => "Paris", undefined, 200);
    const task = openBook([{ id: "0", question: "Where?", answers: ["Paris"], context: "abcdefghij".repeat(50) }]);
    expect(await score(task, reader)).toEqual({ match: 1, equal: 1, f1: 1 });
    const [prompt] = reader.prompts;
    expect(prompt).toMatch(/^(abcdefghij)+/);
    expect(prompt!.endsWith("\nBased on these texts, answer these questions:\n\nQ: Where?\nA:")).toBe(true);
    expect(prompt!.length).toBeLessThanOrEqual(200 - 32);
    expect(prompt!.length).toBeGreaterThan(200 - 32 - 10);
  });

  test("refuses a question that alone is too long", async () => {
    const task = openBook([{ id: "0", question: "Where? ".repeat(30), answers: ["Paris"], context: "abc" }]);
    await expect(
      score(
        task,
        plainReader(() => "", undefined, 100),
      ),
    ).rejects.toThrow(/a question of 264 tokens leaves no room for its answer: the model takes 100 tokens/);
  });

  test("takes at most 3072 characters, and the first line of an answer", async () => {
    const reader = plainReader(() => "\n Paris \nLondon");
    const task = openBook([{ id: "0", question: "Where?", answers: ["Paris"], context: "x".repeat(5000) }]);
    expect(await score(task, reader)).toEqual({ match: 1, equal: 1, f1: 1 });
    expect(reader.prompts[0]!.match(/^x+/)![0]).toHaveLength(3072);
  });
});

describe("multiple choice", () => {
  test("drops shots until the prompt fits", async () => {
    const shots = letters.slice(10, 16);
    const reader = plainReader(() => "A");
    const task = multipleChoice(letters.slice(0, 1), { shots, promptTokens: 400 });
    await score(task, reader);
    const count = reader.prompts[0]!.split("Answer:").length - 2;
    expect(reader.prompts[0]!.length).toBeLessThanOrEqual(400);
    expect(count).toBe(3);
    expect(reader.prompts[0]).toContain("(with answers) about even lands.");
    expect(reader.prompts[0]).not.toContain("land 11?");
  });

  test("refuses an answer that is none of the choices", () => {
    const item = { id: "7", question: "?", answers: ["e"], choices: ["a", "b"] };
    expect(() => multipleChoice([item])).toThrow('the question 7: none of its choices is its answer ["e"]');
    expect(() => multipleChoice([{ ...item, choices: ["e"] }])).toThrow("has 1 choices; multiple choice takes 2 to 8");
  });

  test("is also scored by subject", async () => {
    const task = multipleChoice(letters);
    const results = await task.run(
      oracle(letters, ({ groups, choices, answers }) =>
        groups!["subject"] === "odd lands" ? "ABCD"[choices!.indexOf(answers[0]!)]! : "none",
      ),
      task.items,
      { seed: 0 },
    );
    expect(scoreOf(task.items, results, "letter").groups).toEqual({
      subject: { "even lands": { value: 0, items: 200 }, "odd lands": { value: 1, items: 200 } },
    });
  });
});

describe("unique tokens", () => {
  test("tell a text that goes round in circles", async () => {
    expect(
      await score(
        uniqueTokens(turns),
        plainReader(() => "ababababab"),
      ),
    ).toEqual({ unique: 2 });
  });
});
