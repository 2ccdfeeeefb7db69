import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readGuardExamples, readPolicy } from "../../src/methods/node.ts";
import { saveModel } from "../../src/models/node.ts";
import { conversations, guardModel, json, policy, tokenizer } from "../methods/weights/guard/small.ts";
import { pare } from "./process.ts";

let folder: string;
const at = (name: string): string => join(folder, name);

const lines = (count: number, seed: number): string =>
  conversations(count, seed)
    .map(({ turns, judge, verdict }) => JSON.stringify({ turns, judge, unsafe: verdict.categories }))
    .join("\n");

const recipe = {
  student: "./student",
  teacher: "./teacher",
  policy: "policy.json",
  training: "training.jsonl",
  test: "test.jsonl",
  out: "small",
  layers: 2,
  ffn: 32,
  group: 32,
  steps: 4,
  rate: 1e-3,
  batch: 4,
};
const save = (name: string, value: unknown): Promise<void> => writeFile(at(name), JSON.stringify(value));

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-guard-"));
  for (const [seed, name] of ["student", "teacher"].entries())
    await saveModel(at(name), { json, weights: guardModel(seed).weights, tokenizer });
  await save("policy.json", policy);
  await writeFile(at("training.jsonl"), lines(16, 1));
  await writeFile(at("test.jsonl"), lines(8, 2));
  await save("recipe.json", recipe);
});
afterAll(async () => await rm(folder, { recursive: true }));

describe("pare guard", { timeout: 120_000 }, () => {
  it("compresses by a recipe into a much smaller folder, with a row for each stage", async () => {
    const { code, out, err } = await pare("guard", "compress", "--recipe", at("recipe.json"), "--json");
    expect([code, err]).toEqual([0, ""]);
    const { stages } = JSON.parse(out);
    expect(stages).toHaveLength(6);
    for (const row of stages)
      expect(Object.keys(row).sort()).toEqual(
        ["stage", "parameters", "bytes", "f1", "falsePositives", "auprc", "milliseconds"].sort(),
      );
    const bytes = async (name: string): Promise<number> => (await stat(join(at(name), "model.safetensors"))).size;
    // The headers of such small files weigh as much as their numbers.
    expect(await bytes("small")).toBeLessThan((await bytes("student")) / 4);
    const again = await pare("guard", "compress", "--recipe", at("recipe.json"));
    expect(again.err).toContain("small exists; --force replaces it");
    // After four steps it need not have learned to say anything; if it does not, that is an error.
    const judged = await pare("guard", "moderate", at("small"), "--text", "Look at the cake.", "--json");
    if (judged.code === 0) expect(JSON.parse(judged.out).score).toBeGreaterThan(0);
    else expect(judged.err).toMatch(/a verdict is "safe"|names/);
  });

  it.each([
    [["guard", "shrink"], 'a guard can compress, moderate or serve, not "shrink"'],
    [["guard", "compress"], "compress needs --recipe <file>"],
    [["guard", "moderate"], "moderate needs the folder of a guard"],
    [["guard", "serve"], "serve needs the folder of a guard: pare guard serve <model>"],
    [["guard", "moderate", "m"], "give --text or --conversation"],
  ])("refuses %j", async (words, message) => {
    const { code, err } = await pare(...words);
    expect(code).toBe(2);
    expect(err).toContain(message);
  });

  it.each([
    [{ steps: "many" }, '"steps" is a number, not "many"'],
    [{ depth: 3 }, 'a recipe has no "depth"'],
    [{ ffn: 50 }, "round 50 to a multiple of 32"],
    [{ layers: 3 }, "keep 1 to 2 of the student's 3 layers, not 3"],
    [{ policy: 3 }, '"policy" names a place'],
  ])("refuses a recipe with %j", async (changes, message) => {
    await save("bad.json", { ...recipe, out: "never", ...changes });
    const { code, err } = await pare("guard", "compress", "--recipe", at("bad.json"));
    expect(code).toBe(2);
    expect(err).toContain(message);
  });

  it("refuses data and policies that say something else", async () => {
    await writeFile(at("odd.jsonl"), '{"turns":[{"role":"user","text":"a"}],"unsafe":["S7"]}');
    await expect(readGuardExamples(at("odd.jsonl"), policy)).rejects.toThrow(
      /odd\.jsonl:1: the policy has no category S7; it has S1, S2/,
    );
    await writeFile(at("odd.jsonl"), '\n{"turns":[{"role":"robot","text":"a"}],"unsafe":[]}');
    await expect(readGuardExamples(at("odd.jsonl"), policy)).rejects.toThrow(/odd\.jsonl:2: "turns" lists/);
    await writeFile(at("odd.jsonl"), '{"turns":[{"role":"user","text":"a"}]}');
    await expect(readGuardExamples(at("odd.jsonl"), policy)).rejects.toThrow(/"unsafe" lists the codes/);
    await save("odd.json", { categories: [{ code: "S1" }] });
    await expect(readPolicy(at("odd.json"))).rejects.toThrow(/category 0 needs a "code" and a "name"/);
  });
});
