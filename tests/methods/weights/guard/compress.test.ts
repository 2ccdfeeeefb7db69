import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  type CompressedGuard,
  checkRecipe,
  compressGuard,
  distillGuard,
  Guard,
  type GuardRecipe,
  guardScores,
  predictAnswers,
  pruneUnembedding,
} from "../../../../src/methods/index.ts";
import { loadGuard, saveGuard } from "../../../../src/methods/node.ts";
import type { Weights } from "../../../../src/models/index.ts";
import { BlockWeight, type Dense, KeptRows } from "../../../../src/nn/index.ts";
import type { HostTensor } from "../../../../src/tensor/index.ts";
import { codec, conversations, guardModel, json, policy, tokenizer } from "./small.ts";

const training = conversations(64, 2);
const test = conversations(24, 3);
const prompts = training.map((example) => codec.example(example));
const recipe: GuardRecipe = { layers: 2, ffn: 32, group: 32, steps: 60, rate: 3e-3, batch: 8 };

let made: Promise<{ student: ReturnType<typeof guardModel>; small: CompressedGuard }> | undefined;

/** A student that knows the verdicts, and what compression makes of it. */
function compressed() {
  made ??= (async () => {
    const start = guardModel(1);
    const weights = await distillGuard(start, null, prompts, { steps: 150, rate: 5e-3, batch: 8 });
    const student = { ...start, weights };
    const taught = await predictAnswers(student, prompts);
    const small = await compressGuard(student, taught, { codec, training, test }, recipe);
    return { student, small };
  })();
  return made;
}

describe("compressing a guard", { timeout: 240_000 }, () => {
  it("reports each stage, and ends with 4-bit blocks and a head of the verdicts' rows", async () => {
    const { student, small } = await compressed();
    expect(small.stages.map(({ stage }) => stage)).toEqual([
      "student",
      "pruned",
      "distilled",
      "rounded at once",
      "trained for 4 bits",
      "packed",
    ]);
    expect([small.config.layers, small.config.ffn]).toEqual([2, 32]);
    const [first, last] = [small.stages[0]!, small.stages.at(-1)!];
    expect(last.bytes).toBeLessThan(first.bytes / 6.5);
    expect(first.f1).toBeGreaterThan(0.9);
    const head = small.weights["lm_head.weight"] as KeptRows;
    expect(head).toBeInstanceOf(KeptRows);
    expect((head.ids as HostTensor).toArray()).toEqual(codec.ids());
    const matrices = Object.values({ ...small.weights, head: head.inner }).filter(
      (weight) => weight.shape.length === 2,
    );
    expect(matrices.filter((weight) => !(weight instanceof BlockWeight || weight instanceof KeptRows))).toEqual([]);
    expect(student.config.layers).toBe(3);
  });

  it("reports the stages that are asked for alone", async () => {
    const { student, small } = await compressed();
    const seen: string[] = [];
    const quick = { ...recipe, steps: 2, lambda: 0 };
    const options = { judge: ["pruned"] as const, onStage: ({ stage }: { stage: string }) => void seen.push(stage) };
    const { stages, between } = await compressGuard(student, [], { codec, training, test }, quick, options);
    expect([stages.map(({ stage }) => stage), seen]).toEqual([["pruned"], ["pruned"]]);
    const [ours, before] = await Promise.all(
      [between.pruned, small.between.pruned].map((model) => guardScores(model, codec, test)),
    );
    expect(ours).toEqual(before);
  });

  it("scores and says the same with the cut head as with the whole", async () => {
    const { small } = await compressed();
    const [whole, cut] = await Promise.all(
      [small.between.whole, small].map((model) => guardScores(model, codec, test)),
    );
    for (const [i, score] of cut!.entries()) expect(score).toBeCloseTo(whole![i]!, 5);
  });

  it("saves a guard that moderates, and never calls safe what is no verdict", async () => {
    const { student, small } = await compressed();
    const folder = await mkdtemp(join(tmpdir(), "pare-guard-"));
    const sizes = { num_hidden_layers: 2, intermediate_size: 32 };
    await saveGuard(folder, { json: { ...json, ...sizes }, weights: small.weights, tokenizer, policy });
    await using guard = await loadGuard(folder);
    const scores = await guardScores(small, codec, test);
    for (const [i, { turns, judge }] of test.entries()) {
      const { safe, categories, score, ttftMs } = await guard.moderate(turns, judge);
      expect(score).toBeCloseTo(scores[i]!, 2);
      expect(safe).toBe(categories.length === 0);
      expect(ttftMs).toBeGreaterThan(0);
    }
    await expect(guard.moderate([], "user")).rejects.toThrow("an empty conversation cannot be judged");
    await rm(folder, { recursive: true });

    const untaught = guardModel(9);
    await using babbler = await Guard.open(untaught, policy, tokenizer);
    await expect(babbler.moderate([{ role: "user", text: "cake" }], "user")).rejects.toThrow(/a verdict is "safe", or/);
    expect(student.config.vocab).toBe(untaught.config.vocab);
  });
});

describe("distillation", { timeout: 120_000 }, () => {
  it("brings a student nearer to its teacher's logits, which may be cached", async () => {
    const [student, teacher] = [guardModel(4), guardModel(5)];
    const cached = await predictAnswers(teacher, prompts);
    const distance = async (weights: Weights): Promise<number> => {
      const rows = await predictAnswers({ ...student, weights }, prompts);
      return rows.reduce((sum, row, i) => sum + row.reduce((s, v, j) => s + Math.abs(v - cached[i]![j]!), 0), 0);
    };
    const options = { lambda: 1, steps: 15, rate: 2e-3, batch: 8 };
    const direct = await distillGuard(student, teacher, prompts, options);
    expect(await distance(direct)).toBeLessThan(await distance(student.weights));
    const again = await distillGuard(student, cached, prompts, options);
    const head = (weights: Weights) => ((weights["lm_head.weight"] as Dense).values as HostTensor).toArray();
    expect(head(again)).toEqual(head(direct));
  });

  it("refuses teachers that do not belong to the student or the prompts", async () => {
    const student = guardModel(4);
    const other = guardModel(5, { vocab_size: 17 });
    const options = { steps: 1, rate: 1e-3 };
    await expect(distillGuard(student, other, prompts, options)).rejects.toThrow(
      `the teacher has 17 tokens and the student ${student.config.vocab}; distillation needs one tokenizer for both`,
    );
    await expect(distillGuard(student, [new Float32Array(3)], prompts, options)).rejects.toThrow(
      "the teacher's logits are not those of these prompts: prompt 0 of 64 has others",
    );
    await expect(distillGuard(student, null, prompts, { ...options, lambda: 0.5 })).rejects.toThrow(
      "a lambda of 0.5 needs a teacher",
    );
    await expect(distillGuard(student, null, prompts, { ...options, lambda: 2 })).rejects.toThrow(
      "lambda is a share from 0 to 1, not 2",
    );
    await expect(distillGuard(student, null, [], options)).rejects.toThrow("there are no prompts to learn from");
  });
});

describe("a recipe", () => {
  const student = guardModel(1);

  it.each([
    [{ layers: 3 }, "keep 1 to 2 of the student's 3 layers, not 3"],
    [{ layers: 0 }, "keep 1 to 2 of the student's 3 layers, not 0"],
    [{ ffn: 50 }, "50 neurons do not make whole groups: round 50 to a multiple of 32"],
    [{ ffn: 96 }, "keep 1 to 64 of the student's 64 neurons, not 96"],
    [{ ffn: 48, group: 48 }, "a width of 32 does not make whole groups of 48; choose a group that divides it"],
  ])("of %j is refused", (changes, message) => {
    expect(() => checkRecipe(student, { ...recipe, ...changes })).toThrow(message);
  });

  it("is refused for a student whose head is its embedding", () => {
    const tied = guardModel(1, { tie_word_embeddings: true });
    expect(() => checkRecipe(tied, recipe)).toThrow("the student's head shares the embedding's matrix");
    expect(() => pruneUnembedding(tied.weights, [1])).toThrow("the head shares the embedding's matrix");
    expect(() => checkRecipe(student, { ...recipe, layers: 2 })).not.toThrow();
  });
});
