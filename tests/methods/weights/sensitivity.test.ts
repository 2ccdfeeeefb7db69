import { expect, test } from "vitest";
import { knapsack, matrixNames, sensitivity } from "../../../src/methods/index.ts";
import type { Dense, Weight } from "../../../src/nn/index.ts";
import type { HostTensor } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { plainLogits } from "../../models/plain-decoder.ts";
import { coarse, randomWindows } from "./methods.ts";

const device = { threads: 1 };

function softmax(logits: readonly number[]): number[] {
  const top = Math.max(...logits);
  const odds = logits.map((v) => Math.exp(v - top));
  const total = odds.reduce((a, b) => a + b);
  return odds.map((v) => v / total);
}

test.each([
  ["a head of its own", {}],
  ["a tied head", { tie_word_embeddings: true }],
])(
  "costs are the divergences that plain loops give, with %s",
  async (_what, changes) => {
    const model = tinyModel(changes);
    const windows = randomWindows(model.config.vocab, 2, 6);
    const items = await sensitivity(model, windows, [null, coarse(0.5), coarse(0.125)], device);
    expect(items.map(({ name }) => name).sort()).toEqual(matrixNames(model.config).sort());
    for (const { name, choices } of items) {
      if (!/embed|head|layers\.0.*(o_proj|down)|layers\.1.*(q_proj|up)/.test(name)) continue;
      expect(choices[0]).toMatchObject({ method: null, cost: 0, bytes: (model.weights[name] as Weight).bytes });
      const values = (model.weights[name] as Dense).values as HostTensor;
      const weight = await coarse(0.5).compress({ name, weight: values } as never);
      let expected = 0;
      for (let row = 0; row < 2; row++) {
        const ids = Array.from({ length: 6 }, (_, i) => windows.at(row * 6 + i));
        const before = plainLogits(model.config, model.weights, ids).map(softmax);
        const after = plainLogits(model.config, { ...model.weights, [name]: weight }, ids).map(softmax);
        before.forEach((p, t) => {
          expected += p.reduce((s, v, i) => s + v * Math.log(v / after[t]![i]!), 0) / 12;
        });
      }
      expect(Math.abs(choices[1]!.cost - expected)).toBeLessThan(1e-5 + 1e-3 * expected);
      expect(choices[2]!.cost).toBeLessThan(choices[1]!.cost);
    }
    const free = knapsack(items, 1e9);
    expect(free.cost).toBe(0);
  },
  120_000,
);

test("a candidate that cannot calibrate is left out, and none left is an error", async () => {
  const model = tinyModel();
  const windows = randomWindows(model.config.vocab, 1, 6);
  const include = (name: string): boolean => name === "model.embed_tokens.weight" || name === "lm_head.weight";
  const items = await sensitivity(model, windows, [null, coarse(0.5, true)], { ...device, include });
  expect(items.map(({ name, choices }) => [name, choices.length])).toEqual([
    ["model.embed_tokens.weight", 1],
    ["lm_head.weight", 2],
  ]);
  await expect(sensitivity(model, windows, [coarse(0.5, true)], { ...device, include })).rejects.toThrow(
    'none of the candidates can compress "model.embed_tokens.weight"',
  );
});
