import { describe, expect, test } from "vitest";
import {
  continuationItems,
  DecoderReader,
  likeliestContinuation,
  nextWord,
  scoreOf,
  wordItems,
} from "../../../src/evaluate/index.ts";
import { complete, DecoderSession } from "../../../src/generate/index.ts";
import { embeddedTokenizer, tinyTextModel } from "../scorers.ts";
import { plainReader } from "./readers.ts";

/** Words that do not repeat within a passage, but for those asked for. */
const passage = (n: number): string[] =>
  Array.from({ length: 71 }, (_, i) => (i === 45 ? "Apple," : i === 50 ? `fresh${"abc"[n]}` : `w${n}x${i}`));
const text = [0, 1].flatMap((n) => ["apple", ...passage(n).slice(1, 70)]).join(" ");

describe("items made of texts", () => {
  test("ask for words that the passage has had, and for others", () => {
    const { seen, unseen } = wordItems([`${text} end`]);
    expect(seen.map(({ answers }) => answers)).toEqual([["apple"], ["apple"]]);
    expect(unseen.map(({ answers }) => answers)).toEqual([["fresha"], ["freshb"]]);
    for (const { question, answers } of seen) expect(question.split(" ")).toContain(answers[0]);
    for (const { question, answers } of unseen) expect(question.toLowerCase()).not.toContain(answers[0]);
    expect(seen[0]!.question.split(" ")).toHaveLength(45);
  });

  test("take the first word of an answer, and all of it", async () => {
    const { seen } = wordItems([`${text} end`]);
    const score = async (answer: string) => {
      const task = nextWord(seen);
      return scoreOf(
        seen,
        await task.run(
          plainReader(() => answer),
          seen,
          { seed: 0 },
        ),
        "hit",
      ).value;
    };
    expect(await score(' "Apple," she said')).toBe(1);
    expect(await score(" apples")).toBe(0);
    expect(await score(" an apple")).toBe(0);
    expect(await score("")).toBe(0);
  });

  test("of continuations are won by the likeliest", async () => {
    const items = continuationItems([Array.from({ length: 400 }, (_, i) => `w${i}`).join(" ")]);
    const task = likeliestContinuation(items);
    const knowing = plainReader(
      () => "",
      (prompt, next) => {
        const last = Number(/w(\d+)$/.exec(prompt)![1]);
        return Number(next.startsWith(` w${last + 1} `));
      },
    );
    expect(scoreOf(items, await task.run(knowing, items, { seed: 0 }), "likeliest").value).toBe(1);
    const contrary = plainReader(
      () => "",
      (prompt, next) => -Number(next.startsWith(` w${Number(/w(\d+)$/.exec(prompt)![1]) + 1} `)),
    );
    expect(scoreOf(items, await task.run(contrary, items, { seed: 0 }), "likeliest").value).toBe(0);
  });
});

describe("a decoder as a reader", () => {
  test("answers many prompts as it answers each, within its context", async () => {
    const tokenizer = await embeddedTokenizer();
    const model = tinyTextModel(tokenizer, 24);
    await using reader = await DecoderReader.open({ ...model, tokenizer }, { threads: 1 });
    await using session = await DecoderSession.open(model.config, model.weights, { threads: 1 });
    const prompts = ["Once upon", "The hen", "A very long day for the hen and the cat"];
    const answers = await reader.answer(prompts, { maxTokens: [3, 2, 500] });
    for (const [i, prompt] of prompts.entries()) {
      const alone = await complete(session, tokenizer, prompt, { maxTokens: [3, 2, 500][i]!, temperature: 0 });
      expect(answers[i]!.text).toBe(alone.text.slice(0, answers[i]!.text.length));
      expect(answers[i]!.ids.length).toBeGreaterThan(0);
    }
    expect(answers[1]!.ids).toHaveLength(2);
    expect(answers[2]!.ids.length).toBeLessThanOrEqual(24);
  });

  test("weighs continuations by their log-probability, and chats in lines without a template", async () => {
    const tokenizer = await embeddedTokenizer();
    await using reader = await DecoderReader.open({ ...tinyTextModel(tokenizer), tokenizer }, { threads: 1 });
    const [[first, second]] = (await reader.weigh(["Once"], [" upon", " hen"])) as [[number, number]];
    for (const weight of [first, second]) expect(weight).toBeLessThan(0);
    expect(first).not.toBe(second);
    const ids = reader.chat([{ role: "user", content: "Hello" }]);
    expect(tokenizer.chatTemplate).toBeUndefined();
    expect(tokenizer.decode(ids)).toContain("USER: Hello\nASSISTANT:");
  });
});
