import { describe, expect, test } from "vitest";
import {
  endpointJudge,
  instruct,
  JudgeReplyError,
  judgeBothOrders,
  type KickItem,
  promptedJudge,
  readerJudge,
  readScores,
  scoreOf,
  summary,
} from "../../../src/evaluate/index.ts";
import { listJudge, plainReader } from "./readers.ts";

const rubric = { text: "Judge.", dimensions: ["quality"] };
const item: KickItem = { id: "0", question: "Why?", answers: [], context: "A story.", references: ["Because."] };

describe("a judge's reply", () => {
  test("is lines of two scores, with other lines around them", () => {
    expect(readScores("Well:\n7 8\n", 1)).toEqual({ a: [7], b: [8] });
    expect(readScores("9 8.5\n1, 10\n2/3\n4\t5", 4)).toEqual({ a: [9, 1, 2, 4], b: [8.5, 10, 3, 5] });
  });

  test("of another form is refused", () => {
    for (const raw of ["", "good", "7", "7 11", "0 5", "7 8\n7 8", "7 8 9"])
      expect(() => readScores(raw, 1)).toThrow("the judge's reply is not 1 line of two scores from 1 to 10");
    expect(() => readScores("7 8", 4)).toThrow('is not 4 lines of two scores from 1 to 10: "7 8"');
  });
});

describe("judging", () => {
  test("averages both orders, so that a judge who prefers the first place is even", async () => {
    const judging = listJudge(async () => ({ a: [9], b: [5], raw: "9 5" }));
    expect(await judgeBothOrders(judging, "q", "x", "y", rubric)).toEqual({ answer: [7], other: [7] });
    expect(judging.calls.map(({ first, verdict }) => [first, verdict])).toEqual([
      [true, { a: [9], b: [5] }],
      [false, { a: [9], b: [5] }],
    ]);
  });

  test("asks twice again after replies that cannot be read, and logs each", async () => {
    const replies = ["?", "??", "8 4", "3 9"];
    const judge = promptedJudge("p", async () => replies.shift()!);
    const judging = listJudge(judge.compare);
    expect(await judgeBothOrders(judging, "q", "x", "y", rubric)).toEqual({ answer: [8.5], other: [3.5] });
    expect(judging.calls.map(({ attempt, raw }) => [attempt, raw])).toEqual([
      [1, "?"],
      [2, "??"],
      [3, "8 4"],
      [1, "3 9"],
    ]);
  });

  test("excludes and counts an item whose replies stay unreadable", async () => {
    const judging = listJudge(async (question) => {
      if (question.includes("Why")) throw new JudgeReplyError("no", 1);
      return { a: [6], b: [6], raw: "6 6" };
    });
    const task = instruct([item, { ...item, id: "1", question: "How?" }]);
    const results = await task.run(
      plainReader(() => "So."),
      task.items,
      { seed: 0, judging },
    );
    expect(scoreOf(task.items, results, "score")).toMatchObject({ value: 6, items: 1, excluded: 1 });
    expect(judging.calls.filter(({ verdict }) => verdict === null)).toHaveLength(6);
    expect(scoreOf(task.items, results, "unique")).toMatchObject({ value: 3, items: 2, excluded: 0 });
  });

  test("gives the ratio to the reference, by dimension", async () => {
    const judging = listJudge(async (_, a) => {
      const [ours, theirs] = [
        [2, 4, 6, 8],
        [4, 4, 4, 4],
      ];
      return a === "Short." ? { a: ours!, b: theirs!, raw: "" } : { a: theirs!, b: ours!, raw: "" };
    });
    const task = summary([item]);
    const [result] = await task.run(
      plainReader(() => "Short."),
      task.items,
      { seed: 0, judging },
    );
    expect(result!.values).toEqual({ ratio: 1.25, coherence: 0.5, consistency: 1, fluency: 1.5, relevance: 2 });
  });

  test("takes the dense model's answer where an item has no reference", async () => {
    const seen: string[] = [];
    const judging = listJudge(async (_, a, b) => {
      seen.push(`${a}|${b}`);
      return { a: [5], b: [5], raw: "" };
    });
    const { references: _, ...bare } = item;
    const task = instruct([bare]);
    await task.run(
      plainReader(() => "New."),
      task.items,
      { seed: 0, judging, dense: () => "Old." },
    );
    expect(seen).toEqual(["New.|Old.", "Old.|New."]);
  });

  test("does not happen without a judge", async () => {
    const task = instruct([item]);
    await expect(
      task.run(
        plainReader(() => "So."),
        task.items,
        { seed: 0 },
      ),
    ).rejects.toThrow("the task instruct is judged; name a judge with --judge");
  });
});

describe("judges", () => {
  const asked = (replies: readonly (readonly [status: number, body: string])[], seen: unknown[] = []) => {
    const left = [...replies];
    return endpointJudge({
      url: "http://judge/v1/",
      model: "m",
      key: "k",
      fetch: async (url, init) => {
        seen.push([url, init?.headers, JSON.parse(String(init?.body))]);
        const [status, body] = left.shift()!;
        return new Response(body, { status });
      },
    });
  };

  test("behind a chat endpoint are asked as its interface has it", async () => {
    const seen: [string, Record<string, string>, { messages: { content: string }[]; temperature: number }][] = [];
    const judge = asked([[200, JSON.stringify({ choices: [{ message: { content: "7 3" } }] })]], seen);
    expect(await judge.compare("q", "x", "y", rubric)).toEqual({ a: [7], b: [3], raw: "7 3" });
    const [[url, headers, body]] = seen as [(typeof seen)[number]];
    expect(url).toBe("http://judge/v1/chat/completions");
    expect(headers["authorization"]).toBe("Bearer k");
    expect(body.temperature).toBe(0.1);
    expect(body.messages[0]!.content).toContain("[Answer of assistant 1]\nx");
  });

  test("that do not answer are named", async () => {
    const judge = asked([
      [500, "broken"],
      [200, "{}"],
      [200, "no json"],
    ]);
    const ask = () => judge.compare("q", "x", "y", rubric);
    await expect(ask()).rejects.toThrow("the judge at http://judge/v1/chat/completions answered 500: broken");
    await expect(ask()).rejects.toThrow("did not answer with a chat completion: {}");
    await expect(ask()).rejects.toThrow("did not answer with a chat completion: no json");
  });

  test("may be a model in this process", async () => {
    const reader = plainReader(() => "2 9");
    expect(await readerJudge("own", reader).compare("q", "x", "y", rubric)).toMatchObject({ a: [2], b: [9] });
    expect(reader.prompts[0]).toContain("[Question]\nq");
  });
});
