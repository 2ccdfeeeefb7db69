import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readLessons } from "../../src/cli/train/lessons.ts";
import { trainingMethod } from "../../src/cli/train/methods.ts";
import { newModel } from "../../src/cli/train/start.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { openModel } from "../../src/models/node.ts";
import { asWeight } from "../../src/nn/index.ts";
import { IGNORED } from "../../src/train/index.ts";
import { start } from "./process.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-train-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const tiny = ["--new", "1x32", "--vocab", "300", "--batch", "4", "--length", "32", "--threads", "1"];
const inFolder = (name: string): string => join(folder, name);

interface Trained {
  readonly steps: number;
  readonly loss: number;
  readonly bytes: number;
  readonly heldOut: { readonly before: number; readonly after: number };
}

async function train(...words: string[]): Promise<Trained> {
  const { code, out, err } = await start("train", ...words, "--json").ended;
  expect([err, code]).toEqual([expect.any(String), 0]);
  return JSON.parse(out) as Trained;
}

describe("pare train", { timeout: 180_000 }, () => {
  it("trains a new model, and further with each method", async () => {
    const base = inFolder("base");
    const first = await train(...tiny, "--steps", "40", "--rate", "0.01", "--out", base);
    expect(first.heldOut.after).toBeLessThan(first.heldOut.before - 0.3);
    expect((await readdir(base)).sort()).toEqual(
      ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training"].sort(),
    );
    const log = (await readFile(join(base, "training", "log.jsonl"), "utf8")).trim().split("\n");
    expect(log.filter((line) => line.includes('"train"'))).toHaveLength(40);

    const data = inFolder("pairs.jsonl");
    const pairs = Array.from({ length: 40 }, (_, i) => ({ prompt: `Say ${i}:`, response: ` it is ${i}` }));
    await writeFile(data, pairs.map((pair) => JSON.stringify(pair)).join("\n"));
    const further = ["--data", data, "--steps", "6", "--batch", "2", "--length", "32", "--threads", "1"];
    for (const [method, kind] of [
      [["lora", "--rank", "2"], "dense"],
      [["pissa", "--rank", "2"], "dense"],
      [["qlora", "--rank", "2"], "sum"],
      [["qat", "--bits", "4"], "blocks"],
      [["parq", "--bits", "1.58"], "blocks"],
      [["paretoq", "--bits", "2"], "blocks"],
      [["quest", "--bits", "4"], "transformed"],
      [["rolora", "--rank", "2"], "rounded-input"],
    ] as const) {
      const out = inFolder(method[0]);
      const result = await train(base, ...further, "--method", ...method, "--out", out);
      expect(result.steps).toBe(6);
      await using model = await openModel(out);
      expect([method[0], asWeight(model.weights["model.layers.0.mlp.up_proj.weight"]!).kind]).toEqual([
        method[0],
        kind,
      ]);
    }
  });

  it("stops at Ctrl-C, and goes on to the same numbers as if it had not", async () => {
    const words = [...tiny, "--steps", "60", "--checkpoint", "5", "--dtype", "f32", "--evaluate", "20"];
    const whole = inFolder("whole");
    await train(...words, "--out", whole);
    const out = inFolder("stopped");
    const { child, ended } = start("train", ...words, "--out", out);
    child.stderr.on("data", (text) => {
      if (/step 20\/60 +loss/.test(String(text))) child.kill("SIGINT");
    });
    const { code, err } = await ended;
    expect(code).toBe(130);
    expect(err).toContain(`the same command goes on from ${out}.state`);
    expect(existsSync(out)).toBe(false);
    const refused = await start("train", ...words, "--rate", "0.5", "--out", out).ended;
    expect(refused.err).toContain("holds checkpoints of a run with other options");
    expect(refused.code).toBe(2);
    await train(...words, "--out", out);
    expect(existsSync(`${out}.state`)).toBe(false);
    const [a, b] = await Promise.all([whole, out].map((place) => readFile(join(place, "model.safetensors"))));
    expect(a!.equals(b!)).toBe(true);
  });

  it.each([
    [["--method", "lorra"], 'did you mean "lora"?'],
    [["some-model", "--new", "2x64"], "give a model to train further, or --new for one from nothing, not both"],
    [["--batch", "4096"], "too few for batches of 4096 x 128; give more text, or smaller --batch and --length"],
  ])("refuses %j", async (words, message) => {
    const { code, err } = await start("train", ...words, "--out", inFolder("refused")).ended;
    expect(err).toContain(message);
    expect(code).toBe(2);
    expect(existsSync(inFolder("refused"))).toBe(false);
  });
});

describe("trainingMethod", () => {
  const asked = { bits: undefined, inputBits: undefined, block: undefined, rank: undefined, alpha: undefined, seed: 0 };

  it("refuses options that mean nothing to it, and bits that it does not know", () => {
    expect(() => trainingMethod({ ...asked, method: "lora", bits: 4 })).toThrow(
      "--bits means nothing to lora, but to qlora, qat, parq, paretoq, quest, rolora",
    );
    expect(() => trainingMethod({ ...asked, method: "qat", bits: 5 })).toThrow(
      "qat trains weights of 2, 3, 4, 8 bits, not 5",
    );
    expect(() => trainingMethod({ ...asked, method: "qlora", block: "channel" })).toThrow("qlora rounds blocks");
  });
});

describe("newModel", () => {
  it.each([
    ["6by256", '--new takes layers x width, such as 6x256, or a config.json, not "6by256"'],
    ["2x40", "--new 2x40: a model has at least one layer, and a width that is a multiple of 32"],
    ["missing.json", "missing.json cannot be read: ENOENT"],
  ])("refuses %s", async (shape, message) => {
    await expect(newModel(shape, { text: "Once upon a time", vocab: 300, seed: 0 })).rejects.toThrow(message);
  });
});

describe("readLessons", () => {
  const options = { text: undefined, data: undefined, batch: 2, length: 16, seed: 0 };

  it.each([
    ["not json", "line 2: it is not JSON"],
    ['{"question": "a"}', 'line 2: an example has "messages", "prompt" and "response", or "text"'],
    ['{"messages": []}', "line 2: the tokenizer has no chat template"],
    ["", "none of 1 examples has anything to learn within 16 tokens"],
  ])("says in which line an example is wrong: %s", async (line, message) => {
    const { tokenizer } = await newModel("1x32", { text: "Once upon a time", vocab: 300, seed: 0 });
    const data = inFolder("bad.jsonl");
    await writeFile(data, `{"text": ""}\n${line}\n`);
    await expect(readLessons(tokenizer, { ...options, data })).rejects.toThrow(message);
  });

  it("refuses files that are not there, and two of them", async () => {
    const { tokenizer } = await newModel("1x32", { text: "Once upon a time", vocab: 300, seed: 0 });
    await expect(readLessons(tokenizer, { ...options, text: "missing.txt" })).rejects.toThrow(
      "missing.txt cannot be read (ENOENT)",
    );
    await expect(readLessons(tokenizer, { ...options, text: "a", data: "b" })).rejects.toThrow(
      "give --text (plain text) or --data (JSON lines), not both",
    );
  });

  it("has the assistant's turns of a conversation learned, and nothing else", async () => {
    const { tokenizer: plain } = await newModel("1x32", { text: "Once upon a time", vocab: 300, seed: 0 });
    const tokenizer = Tokenizer.fromFiles({
      ...plain.files,
      chatTemplate:
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    });
    const data = inFolder("chat.jsonl");
    const messages = [
      { role: "user", content: "2" },
      { role: "assistant", content: "3" },
      { role: "user", content: "4" },
      { role: "assistant", content: "5" },
    ];
    await writeFile(data, JSON.stringify({ messages }));
    const { data: batches } = await readLessons(tokenizer, { ...options, batch: 1, length: 96, data });
    const { targets } = batches.next();
    const learned = Array.from(targets.data, Number).filter((id) => id !== IGNORED);
    expect(tokenizer.decode(learned)).toBe("3\n5\n");
  });
});
