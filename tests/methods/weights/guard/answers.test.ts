import { describe, expect, it } from "vitest";
import {
  answerInputs,
  answerLogits,
  commonPrefix,
  type GuardModel,
  predictAnswers,
} from "../../../../src/methods/index.ts";
import type { Weights } from "../../../../src/models/index.ts";
import { compile } from "../../../../src/runtime/index.ts";
import { flattenTree, grad, isHostTensor, square, sum } from "../../../../src/tensor/index.ts";
import { codec, conversations, guardModel } from "./small.ts";

const prompts = conversations(6, 5).map((example) => codec.example(example));
const prefix = commonPrefix(prompts);
const length = Math.max(...prompts.map(({ ids }) => ids.length - 1));

/** Logits of the prompts, with what they share read once or by each of them. */
async function logits(model: GuardModel, shared: readonly number[]): Promise<Float32Array> {
  const inputs = answerInputs(prompts, length, shared.length);
  await using program = await compile((given) => answerLogits(model, given, shared), [inputs]);
  return (await program(inputs)).data as Float32Array;
}

function nearly(actual: Float32Array, expected: Float32Array): void {
  expect(actual.length).toBe(expected.length);
  expect(Math.max(...actual.map((value, i) => Math.abs(value - expected[i]!)))).toBeLessThan(1e-4);
}

describe("what prompts begin with", { timeout: 60_000 }, () => {
  it("is all that they share, but for a token before the answer", () => {
    const shared = (...all: number[][]) => commonPrefix(all.map((ids) => ({ ids, scored: 1 })));
    expect(shared([1, 2, 3, 9], [1, 2, 4, 9])).toEqual([1, 2]);
    expect(shared([1, 2, 3, 9], [2, 2, 3, 9])).toEqual([]);
    expect(shared([1, 2, 3, 9], [1, 2, 9])).toEqual([1]);
    expect(shared([1, 2, 3, 9])).toEqual([1, 2]);
    expect(shared()).toEqual([]);
    expect(codec.tokenizer.decode(prefix.slice(1))).toMatch(/^Task: .*S2: Water\.\nConversation:\nUser: Look at the/s);
  });

  it.each([
    ["all heads have keys of their own", {}],
    ["heads share keys", { num_key_value_heads: 1 }],
    ["layers see a window", { model_type: "mistral", sliding_window: 5 }],
  ])("is read once for all of them, with the same logits: %s", async (_, changes) => {
    const model = guardModel(3, changes);
    nearly(await logits(model, prefix), await logits(model, []));
  });

  it("learns as if each prompt had read it", async () => {
    const { config, weights } = guardModel(3);
    const of = async (shared: readonly number[]): Promise<Float32Array> => {
      const inputs = answerInputs(prompts, length, shared.length);
      await using program = await compile(
        (w, given) => grad(sum(square(answerLogits({ config, weights: w as Weights }, given, shared))), w),
        [weights, inputs],
      );
      const gradients = Object.values(flattenTree(await program(weights, inputs), isHostTensor));
      return Float32Array.from(gradients.flatMap((tensor) => tensor.toArray().flat(2) as number[]));
    };
    nearly(await of(prefix), await of([]));
  });

  it("gives each prompt's logits in the order of the prompts, however long they are", async () => {
    const model = guardModel(3);
    const long = {
      turns: [{ role: "user", text: "Look at the road, the hill and the tree." }],
      judge: "user",
    } as const;
    const mixed = [prompts[0]!, codec.example({ ...long, verdict: { safe: true, categories: [] } }), prompts[1]!];
    const together = await predictAnswers(model, mixed);
    for (const [i, prompt] of mixed.entries()) nearly(together[i]!, (await predictAnswers(model, [prompt]))[0]!);
  });
});
