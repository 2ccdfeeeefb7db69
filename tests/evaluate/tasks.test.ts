import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readTask, render, shotsFor } from "../../src/evaluate/index.ts";
import { builtinTasks, loadTask, readDataset } from "../../src/evaluate/node.ts";
import { continuationRows } from "../../src/evaluate/tasks/continuations.ts";
import { parseCsv } from "../../src/evaluate/tasks/csv.ts";
import { exactMatch, extract } from "../../src/evaluate/tasks/exact-match.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-tasks-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Writes files into a folder of their own and returns its path. */
async function files(contents: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const own = await mkdtemp(join(folder, "case-"));
  for (const [name, content] of Object.entries(contents)) {
    await mkdir(dirname(join(own, name)), { recursive: true });
    await writeFile(join(own, name), content);
  }
  return own;
}

const choice = {
  name: "capitals",
  version: 1,
  kind: "multiple_choice",
  data: { splits: { test: "capitals.csv" } },
  prompt: "The capital of {{country}} is",
  choices: ["{{a}}", "{{b}}"],
  answer: { index: "{{right}}" },
};

const generate = {
  name: "sums",
  version: 2,
  kind: "generate_until",
  data: { splits: { test: "sums.jsonl" } },
  prompt: "{{question}}",
  target: "{{answer}}",
  generation: { maxTokens: 8, stop: ["\n"] },
};

const code = {
  name: "code",
  version: 1,
  kind: "code",
  data: { splits: { test: "code.json" } },
  prompt: "{{prompt}}",
  program: "{{prompt}}{{completion}}",
  generation: { maxTokens: 8, stop: [] },
};

describe("a task's definition", () => {
  it("is read with its defaults", () => {
    expect(readTask(choice, "capitals.json")).toMatchObject({
      delimiter: " ",
      description: "",
      fewShot: null,
      answer: { by: "index", template: "{{right}}" },
    });
    expect(readTask(generate, "sums.json")).toMatchObject({
      filters: [{ name: "none", regex: null, select: "first" }],
      generation: { temperature: 0 },
      ignore: [],
    });
    expect(readTask(code, "code.json")).toMatchObject({ samples: 1, k: [1], seconds: 5, megabytes: 512 });
  });

  it.each<[unknown, string]>([
    [[], "t.json: a task must be an object"],
    [
      { ...choice, kind: "poll" },
      't.json: "kind" must be one of perplexity, multiple_choice, generate_until, code; not "poll"',
    ],
    [{ ...choice, promt: "" }, 't.json: there is no field "promt" (did you mean "prompt"?)'],
    [{ ...choice, target: "" }, 't.json: there is no field "target"'],
    [{ ...choice, prompt: 3 }, 't.json: "prompt" must be text; not 3'],
    [{ ...choice, prompt: undefined }, 't.json: "prompt" must be text; it is missing'],
    [{ ...choice, version: 0 }, 't.json: "version" must be a whole number from 1; not 0'],
    [{ ...choice, name: "../x" }, 't.json: "name" must be a name of letters, digits, _ and - (64 at most); not "../x"'],
    [{ ...choice, choices: ["one"] }, 't.json: "choices" must be two or more templates; not ["one"]'],
    [
      { ...choice, answer: { index: "0", text: "a" } },
      't.json: "answer" must be an object with either "index" or "text"',
    ],
    [{ ...choice, data: {} }, 't.json: "data" must be an object with "splits", of which "test" is one; not {}'],
    [{ ...choice, data: { splits: { test: 1 } } }, 't.json: "data.splits.test" must be text; not 1'],
    [
      { ...choice, data: { splits: { test: "../x.csv" } } },
      't.json: "data.splits.test" must be a path inside the folder of the data',
    ],
    [
      { ...choice, data: { splits: { test: "/etc/passwd" } } },
      't.json: "data.splits.test" must be a path inside the folder of the data',
    ],
    [{ ...choice, data: { splits: { test: "*/x*.csv" } } }, "a path with at most one *, in the file's name"],
    [
      { ...choice, fewShot: { count: 1, from: "dev", select: "first" } },
      't.json: "fewShot.from" must be one of the splits test, or a list of examples; not "dev"',
    ],
    [
      { ...choice, fewShot: { count: 2, from: [{}], select: "first" } },
      't.json: "fewShot.from" must be a list of 2 examples',
    ],
    [
      { ...choice, fewShot: { count: 1, from: "test", select: "best" } },
      't.json: "fewShot.select" must be one of first, random; not "best"',
    ],
    [
      { ...generate, generation: { maxTokens: 8, stop: [""] } },
      't.json: "generation.stop" must be a list of texts that are not empty',
    ],
    [
      { ...generate, generation: { maxTokens: 8, stop: [], temperature: -1 } },
      't.json: "generation.temperature" must be a number from 0; not -1',
    ],
    [
      { ...generate, filters: [{ name: "a", regex: "(" }] },
      't.json: "filters.0.regex" must be regular expressions; not "(": Invalid regular expression',
    ],
    [{ ...generate, filters: [{ name: "a" }, { name: "a" }] }, 't.json: "filters" must be filters of different names'],
    [{ ...generate, ignore: ["["] }, 't.json: "ignore" must be regular expressions'],
    [{ ...code, program: "{{prompt}}" }, 't.json: "program" must be a template with {{completion}}'],
    [{ ...code, k: [2] }, 't.json: "k" must be a list of whole numbers from 1 to the 1 samples; not [2]'],
    [{ ...code, megabytes: 1 }, 't.json: "megabytes" must be a whole number from 64; not 1'],
  ])("%j is refused", (json, message) => {
    expect(() => readTask(JSON.parse(JSON.stringify(json)), "t.json")).toThrow(message);
  });

  it("names a task that there is, when it is unknown", async () => {
    await expect(loadTask("gsm8")).rejects.toThrow('there is no task "gsm8" (did you mean "gsm8k"?)');
  });

  it("of every task that comes with pare says where missing data comes from", async () => {
    const names = await builtinTasks();
    expect(names).toEqual(["continuations", "gsm8k", "held_out", "humaneval", "humaneval_20", "mmlu", "svamp"]);
    for (const name of names) {
      if (name === "held_out" || name === "continuations")
        expect((await loadTask(name)).splits["test"]!.length).toBeGreaterThan(10);
      else
        await expect(loadTask(name, { data: folder })).rejects.toThrow(
          /^the task \w+ needs .* It comes from https:.*--data <folder>$/,
        );
    }
  });
});

describe("a template", () => {
  it("takes fields, and fields of fields, once", () => {
    const row = { a: "{{b}}", b: 2, list: ["x", { y: null }], "": "empty" };
    expect(render("{{a}} {{ b }} {{list.0}} {{list.1.y}} {{list}} {b}", row)).toBe(
      '{{b}} 2 x null ["x",{"y":null}] {b}',
    );
  });

  it.each(["c", "__proto__", "list.length", "a.length", "constructor"])(
    "refuses {{%s}}, which the row lacks",
    (name) => {
      expect(() => render(`{{${name}}}`, { a: "x", list: [] })).toThrow(
        `a template asks for {{${name}}}, but the row has only a, list`,
      );
    },
  );
});

describe("data", () => {
  it("in CSV is what was written", () => {
    const field = fc.string({ unit: fc.constantFrom("a", ",", '"', "\n", "\r", " ", "é") });
    fc.assert(
      fc.property(
        fc.array(fc.array(field, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 5 }),
        (records) => {
          const text = records
            .map((record) => record.map((value) => `"${value.replaceAll('"', '""')}"`).join(","))
            .join("\r\n");
          expect(parseCsv(text, "x.csv")).toEqual(records);
        },
      ),
      { seed: 1, numRuns: 200 },
    );
    expect(parseCsv("a,b\nc,\n,d\n", "x.csv")).toEqual([
      ["a", "b"],
      ["c", ""],
      ["", "d"],
    ]);
    expect(parseCsv("a,", "x.csv")).toEqual([["a", ""]]);
    expect(() => parseCsv('a\n"b', "x.csv")).toThrow("x.csv: the quote in record 2 is never closed");
    expect(() => parseCsv('"a"b', "x.csv")).toThrow("x.csv: text follows a closing quote in record 1");
  });

  const read = async (contents: Readonly<Record<string, string | Uint8Array>>, data: object) => {
    const task = readTask({ ...choice, data }, "t.json");
    return (await readDataset(task, [await files(contents)])).splits;
  };

  it("is read from every format, packed or not, and by a star", async () => {
    const splits = await read(
      {
        "in/red_apple_test.csv": "1,2\n3,4\n",
        "in/pear_test.csv": "5,6\n\n",
        "in/other.csv": "7\n",
        "a.jsonl.gz": gzipSync('{"x":1}\n\n{"x":2}\n'),
        "b.json": '\uFEFF[{"x":3}]',
        "c.csv": "x,y\n1,2\n",
        "d.txt": "one<|>two<|>\n",
      },
      {
        splits: { test: "in/*_test.csv", a: "a.jsonl.gz", b: "b.json", d: "d.txt" },
        columns: ["p", "q"],
        star: "kind",
        separator: "<|>",
      },
    );
    expect(splits).toMatchObject({
      test: [
        { p: "5", q: "6", kind: "pear" },
        { p: "1", q: "2", kind: "red apple" },
        { p: "3", q: "4", kind: "red apple" },
      ],
      a: [{ x: 1 }, { x: 2 }],
      b: [{ x: 3 }],
      d: [{ text: "one" }, { text: "two" }],
    });
  });

  it.each<[Record<string, string | Uint8Array>, string, string]>([
    [{ "a.jsonl": '{"x":1}\n[2]' }, "a.jsonl", "a.jsonl:2: a row must be an object, not [2]"],
    [{ "a.jsonl": '{"x":1}\n{' }, "a.jsonl", "a.jsonl:2: it is not JSON"],
    [{ "a.json": "{}" }, "a.json", "a.json: it must be a list of objects"],
    [{ "a.csv": "x,y\n1\n" }, "a.csv", "a.csv: record 1 has 1 fields, not 2 (x, y)"],
    [{ "a.json.gz": "plain" }, "a.json.gz", "a.json.gz: it cannot be unpacked: incorrect header check"],
    [{ "a.json": new Uint8Array([0xff]) }, "a.json", "a.json: it is not UTF-8 text"],
    [{ "a.parquet": "PAR1" }, "a.parquet", "data is read from .jsonl, .json, .csv and .txt files"],
    [{ "a.jsonl": "" }, "a.jsonl", "a.jsonl holds no row"],
  ])("%j is refused", async (contents, test, message) => {
    await expect(read(contents, { splits: { test } })).rejects.toThrow(message);
  });
});

describe("examples", () => {
  const pool = Array.from({ length: 10 }, (_, i) => ({ n: i, kind: i % 2 ? "odd" : "even" }));
  const splits = { test: [{ kind: "odd" }, { kind: "even" }], train: pool };
  const base = { count: 3, from: "train", matching: null, separator: "\n" };

  it("are the first, or drawn by seed and document, alike where asked", () => {
    expect(shotsFor({ ...base, select: "first" }, splits, 1, 0).ids).toEqual([0, 1, 2]);
    expect(shotsFor({ ...base, select: "first", matching: "kind" }, splits, 0, 0).ids).toEqual([1, 3, 5]);
    const drawn = shotsFor({ ...base, select: "random" }, splits, 0, 7);
    expect(new Set(drawn.ids).size).toBe(3);
    expect(drawn.rows).toEqual(drawn.ids.map((i) => pool[i]));
    expect(shotsFor({ ...base, select: "random" }, splits, 0, 7)).toEqual(drawn);
    const others = [
      shotsFor({ ...base, select: "random" }, splits, 1, 7),
      shotsFor({ ...base, select: "random" }, splits, 0, 8),
    ];
    for (const other of others) expect(other.ids).not.toEqual(drawn.ids);
  });

  it("never hold the document itself", () => {
    const own = { test: pool };
    for (let i = 0; i < 10; i++) {
      expect(shotsFor({ ...base, from: "test", count: 9, select: "random" }, own, i, 0).ids).not.toContain(i);
    }
    expect(() => shotsFor({ ...base, count: 6, select: "first", matching: "kind" }, splits, 0, 0)).toThrow(
      '"fewShot" asks for 6 examples with kind "odd", but there are 5',
    );
  });
});

describe("answers", () => {
  it("of GSM8K are found as lm-evaluation-harness does", async () => {
    const json = await readFile(new URL("../../src/evaluate/tasks/builtin/gsm8k.json", import.meta.url), "utf8");
    const task = readTask(JSON.parse(json), "gsm8k.json");
    if (task.kind !== "generate_until") throw new Error("GSM8K is answered with text");
    const [strict, flexible] = task.filters;
    const text = " She has 3 + 4 = 7 eggs and earns 7 * $1,000.\n#### 7,000\n#### 8";
    expect(extract(strict!, text)).toBe("7,000");
    expect(extract(flexible!, text)).toBe("8");
    expect(extract(flexible!, "it costs $1,234.50.")).toBe("$1,234.50.");
    expect(extract(strict!, "seven")).toBe("[invalid]");
    const target = "She earns 7 * 1000 = <<7*1000=7000>>7000.\n#### 7000";
    expect(exactMatch(task, "7,000", target)).toBe(true);
    expect(exactMatch(task, "$7000.", target)).toBe(true);
    expect(exactMatch(task, "[invalid]", target)).toBe(false);
    expect(exactMatch(task, "700", target)).toBe(false);
  });
});

describe("questions made of texts", () => {
  const document = (name: string) => Array.from({ length: 60 }, (_, i) => `${name}${i}`).join(" ");
  const spec = { contextWords: 6, words: 4, choices: 4 };

  it("have the true continuation at the answer and others of the same text beside it", () => {
    const documents = [..."abcdefgh"].map(document);
    const rows = continuationRows(documents, spec);
    expect(rows).toHaveLength(48);
    for (const row of rows) {
      const { context, choices, answer } = row as { context: string; choices: string[]; answer: number };
      expect(`${context} ${choices[answer]}`).toBe(
        document(context[0]!)
          .split(" ")
          .slice(Number(context.slice(1).split(" ")[0]))
          .slice(0, 10)
          .join(" "),
      );
      expect(new Set(choices).size).toBe(4);
      for (const other of choices) expect(other[0]).toBe(context[0]);
    }
    expect(new Set(rows.map(({ answer }) => answer)).size).toBe(4);
    expect(continuationRows(documents, spec)).toEqual(rows);
  });

  it("need texts that are long enough", () => {
    expect(() => continuationRows(["too short"], spec)).toThrow("the texts have 0 passages, too few for 4 choices");
  });
});
