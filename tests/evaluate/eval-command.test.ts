import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Report } from "../../src/evaluate/node.ts";
import { pare } from "../cli/process.ts";

const timeout = 240_000;

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-eval-"));
});
afterAll(() => rm(folder, { recursive: true }));

const pareEval = (...words: string[]) => pare("eval", ...words, "--threads", "1");

test("the embedded model is judged with nothing else at hand, and repeatably", { timeout }, async () => {
  const words = ["--limit", "3", "--out", folder];
  const { code, out } = await pareEval(...words, "--json");
  expect(code).toBe(0);
  const report: Report = JSON.parse(out);
  expect(report).toMatchObject({
    model: {
      type: "llama",
      weights: expect.stringMatching(/^[0-9a-f]{64}$/),
      tokenizer: expect.stringMatching(/^[0-9a-f]{64}$/),
    },
    versions: { node: process.versions.node, pyodide: expect.any(String) },
    seed: 0,
    tasks: [
      {
        task: "held_out",
        documents: 3,
        truncated: 0,
        definition: { text: "{{text}}" },
        data: [{ name: "held-out.txt" }],
      },
      { task: "continuations", documents: 3, truncated: 0, fewShot: { count: 0, ids: [] } },
    ],
  });
  // A model that knew nothing would need 8 bits for a byte.
  expect(report.tasks[0]!.metrics["bits_per_byte"]!.value).toBeLessThan(4);
  expect(Object.keys(report.tasks[0]!.metrics)).toEqual(["word_perplexity", "byte_perplexity", "bits_per_byte"]);
  const again = await pareEval(...words);
  for (const { metrics } of report.tasks)
    for (const { value } of Object.values(metrics)) expect(again.out).toContain(value.toFixed(4));
});

test("a task of one's own generates answers with examples, and tells that a prompt was too long", {
  timeout,
}, async () => {
  const rows = [
    { q: "Who swam in the pond?", a: "a duck" },
    { q: "And ".repeat(600), a: "x" },
  ];
  await writeFile(join(folder, "rows.json"), JSON.stringify(rows));
  const task = {
    name: "pond",
    version: 1,
    kind: "generate_until",
    data: { splits: { test: "rows.json" } },
    prompt: "{{q}}",
    target: "{{a}}",
    fewShot: { count: 1, from: "test", select: "random" },
    generation: { maxTokens: 4, stop: ["\n"] },
  };
  await writeFile(join(folder, "pond.json"), JSON.stringify(task));
  const { code, out } = await pareEval("--tasks", join(folder, "pond.json"));
  expect(code).toBe(0);
  expect(out).toMatch(/pond +1 +exact_match +0\.0000 +0\.0000 +0\.0000 to 0\.0000 +2\n/);
  expect(out).toContain("pond: 2 prompts were too long for the model and lost their beginning");
});

test.each([
  [["--tasks", "held_out,"], 'pare: --tasks takes names with commas between them, not "held_out,"\n'],
  [
    ["--tasks", "heldout"],
    /^pare: there is no task "heldout" \(did you mean "held_out"\?\); there are continuations, /,
  ],
  [["--tasks", "gsm8k"], /^pare: the task gsm8k needs gsm8k\/test\.jsonl, .* --data <folder>\n$/],
])("%j is refused", { timeout }, async (words, message) => {
  const { code, err } = await pareEval(...words);
  expect(code).toBe(2);
  expect(err).toMatch(message);
});
