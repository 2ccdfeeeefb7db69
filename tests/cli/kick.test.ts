import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { kick } from "../../src/cli/commands/kick.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { readModelFolder } from "../../src/formats/node.ts";
import { embeddedModel, saveModel } from "../../src/models/node.ts";
import type { KickDocument } from "../../src/report/node.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape } from "./models.ts";

const work = mkdtempSync(join(tmpdir(), "pare-kick-"));
const at = (name: string): string => join(work, name);
afterAll(() => rmSync(work, { recursive: true }));

beforeAll(async () => {
  const json = { model_type: "llama", ...tinyShape, max_position_embeddings: 128 };
  const { weights } = tinyModel(json);
  const { tokenizerJson, tokenizerConfig } = await readModelFolder(embeddedModel);
  await saveModel(at("tiny"), { json, weights, tokenizer: Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig }) });
  writeFileSync(at("question.jsonl"), '{"question_id":1,"category":"writing","turns":["Sit.","Why?"]}\n');
  writeFileSync(at("text.txt"), "The hen sat on the egg and the cat sat on the hen. ".repeat(100));
});

const defaults = Object.fromEntries(
  Object.entries(kick.options).map(([name, spec]) => [name, "default" in spec ? spec.default : undefined]),
);

function run(options: object, signal = new AbortController().signal) {
  const small = { methods: "magnitude,nearest", sparsity: "0.5", patterns: "none", bits: "4", threads: 1 };
  const texts = { calibrate: at("text.txt"), samples: 4, limit: 4, tokens: 64, out: at("out") };
  const all = { ...defaults, ...small, ...texts, ...options };
  return kick.run({ args: { model: at("tiny") }, options: all, json: true, signal } as never);
}

describe("pare kick", { timeout: 300_000 }, () => {
  it("audits a model and writes a report, and then has nothing left to measure", async () => {
    const { json, text } = await run({ tasks: "next-word,unique-tokens,continuations" });
    const { report, items, model } = json as KickDocument;
    expect(model).toBe("tiny");
    expect(items).toEqual({ "next-word": 4, "unique-tokens": 4, continuations: 4 });
    expect(report.rows.map(({ method, setting }) => [method, setting])).toEqual([
      ["magnitude", { sparsity: 0.5 }],
      ["nearest", { bits: 4 }],
    ]);
    expect(Object.keys(report.rows[0]!.scores)).toEqual(["next-word", "unique-tokens", "continuations"]);
    expect(text).toContain("magnitude at 50 %");
    const page = readFileSync(join(at("out"), "report.html"), "utf8");
    expect(page).toContain("What compression took from tiny");
    expect(page).not.toMatch(/src="http|href="http/);
    expect(JSON.parse(readFileSync(join(at("out"), "report.json"), "utf8"))).toEqual(JSON.parse(JSON.stringify(json)));
    const again = await run({ tasks: "next-word,unique-tokens,continuations" });
    expect(again.json).toEqual(json);
  });

  it("keeps what is done when it is stopped", async () => {
    const stopped = new AbortController();
    stopped.abort(new Error("stop"));
    const { json, text } = await run({ tasks: "next-word", out: at("stopped") }, stopped.signal);
    expect(json).toMatchObject({ stopped: true });
    expect(text).toMatch(/^stopped; the same command goes on from .*kick-[0-9a-f]{16}\.jsonl$/);
    expect(existsSync(join(at("stopped"), "report.html"))).toBe(false);
  });

  it("takes questions of one's own, and has conversations judged", async () => {
    writeFileSync(at("own.jsonl"), '{"question":"Who sat on the egg?","answers":["hen"],"choices":["hen","cat"]}\n');
    const replies = ["7 3", "nothing", "3 7"];
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(String(request.url));
      const content = replies[asked.length % replies.length];
      response.end(JSON.stringify({ choices: [{ message: { content } }] }));
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    try {
      const { json } = await run({
        tasks: `factoid=${at("own.jsonl")},mcq=${at("own.jsonl")},icrqa=${at("own.jsonl")},instruct=${work}`,
        methods: "magnitude",
        judge: `http://127.0.0.1:${port}/v1`,
        judgeModel: "m",
        out: at("judged"),
      });
      const { report, judgeCalls } = json as KickDocument;
      expect(Object.keys(report.dense.scores)).toEqual([
        "factoid",
        "mcq",
        "mcq argmax",
        "icrqa-closed",
        "icrqa-closed equal",
        "icrqa-closed f1",
        "icrqa-open",
        "icrqa-open equal",
        "icrqa-open f1",
        "instruct",
        "instruct unique",
      ]);
      expect(report.warnings).toContain("factoid: 1 items say little; see how wide the intervals are");
      expect(judgeCalls).toBe(asked.length);
      expect(asked.length).toBeGreaterThan(3);
      const logged = readFileSync(join(at("judged"), "judge.jsonl"), "utf8")
        .trim()
        .split("\n");
      expect(logged).toHaveLength(asked.length);
    } finally {
      server.close();
    }
  });

  it("refuses what it cannot do", async () => {
    const refused = (options: object, message: string) => expect(run(options)).rejects.toThrow(message);
    await refused({ tasks: "factoyd" }, 'there is no task "factoyd" (did you mean "factoid"?); there are next-word,');
    await refused({ tasks: "mcq" }, "the task mcq needs data: --data <folder> with mmlu in it, or mcq=<file.jsonl>");
    await refused({ tasks: "mcq", data: at("nowhere") }, `there is no data at ${join(at("nowhere"), "mmlu", "test")}`);
    await refused({ tasks: "next-word,next-word" }, "the task next-word is named twice");
    await refused({ methods: "awq" }, '--methods takes magnitude, wanda, sparsegpt, nearest, gptq, not "awq"');
    await refused({ sparsity: "half" }, '--sparsity takes numbers with commas between them, not "half"');
    await refused({ sparsity: "1" }, "magnitude: sparsity must be from 0 to below 1, not 1");
    await refused({ tasks: `instruct=${work}` }, "summary and instruct are judged; --judge names");
    await refused({ calibrate: undefined }, "--calibrate names some");
    await refused({ tasks: `instruct=${work}`, judge: "http://x" }, "--judge http://x also takes --judge-model <name>");
  });
});
