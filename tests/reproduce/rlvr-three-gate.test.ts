import { describe, expect, it } from "vitest";
import { randomMask } from "../../src/methods/index.ts";
import { initDecoder } from "../../src/models/index.ts";
import type { Setting } from "../../src/reproduce/index.ts";
import { accuracy, answeredSums, config, isRight, sums } from "../../src/reproduce/rlvr-three-gate/addition.ts";
import { fineTune, reinforce, updateOf } from "../../src/reproduce/rlvr-three-gate/runs.ts";
import { HostTensor, Rng } from "../../src/tensor/index.ts";

const setting = { seed: 5, signal: new AbortController().signal } as Setting;
const told = (tokens: readonly number[]): string => tokens.map((token) => "0123456789+=."[token]).join("");

describe("the experiment on RLVR's three gates", () => {
  it("asks all sums, and judges answers written whole", () => {
    const sum = sums[38]!;
    expect([sums.length, told(sum.ids), told(sum.answer)]).toEqual([100, "3+8=", "11."]);
    const judged = (...tokens: number[]): number => isRight(sum, { tokens, logProbs: [], ended: true });
    expect([judged(...sum.answer), judged(1, 1), judged(1, 2, 12), judged(...sum.answer, 12)]).toEqual([1, 0, 0, 0]);
  });

  it("teaches answers that are right as often as asked, and what was asked of none", () => {
    const { ids, targets } = answeredSums(2000, 0.4, new Rng(1)).next();
    let right = 0;
    for (let row = 0; row < 2000; row++) {
      const at = (t: HostTensor): number[] => Array.from({ length: 6 }, (_, i) => t.at(row * 6 + i));
      expect(at(targets).slice(0, 3)).toEqual([-1, -1, -1]);
      const [a, , b] = at(ids);
      right += Number(`${told(at(targets).slice(3))}` === `${`${a! + b!}`.padStart(2, "0")}.`);
    }
    // A random answer is right once in a hundred.
    expect(right / 2000).toBeCloseTo(0.406, 1);
  });

  it("knows how often a model is right: where all tokens are as likely, once in their number cubed", async () => {
    const weights = { ...initDecoder(config, new Rng(0)), "lm_head.weight": HostTensor.zeros("f32", [13, 64]) };
    expect((await accuracy(weights)).sampled).toBeCloseTo(13 ** -3, 8);
  });

  it("trains by answers and by rewards, and holds changes to a mask", { timeout: 60_000 }, async () => {
    const start = initDecoder(config, new Rng(2));
    const base = await fineTune(setting, start, { rate: 3e-3, updates: 80, draw: 1 });
    const before = (await accuracy(base)).sampled;
    expect(before).toBeGreaterThan(0.02);
    const name = "model.layers.0.mlp.up_proj.weight";
    const mask = randomMask(160, 64, 1000, new Rng(3));
    const masks = new Map([[name, mask]]);
    const trained = await reinforce(setting, base, { rate: 2e-4, updates: 30, draw: 2, masks });
    expect((await accuracy(trained)).sampled).toBeGreaterThan(before + 0.02);
    const { changed } = await updateOf(setting, base, trained);
    expect(changed.get(name)!.both(mask.not())).toBe(0);
    expect(changed.get(name)!.count).toBeGreaterThan(300);
  });
});
