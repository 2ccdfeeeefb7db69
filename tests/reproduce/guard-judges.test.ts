import { describe, expect, it } from "vitest";
import { guardScores, predictAnswers } from "../../src/methods/index.ts";
import { divergence, scoresOf } from "../../src/reproduce/llama-guard-int4/comparisons.ts";
import { balancedJudge, balancedScores, judgement } from "../../src/reproduce/llama-guard-int4/judges.ts";
import { codec, conversations, guardModel } from "../methods/weights/guard/small.ts";

const guard = guardModel(1);
const passages = conversations(31, 2);
const others = conversations(40, 3).map((passage, i) => {
  const [turn] = passage.turns;
  return { ...passage, turns: [{ ...turn!, text: `${turn!.text} ${i}` }] };
});
const prompts = others.map((example) => codec.example(example));

describe("a judge", () => {
  it("calls half of the passages unsafe that its threshold is set on", async () => {
    const judge = await balancedJudge(guard, codec, others);
    const scores = scoresOf(await judgement(judge, codec, prompts), codec.first);
    expect(scores.filter((score) => score > 0.5)).toHaveLength(20);
    expect(scores.filter((score) => score < 0.5)).toHaveLength(20);
  });

  it("is as sure of other passages as the guard is, but for the threshold", async () => {
    const { offset } = await balancedJudge(guard, codec, others);
    const [plain, balanced] = [
      await guardScores(guard, codec, passages),
      await balancedScores(guard, codec, others, passages),
    ];
    const margin = (score: number): number => Math.log(score / (1 - score));
    for (const [i, score] of balanced.entries()) expect(margin(score)).toBeCloseTo(margin(plain[i]!) + offset, 3);
  });

  it("moves nothing but where it decides", async () => {
    const [plain, moved] = [
      await predictAnswers(guard, prompts),
      await judgement({ guard, offset: 2 }, codec, prompts),
    ];
    for (const [i, rows] of moved.entries()) {
      const changed = [...rows].flatMap((value, at) => (value === plain[i]![at] ? [] : [at]));
      expect(changed).toEqual([codec.first.unsafe]);
    }
  });
});

it("the divergence of predictions is the mean over tokens of that between their softmaxes", () => {
  const [p, q] = [Float32Array.of(Math.log(3), 0, 5, 5), Float32Array.of(0, 0, -7, -7)];
  const expected = 0.75 * Math.log(1.5) + 0.25 * Math.log(0.5);
  expect(divergence([p], [q], 2)).toBeCloseTo(expected / 2, 6);
  expect(divergence([p], [p], 2)).toBe(0);
});
