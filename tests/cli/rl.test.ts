import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readQuestions } from "../../src/cli/rl/prompts.ts";
import { newModel } from "../../src/cli/train/start.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { layerMatrices, trainingMasks } from "../../src/methods/index.ts";
import { openModel, saveModel } from "../../src/models/node.ts";
import { Rng } from "../../src/tensor/index.ts";
import { chatTemplate } from "./models.ts";
import { pare, start } from "./process.ts";

let folder: string;
let base: string;
let prompts: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-rl-"));
  base = join(folder, "base");
  await saveModel(base, await newModel("1x32", { text: "there were three trees here", vocab: 300, seed: 0 }));
  prompts = await written(
    "prompts.jsonl",
    [1, 2, 3, 4].map((i) => ({ prompt: `Once ${i}`, answer: "e|a" })),
  );
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function written(name: string, lines: readonly (object | string)[]): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  return path;
}

const small = ["--batch", "4", "--max-tokens", "3", "--threads", "1", "--dtype", "f32"];

interface Reinforced {
  readonly steps: number;
  readonly reward: { readonly first: number; readonly last: number };
  readonly kl: { readonly last: number } | null;
}

async function rl(...words: string[]): Promise<Reinforced> {
  const { code, out, err } = await pare("rl", base, "--prompts", prompts, "--verify", "regex", ...words, "--json");
  expect([err, code]).toEqual(["", 0]);
  return JSON.parse(out) as Reinforced;
}

async function matrices(path: string): Promise<Map<string, readonly number[]>> {
  await using model = await openModel(path);
  return new Map(Array.from(layerMatrices(model.weights), ([name, t]) => [name, t.toArray()]));
}

describe("pare rl", { timeout: 180_000 }, () => {
  it("makes right answers likelier, and leaves a model with the course of its training", async () => {
    const out = join(folder, "full");
    const { steps, reward, kl } = await rl(...small, "--steps", "20", "--rate", "0.01", "--out", out);
    expect(steps).toBe(20);
    expect(reward.last).toBeGreaterThan(reward.first + 0.2);
    expect(kl!.last).toBeGreaterThan(0.01);
    const log = (await readFile(join(out, "training", "log.jsonl"), "utf8")).trim().split("\n");
    expect(log).toHaveLength(20);
    expect(Object.keys(JSON.parse(log[0]!).values)).toEqual(expect.arrayContaining(["reward", "kl", "skipped"]));
    expect(await readFile(join(out, "training", "curves.html"), "utf8")).toContain('"title":"skipped"');
  });

  it("is done early where all answers are right", async () => {
    const out = join(folder, "solved");
    const { steps, reward } = await rl(...small, "--steps", "100", "--rate", "0.05", "--out", out);
    expect(steps).toBeLessThan(100);
    expect(reward.last).toBe(1);
    expect(existsSync(join(out, "model.safetensors"))).toBe(true);
    const asked = ["rl", out, "--prompts", prompts, "--verify", "regex", ...small, "--out", join(folder, "again")];
    const { out: told } = await pare(...asked, "--temperature", "0.1");
    expect(told).toContain("right 100.0 % -> 100.0 % (first and last steps)\ndivergence 0.00 nats a token");
  });

  it("changes entries of its mask only", async () => {
    const out = join(folder, "masked");
    await rl(...small, "--steps", "3", "--mask", "low", "--mask-share", "0.25", "--out", out);
    await using model = await openModel(base);
    const masks = await trainingMasks(model.weights, { kind: "low", share: 0.25, rng: new Rng(0) });
    const [before, after] = [await matrices(base), await matrices(out)];
    for (const [name, { bits }] of masks) {
      const moved = before.get(name)!.map((x, i) => Number(x !== after.get(name)![i]));
      expect(moved.every((yes, i) => yes <= bits[i]!)).toBe(true);
      expect(moved.includes(1)).toBe(true);
    }
  });

  it.each(["lora", "pissa", "milora"])("trains adapters and merges them: %s", async (adapter) => {
    const out = join(folder, adapter);
    await rl(...small, "--steps", "3", "--rate", "0.003", "--adapter", adapter, "--rank", "2", "--out", out);
    const [before, after] = [await matrices(base), await matrices(out)];
    expect([...after.keys()]).toEqual([...before.keys()]);
    for (const [name, values] of before) {
      const moved = Math.max(...values.map((x, i) => Math.abs(x - after.get(name)![i]!)));
      expect(moved).toBeGreaterThan(1e-5);
      expect(moved).toBeLessThan(0.05);
    }
  });

  it("stops at Ctrl-C, and goes on to the same numbers as if it had not", async () => {
    const words = [...small, "--steps", "60", "--rate", "0.003", "--checkpoint", "7", "--kl", "0.05"];
    const [whole, out] = [join(folder, "whole"), join(folder, "stopped")];
    await rl(...words, "--out", whole);
    const asked = ["rl", base, "--prompts", prompts, "--verify", "regex", ...words, "--out", out];
    const { child, ended } = start(...asked);
    child.stderr.on("data", (text) => {
      if (/step 10\/60 /.test(String(text))) child.kill("SIGINT");
    });
    const { code, err } = await ended;
    expect(err).toContain(`the same command goes on from ${out}.state`);
    expect(code).toBe(130);
    expect(existsSync(out)).toBe(false);
    const refused = await pare(...asked, "--temperature", "0.5");
    expect(refused.err).toContain("holds checkpoints of a run with other options");
    expect(refused.code).toBe(2);
    await rl(...words, "--out", out);
    expect(existsSync(`${out}.state`)).toBe(false);
    const [a, b] = await Promise.all([whole, out].map((place) => readFile(join(place, "model.safetensors"))));
    expect(a!.equals(b!)).toBe(true);
    expect((await readFile(join(out, "training", "log.jsonl"), "utf8")).trim().split("\n")).toHaveLength(60);
  });

  it("ends where no answer is ever right, and leaves nothing behind", async () => {
    const out = join(folder, "hopeless");
    const hopeless = await written("hopeless.jsonl", [{ prompt: "Once", answer: "never to be found" }]);
    const { code, err } = await pare("rl", base, "--prompts", hopeless, ...small, "--steps", "12", "--out", out);
    expect(err).toContain("no learning signal: for 10 steps in a row all completions of each prompt earned the same");
    expect(code).toBe(2);
    for (const end of ["", ".partial", ".state"]) expect(existsSync(`${out}${end}`)).toBe(false);
  });

  it.each([
    [["--mask", "save"], 'did you mean "safe"?'],
    [["--mask", "safe", "--adapter", "lora"], "--mask chooses entries of the matrices, and --adapter leaves these"],
    [
      ["--mask-share", "0.3"],
      "--mask-share means nothing without --mask, which is one of safe, principal, low, random",
    ],
    [["--mask", "safe", "--mask-share", "1"], "--mask-share must be above 0 and below 1, not 1"],
    [["--rank", "4"], "--rank means nothing without --adapter, which is one of lora, pissa, milora"],
    [["--temperature", "0"], "--temperature must be above 0, not 0: completions have to differ"],
    [["--samples", "1"], "--samples"],
    [["--prompts", "missing.jsonl"], "missing.jsonl cannot be read (ENOENT)"],
  ])("refuses %j", async (words, message) => {
    const out = join(folder, "refused");
    const { code, err } = await pare("rl", base, "--prompts", prompts, ...words, "--out", out);
    expect(err).toContain(message);
    expect(code).toBe(2);
    expect(existsSync(out)).toBe(false);
  });

  it("asks for prompts", async () => {
    const { code, err } = await pare("rl", base);
    expect(err).toContain('there are no prompts; give a file of {"prompt": "...", "answer": "..."} with --prompts');
    expect(code).toBe(2);
  });
});

describe("readQuestions", () => {
  const options = { verify: "number", maxTokens: 8, maxPositions: 40, raw: false } as const;
  const tokenizer = async (): Promise<Tokenizer> =>
    (await newModel("1x32", { text: "Once upon a time", vocab: 300, seed: 0 })).tokenizer;

  it.each([
    ["not json", 'line 2: it is not JSON; each line is one example, such as {"prompt":"3+5=","answer":"8"}'],
    ['{"answer": 3}', 'line 2: it lacks a "prompt", a text that is not empty'],
    ["null", 'line 2: it lacks a "prompt"'],
    ['{"prompt": "", "answer": 3}', 'line 2: it lacks a "prompt"'],
    ['{"prompt": "a"}', 'line 2: it lacks an "answer", a text that is not empty or a number'],
    ['{"prompt": "a", "answer": "b"}', 'line 2: the answer "b" is not one number'],
    [
      `{"prompt": "${"1 ".repeat(20)}", "answer": 3}`,
      "line 2: a prompt of 40 tokens with a completion of 8 is longer than the 40 tokens that the model takes",
    ],
  ])("says in which line a prompt is wrong: %s", async (line, message) => {
    const path = await written("bad.jsonl", [{ prompt: "a", answer: 1 }, line]);
    await expect(readQuestions(await tokenizer(), path, options)).rejects.toThrow(message);
  });

  it("refuses a file without prompts", async () => {
    const path = await written("empty.jsonl", ["", " "]);
    await expect(readQuestions(await tokenizer(), path, options)).rejects.toThrow(`${path} has no prompts`);
  });

  it("asks as the model is used to, unless told otherwise", async () => {
    const plain = await tokenizer();
    const chats = Tokenizer.fromFiles({ ...plain.files, chatTemplate });
    const path = await written("one.jsonl", [{ prompt: "2+2", answer: 4 }]);
    const [asked] = await readQuestions(chats, path, { ...options, maxPositions: 200 });
    expect(chats.decode(asked!.ids)).toBe("[user] 2+2\n[assistant] ");
    const [raw] = await readQuestions(chats, path, { ...options, raw: true });
    expect(chats.decode(raw!.ids)).toBe("2+2");
    expect([asked!.judge("It is 4."), asked!.judge("4 or 5")]).toEqual([1, 0]);
  });
});
