import { beforeAll, describe, expect, it } from "vitest";
import { guardStories, policy } from "../../src/reproduce/llama-guard-int4/stories.ts";
import { localWorkbench } from "../../src/reproduce/node.ts";
import type { LanguageModel } from "../../src/reproduce/workbench.ts";
import { Rng } from "../../src/tensor/index.ts";

let model: LanguageModel;
beforeAll(async () => {
  model = await localWorkbench().languageModel();
});

describe("passages to judge", { timeout: 60_000 }, () => {
  it("are half unsafe, of each kind, and those to test on are of no text to learn from", () => {
    const { training, heldBack, test, text, codec } = guardStories(model, new Rng(1));
    expect(training.length).toBeGreaterThan(1000);
    expect(heldBack.length).toBeGreaterThan(150);
    expect(test.length).toBeGreaterThan(400);
    for (const part of [training, heldBack, test]) {
      expect(part.filter(({ verdict }) => verdict.safe)).toHaveLength(part.length / 2);
      expect(new Set(part.flatMap(({ verdict }) => verdict.categories)).size).toBe(policy.categories.length);
    }
    const learned = codec.tokenizer.decode(text);
    const said = (part: typeof test): string[] => part.map(({ turns }) => turns[0]!.text);
    expect(said(training).filter((passage) => !learned.includes(passage))).toEqual([]);
    // Fables end alike, but little of what is tested can be read in the text to learn from.
    for (const part of [heldBack, test])
      expect(said(part).filter((passage) => learned.includes(passage)).length).toBeLessThan(part.length / 100);
    const chosenBy = new Set(said(heldBack));
    expect(said(test).filter((passage) => chosenBy.has(passage)).length).toBeLessThan(test.length / 100);
  });

  it("are drawn by the seed", () => {
    const first = (seed: number) => guardStories(model, new Rng(seed)).test.slice(0, 5);
    expect(first(1)).toEqual(first(1));
    expect(first(1)).not.toEqual(first(2));
  });

  it("need stories of the kinds that are looked for", () => {
    const plain = model.tokenizer.encode("It rained all day. The dog slept by the fire, and nobody came.");
    expect(() => guardStories({ ...model, training: plain, heldOut: plain }, new Rng(1))).toThrow(
      "the texts need stories of Forest, Fairies, Sea and others, as those that come with pare have them",
    );
  });
});
