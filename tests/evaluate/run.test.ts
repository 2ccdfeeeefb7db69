import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ProgramResult, readTask, runTask, type Task } from "../../src/evaluate/index.ts";
import { evaluateModel, openJournal } from "../../src/evaluate/node.ts";
import type { Tokenizer } from "../../src/formats/index.ts";
import { embeddedTokenizer, plainScorer, tinyTextModel } from "./scorers.ts";

let folder: string;
let tokenizer: Tokenizer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-evaluate-"));
  tokenizer = await embeddedTokenizer();
});
afterAll(() => rm(folder, { recursive: true }));

const data = { splits: { test: "x.json" } };
const task = (json: object): Task => readTask({ name: "t", version: 1, data, ...json }, "t.json");

/** Every "a" has probability 1/2, everything else 1/8. */
const likesA = plainScorer((ids, at) => Math.log(ids[at] === 97 ? 1 / 2 : 1 / 8), undefined, 200);

describe("a task", () => {
  it("of perplexity pools documents by their words and bytes", async () => {
    const splits = { test: [{ text: "aa b" }, { text: "c" }] };
    const { metrics, records } = await runTask(task({ kind: "perplexity", text: "{{text}}" }), {
      scorer: likesA,
      splits,
    });
    const nats = [2 * Math.log(2) + 2 * Math.log(8), Math.log(8)];
    expect(records[0]!.values["nats"]).toBeCloseTo(nats[0]!, 5);
    const total = nats[0]! + nats[1]!;
    expect(metrics["word_perplexity"]!.value).toBeCloseTo(Math.exp(total / 3), 2);
    expect(metrics["byte_perplexity"]!.value).toBeCloseTo(Math.exp(total / 5), 4);
    expect(metrics["bits_per_byte"]!.value).toBeCloseTo((2 + 6 + 3) / 5, 5);
  });

  it("of multiple choice takes the likeliest, and the likeliest by character", async () => {
    const splits = {
      test: [
        { q: "x", o: ["aaaaa", "b"], right: "b" },
        { q: "y", o: ["aaaaa", "b"], right: "aaaaa" },
        { q: "z", o: ["a", "b"], right: "b" },
      ],
    };
    const prompts: string[] = [];
    const scorer = plainScorer(
      (ids, at) => {
        prompts.push(String.fromCodePoint(...ids));
        return Math.log(ids[at] === 97 ? 1 / 2 : 1 / 8);
      },
      undefined,
      200,
    );
    const choice = task({
      kind: "multiple_choice",
      description: "Choose!\n",
      prompt: "{{q}}?",
      choices: "o",
      answer: { text: "{{right}}" },
      fewShot: { count: 1, select: "first", from: [{ q: "w", o: ["c", "d"], right: "d" }] },
    });
    const { metrics, records, fewShot } = await runTask(choice, { scorer, splits });
    expect(prompts[0]).toBe("Choose!\nw? d\n\nx? aaaaa");
    expect(records.map(({ values }) => [values["acc"], values["acc_norm"]])).toEqual([
      [1, 0],
      [0, 1],
      [0, 0],
    ]);
    expect(metrics["acc"]!.value).toBeCloseTo(1 / 3, 10);
    expect(metrics["acc"]!.stderr).toBeCloseTo(Math.sqrt(((2 / 3) ** 2 + 2 * (1 / 3) ** 2) / 2 / 3), 10);
    expect(fewShot).toEqual({ count: 1, ids: [0] });
  });

  it.each([
    [{ answer: { index: "{{right}}" } }, 't, document 0: the answer "b" is none of the choices ["a","b"]'],
    [{ answer: { text: "{{wrong}}" } }, "t, document 0: a template asks for {{wrong}}, but the row has only right, o"],
    [{ choices: "right" }, 't, document 0: the field "right" must list two or more texts, not "b"'],
  ])("names the row that does not fit it: %j", async (change, message) => {
    const choice = task({
      kind: "multiple_choice",
      prompt: "",
      choices: ["a", "b"],
      answer: { text: "{{right}}" },
      ...change,
    });
    const splits = { test: [{ right: "b", o: [] }] };
    await expect(runTask(choice, { scorer: likesA, splits })).rejects.toThrow(message);
  });

  it("of exact match applies each filter", async () => {
    const answers: Record<string, string> = { "1+1": "I say #### 2 or 3", "2+2": "4", "3+3": "six #### 6" };
    const scorer = plainScorer(
      () => 0,
      (prompt) => answers[prompt]!,
    );
    const splits = { test: Object.keys(answers).map((q, i) => ({ q, right: 2 * (i + 1) })) };
    const sums = task({
      kind: "generate_until",
      prompt: "{{q}}",
      target: "{{right}}",
      generation: { maxTokens: 4, stop: [] },
      filters: [
        { name: "strict", regex: "#### (\\d+)" },
        { name: "last", regex: "\\d+", select: "last" },
      ],
    });
    const { metrics, records } = await runTask(sums, { scorer, splits });
    expect(metrics["exact_match,strict"]!.value).toBeCloseTo(2 / 3, 10);
    expect(metrics["exact_match,last"]!.value).toBeCloseTo(2 / 3, 10);
    expect(records[1]!.outputs).toEqual(["4"]);
  });

  it("of code runs each sample and estimates pass@k", async () => {
    const scorer = plainScorer(
      () => 0,
      () => "pass {{prompt}}",
    );
    const programs: string[] = [];
    const ends: ProgramResult["status"][] = ["passed", "failed", "timeout", "passed", "memory", "crashed"];
    const code = task({
      kind: "code",
      prompt: "{{prompt}}",
      program: "{{prompt}}{{completion}}#{{test}}",
      generation: { maxTokens: 4, stop: [], temperature: 1 },
      samples: 3,
      k: [1, 2],
    });
    const splits = {
      test: [
        { prompt: "f:", test: "x" },
        { prompt: "g:", test: "y" },
      ],
    };
    const runPython = async ({ code }: { code: string }): Promise<ProgramResult> => {
      programs.push(code);
      return { status: ends[programs.length - 1]!, error: null, output: "" };
    };
    const { metrics, records } = await runTask(code, { scorer, splits }, { runPython });
    expect(programs[0]).toBe("f:pass {{prompt}}#x");
    expect(records[1]!.ends).toEqual(["passed", "memory", "crashed"]);
    expect(metrics["pass@1"]!.value).toBeCloseTo(1 / 3, 10);
    expect(metrics["pass@2"]!.value).toBeCloseTo(2 / 3, 10);
    await expect(runTask(code, { scorer, splits })).rejects.toThrow(
      'the task t runs programs, which takes "runPython"',
    );
  });

  it("refuses a limit that is none", async () => {
    const splits = { test: [{ text: "a" }] };
    const text = task({ kind: "perplexity", text: "{{text}}" });
    await expect(runTask(text, { scorer: likesA, splits }, { limit: 0 })).rejects.toThrow(
      "limit must be a whole number from 1, not 0",
    );
  });
});

describe("an evaluation that is stopped", () => {
  const texts = Array.from({ length: 9 }, (_, i) => ({ text: "a man and a cat ".repeat(i + 1) }));
  const files = async (): Promise<string> => {
    const path = join(folder, "texts.json");
    await writeFile(join(folder, "x.json"), JSON.stringify(texts));
    await writeFile(path, JSON.stringify({ name: "texts", version: 1, kind: "perplexity", data, text: "{{text}}" }));
    return path;
  };

  it("goes on where it stopped and gives the same numbers", { timeout: 120_000 }, async () => {
    const tasks = [await files()];
    const model = { ...tinyTextModel(tokenizer), tokenizer, source: "tiny" };
    const out = join(folder, "out");
    const whole = await evaluateModel(model, { tasks, threads: 1 });
    expect(whole.tasks[0]).toMatchObject({ documents: 9, asked: 9 });
    const control = new AbortController();
    const first = await evaluateModel(model, {
      tasks,
      out,
      threads: 1,
      signal: control.signal,
      onDocument: (_task, done) => done === 4 && control.abort(),
    });
    expect(first.tasks[0]).toMatchObject({ documents: 4, asked: 9 });
    const journal = await openJournal(out, "texts", settingsOf(first));
    expect([...journal.records.keys()]).toEqual([0, 1, 2, 3]);
    // As a crash in the middle of a line leaves it.
    await appendFile(journal.path, '{"document":4,"val');
    const seen: number[] = [];
    const second = await evaluateModel(model, { tasks, out, threads: 1, onDocument: (_task, done) => seen.push(done) });
    expect(second).toEqual(whole);
    expect(JSON.parse(await readFile(journal.path.replace(/jsonl$/, "json"), "utf8"))).toEqual(
      JSON.parse(JSON.stringify(whole)),
    );
    expect((await readFile(journal.path, "utf8")).trimEnd().split("\n")).toHaveLength(10);
    // Other weights or settings have a journal of their own.
    const other = await evaluateModel(model, { tasks, out, threads: 1, limit: 2, windows: { window: 8, stride: 4 } });
    expect(other.tasks[0]!.metrics["bits_per_byte"]).not.toEqual(whole.tasks[0]!.metrics["bits_per_byte"]);
  });

  function settingsOf({ tasks, ...provenance }: Awaited<ReturnType<typeof evaluateModel>>): object {
    return { ...provenance, definition: tasks[0]!.definition, data: tasks[0]!.data };
  }

  it("says so when its journal is damaged", async () => {
    const journal = await openJournal(folder, "damaged", {});
    await appendFile(journal.path, '{"document":0,"values":{"acc":"1"}}\n');
    await expect(openJournal(folder, "damaged", {})).rejects.toThrow(
      /damaged-[0-9a-f]{16}\.jsonl:2 is no record of an evaluation; remove the file$/,
    );
  });
});
