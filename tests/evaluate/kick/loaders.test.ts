import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  loadFreebaseQa,
  loadMmlu,
  loadMtBench,
  loadQuestions,
  loadStories,
  loadTriviaQa,
} from "../../../src/evaluate/node.ts";

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), "pare-kick-"))));
afterAll(() => rm(folder, { recursive: true }));

async function put(name: string, content: string | object): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

describe("loading", () => {
  test("FreebaseQA", async () => {
    const answers = (...names: string[]) => ({ Answers: [{ AnswersMid: "m", AnswersName: names }] });
    const path = await put("freebase.json", {
      Questions: [
        { "Question-ID": "q1", RawQuestion: "Who?", Parses: [answers("Ann", "Anna"), answers("ann", "Ann")] },
      ],
    });
    expect(await loadFreebaseQa(path)).toEqual([{ id: "q1", question: "Who?", answers: ["Ann", "Anna", "ann"] }]);
    const wrong = await put("wrong.json", { Data: [] });
    await expect(loadFreebaseQa(wrong)).rejects.toThrow(
      /wrong\.json: it has no list "Questions"; expected FreebaseQA as published/,
    );
    const item = await put("item.json", { Questions: [{ Parses: [] }] });
    await expect(loadFreebaseQa(item)).rejects.toThrow('item 0 has no "RawQuestion" of the right kind');
  });

  test("MMLU", async () => {
    await put("mmlu/test/abstract_algebra_test.csv", '"1 + 1, in Z_2?",0,1,2,3,A\n');
    await put("mmlu/test/world_religions_test.csv", "Q,a,b,c,d,D\n");
    await put("mmlu/dev/abstract_algebra_dev.csv", "D,a,b,c,d,B\n");
    const { items, shots } = await loadMmlu(join(folder, "mmlu"));
    expect(items.map(({ question, choices, answers, groups }) => [question, choices, answers, groups])).toEqual([
      ["1 + 1, in Z_2?", ["0", "1", "2", "3"], ["0"], { subject: "abstract algebra", category: "STEM" }],
      ["Q", ["a", "b", "c", "d"], ["d"], { subject: "world religions", category: "humanities" }],
    ]);
    expect(shots.map(({ answers }) => answers)).toEqual([["b"]]);
    await put("bad/test/x_test.csv", "Q,a,b,c,d,E\n");
    await expect(loadMmlu(join(folder, "bad"))).rejects.toThrow(
      /x_test\.csv: record 1 must be a question, four choices and a letter from A to D; expected MMLU/,
    );
  });

  test("TriviaQA with its evidence, and none from outside of it", async () => {
    await put("trivia/evidence/wikipedia/B.txt", "Page B");
    await put("trivia/evidence/web/1/w.txt", "Web page\n");
    await put("secret.txt", "secret");
    const path = await put("trivia/qa/dev.json", {
      Data: [
        {
          QuestionId: "t1",
          Question: "Where?",
          Answer: { Value: "Rome", Aliases: ["Roma", "Rome"] },
          EntityPages: [{ Filename: "../../../secret.txt" }, { Filename: "A.txt" }, { Filename: "B.txt" }],
          SearchResults: [{ Filename: "1/w.txt" }],
        },
      ],
    });
    expect(await loadTriviaQa(path)).toEqual([
      { id: "t1", question: "Where?", answers: ["Rome", "Roma"], context: "Page B\n\nWeb page" },
    ]);
  });

  test("stories", async () => {
    await put("stories/a.story", "It rained.\n\nAll day.\n\n@highlight\n\nRain fell\n\n@highlight\n\nall day\n");
    await put("stories/b.story", "word ".repeat(800));
    const [a, b] = await loadStories(join(folder, "stories"));
    expect(a).toMatchObject({
      id: "a",
      context: "It rained.\n\nAll day.",
      groups: { length: "small" },
      references: ["Rain fell. all day."],
    });
    expect(b).toMatchObject({ groups: { length: "large" } });
    expect(b).not.toHaveProperty("references");
  });

  test("MT-Bench", async () => {
    const rows = [
      { question_id: 81, category: "writing", turns: ["One", "Two"] },
      { question_id: 101, category: "math", turns: ["Three"] },
    ];
    await put("mt/question.jsonl", rows.map((row) => JSON.stringify(row)).join("\n"));
    await put("mt/reference_answer/m.jsonl", JSON.stringify({ question_id: 101, choices: [{ turns: ["Four"] }] }));
    expect(await loadMtBench(join(folder, "mt"))).toEqual([
      { id: "81", question: "One", further: ["Two"], answers: [], groups: { category: "writing" } },
      { id: "101", question: "Three", further: [], answers: [], groups: { category: "math" }, references: ["Four"] },
    ]);
  });

  test("questions of any source", async () => {
    const path = await put(
      "q.jsonl",
      '{"question":"Q?","answers":["B"],"choices":["x","y"]}\n\n{"id":"k","question":"R?","answers":["r"],"context":"c"}\n',
    );
    expect(await loadQuestions(path)).toEqual([
      { id: "0", question: "Q?", answers: ["y"], choices: ["x", "y"] },
      { id: "k", question: "R?", answers: ["r"], context: "c" },
    ]);
    const wrong = await put("w.jsonl", '{"question":"Q?"}');
    await expect(loadQuestions(wrong)).rejects.toThrow(
      /w\.jsonl: item 0 has no "answers" of the right kind; expected a \.jsonl file with \{"question", "answers"/,
    );
  });

  test("names the format and the place where nothing is", async () => {
    const gone = join(folder, "gone");
    const loaders = {
      "FreebaseQA as published: a .json file": loadFreebaseQa,
      "TriviaQA rc as published": loadTriviaQa,
      "CNN/DailyMail stories: a folder of .story files": loadStories,
      "a .jsonl file with": loadQuestions,
    };
    for (const [format, load] of Object.entries(loaders))
      await expect(load(gone)).rejects.toThrow(`there is no data at ${gone}; expected ${format}`);
    await expect(loadMmlu(gone)).rejects.toThrow(`there is no data at ${join(gone, "test")}; expected MMLU`);
    await expect(loadMtBench(gone)).rejects.toThrow(
      `there is no data at ${join(gone, "question.jsonl")}; expected MT-Bench as published`,
    );
  });
});
