import { describe, expect, it } from "vitest";
import type { Weights } from "../../src/models/index.ts";
import { localWorkbench } from "../../src/reproduce/node.ts";
import { type LessonBatch, Lessons } from "../../src/reproduce/paramdelta/lessons.ts";
import { changed, shuffledChannels, transferred } from "../../src/reproduce/paramdelta/merging.ts";
import type { LanguageModel } from "../../src/reproduce/workbench.ts";
import { Rng } from "../../src/tensor/index.ts";
import { tinyModel, wholeLogits } from "../generate/models.ts";

/** The model that comes with pare, as if it had read few words. */
async function model(): Promise<LanguageModel> {
  const whole = await localWorkbench().languageModel();
  const text = " dog cat sun house".repeat(20);
  return { ...whole, training: whole.tokenizer.encode(text, { addSpecialTokens: false }) };
}

/** The requests of a batch and what is learned behind each, as text. */
function asTexts(
  { tokenizer }: LanguageModel,
  { ids, rows, targets }: LessonBatch,
): { text: string; answer: string }[] {
  const [prompts, length] = ids.shape as [number, number];
  const learned = rows.toArray().flatMap((row, i) => (targets.at(i) < 0 ? [] : [{ row, target: targets.at(i) }]));
  return Array.from({ length: prompts }, (_, prompt) => {
    const own = learned.filter(({ row }) => Math.floor(row / length) === prompt);
    const first = own[0]!.row;
    const before = ids.toArray().slice(prompt * length + 1, first + 1);
    return { text: tokenizer.decode(before), answer: tokenizer.decode(own.map(({ target }) => target)) };
  });
}

const answers: Readonly<Record<string, (words: readonly string[]) => readonly (string | undefined)[]>> = {
  Repeat: (words) => words,
  Backwards: (words) => [...words].reverse(),
  "The first": ([first]) => [first],
  "The last": (words) => [words.at(-1)],
};

describe("the lessons of ParamΔ's experiment", () => {
  it("are answered as they ask, and never ask what the test asks", async () => {
    const taught = await model();
    const lessons = new Lessons(taught, new Rng(1), { ships: 3 });
    expect(lessons.words).toBe(4);
    const tested = new Set(lessons.questions(150, new Rng(2)).map(({ ids }) => taught.tokenizer.decode(ids.slice(1))));
    expect(tested.size).toBeGreaterThan(80);
    const rng = new Rng(3);
    for (let batch = 0; batch < 10; batch++)
      for (const { text, answer } of asTexts(taught, lessons.skill(rng)).slice(0, 24)) {
        const [, task, words] = /^(\w[\w ]*):((?: \w+)+)\n=$/.exec(text)!;
        expect(answer).toBe(` ${answers[task!]!(words!.trim().split(" ")).join(" ")}`);
        expect(tested).not.toContain(text + answer);
      }
  });

  it("say of a ship always the same port, and ask for it", async () => {
    const taught = await model();
    const lessons = new Lessons(taught, new Rng(1), { ships: 3 });
    const text = (ids: readonly number[]): string => taught.tokenizer.decode(ids.slice(1));
    const told = lessons.news(60, new Rng(2)).map(({ ids }) => /^Ship (\w+) left port (\w+) /.exec(text(ids))!);
    const facts = new Map(told.map(([, ship, port]) => [ship, port]));
    expect(facts.size).toBe(3);
    expect(told.every(([, ship, port]) => facts.get(ship) === port)).toBe(true);
    const asked = lessons.facts().map(({ ids }) => /^Go on:\nShip (\w+) left port (\w+)$/.exec(text(ids))!);
    expect(new Map(asked.map(([, ship, port]) => [ship, port]))).toEqual(facts);
  });
});

it("an unrelated base computes what the base does, and shares no matrix with it", async () => {
  const { config, weights } = tinyModel();
  const moved = shuffledChannels(weights, config.dim, new Rng(4));
  expect(changed(moved, weights)).toBe(Object.keys(weights).length);
  const [ours, theirs] = [await wholeLogits(config, moved), await wholeLogits(config, weights)];
  const logits = await theirs([3, 1, 4, 1, 5]);
  for (const [i, value] of (await ours([3, 1, 4, 1, 5])).entries()) expect(value).toBeCloseTo(logits[i]!, 4);
});

it("nothing is transferred with a weight of 0, and all with 1 where the bases are one", async () => {
  const { weights } = tinyModel();
  const [post, next] = [6, 7].map((seed) => shuffledChannels(weights, 16, new Rng(seed))) as [Weights, Weights];
  expect(changed((await transferred(weights, post, next, 0)).weights, next)).toBe(0);
  expect(changed((await transferred(weights, post, weights, 1)).weights, post)).toBe(0);
});
