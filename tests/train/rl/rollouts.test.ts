import { describe, expect, it } from "vitest";
import { DecoderSession } from "../../../src/generate/index.ts";
import { decoderLogits } from "../../../src/models/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import {
  div,
  flattenTree,
  HostTensor as Host,
  type HostTensor,
  isHostTensor,
  logSoftmax,
  Rng,
  spec,
} from "../../../src/tensor/index.ts";
import { DecoderRollouts } from "../../../src/train/index.ts";
import { expectNear, tinyModel, windowedGemma } from "../../generate/models.ts";

const { config, weights } = tinyModel();
const prompts = [3, 1, 3, 7, 3].map((length, i) => ({ ids: new Rng(i).integers(length, 20) }));
const options = { samples: 4, maxTokens: 6, stop: [20, 7], seed: 11 };

describe("rollouts of a decoder", () => {
  it("give the log-probabilities that the whole model gives at the temperature", async () => {
    await using rollouts = await DecoderRollouts.open(config, weights, { threads: 1 });
    const temperature = 1.7;
    const groups = await rollouts.sample(prompts, { ...options, temperature });
    await using program = await compile(
      (ids) => logSoftmax(div(decoderLogits(config, weights, ids), temperature), -1),
      [spec("i64", [1, "seq"])],
      { threads: 1 },
    );
    expect(groups.map((group) => group.length)).toEqual([4, 4, 4, 4, 4]);
    for (const [p, group] of groups.entries())
      for (const { tokens, logProbs, ended } of group) {
        expect(ended).toBe(options.stop.includes(tokens.at(-1)!));
        expect(tokens.slice(0, -1).some((t) => options.stop.includes(t))).toBe(false);
        expect(ended || tokens.length === options.maxTokens).toBe(true);
        const { ids } = prompts[p]!;
        const all = await program(Host.from([[...ids, ...tokens].map(BigInt)]));
        for (const [i, token] of tokens.entries())
          expect(logProbs[i]).toBeCloseTo(all.at((ids.length - 1 + i) * config.vocab + token), 4);
      }
  });

  it("draw the same whatever is drawn beside", async () => {
    await using some = await DecoderRollouts.open(config, weights, { threads: 1, texts: 5 });
    await using all = await DecoderRollouts.open(config, weights, { threads: 1 });
    const tokens = async (rollouts: DecoderRollouts) =>
      (await rollouts.sample(prompts, options)).map((group) => group.map((c) => c.tokens));
    const drawn = await tokens(all);
    expect(await tokens(some)).toEqual(drawn);
    expect(new Set(drawn.flat().map((t) => t.join())).size).toBeGreaterThan(10);
  });

  it("draw tokens as often as the model says", async () => {
    await using rollouts = await DecoderRollouts.open(config, weights, { threads: 1 });
    const [group] = await rollouts.sample([prompts[0]!], { ...options, samples: 4000, maxTokens: 1 });
    const counts = new Map<number, { count: number; p: number }>();
    for (const { tokens, logProbs } of group!) {
      const seen = counts.get(tokens[0]!) ?? { count: 0, p: Math.exp(logProbs[0]!) };
      counts.set(tokens[0]!, { ...seen, count: seen.count + 1 });
    }
    for (const { count, p } of counts.values())
      expect(Math.abs(count / 4000 - p)).toBeLessThan(4 * Math.sqrt((p * (1 - p)) / 4000) + 1 / 4000);
  });

  it("take the best token at temperature 0", async () => {
    await using rollouts = await DecoderRollouts.open(config, weights, { threads: 1 });
    const greedy = await rollouts.sample([prompts[3]!], { ...options, temperature: 0 });
    expect(greedy[0]![0]).toEqual(greedy[0]![3]);
  });

  it.each([
    [{ samples: 0 }, "samples must be a whole number from 1, not 0"],
    [{ maxTokens: 0 }, "maxTokens must be a whole number from 1, not 0"],
    [{ temperature: -1 }, "temperature must be a number from 0, not -1"],
    [
      { maxTokens: 40 },
      "a prompt of 3 tokens with a completion of 40 is longer than the 40 tokens that the model takes; shorten one of them",
    ],
  ])("refuse options out of range (%#)", async (change, message) => {
    await using rollouts = await DecoderRollouts.open(config, weights, { threads: 1 });
    await expect(rollouts.sample(prompts, { ...options, ...change })).rejects.toThrow(message);
  });

  it("stop when they are told", async () => {
    await using rollouts = await DecoderRollouts.open(config, weights, { threads: 1 });
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(rollouts.sample(prompts, { ...options, signal })).rejects.toThrow("enough");
  });
});

describe.each([
  ["a Llama", {}, "f32"],
  ["a Llama with an int8 cache", {}, "int8"],
  ["a Gemma with windows in some layers", windowedGemma, "f32"],
] as const)("%s", (_name, changes, cache) => {
  it("reads prompts together as one by one, and goes on from copies of them", async () => {
    const model = tinyModel(changes);
    await using session = await DecoderSession.open(model.config, model.weights, { threads: 1, cache });
    const batch = session.batch();
    const logits = await batch.read(prompts.map(({ ids }) => ids));
    batch.repeat(3);
    expect(batch.lengths).toEqual([3, 1, 3, 7, 3, 7]);
    const next = await batch.advance([1, 2, 3, 4, 5, 6]);
    for (const [i, { ids }] of prompts.entries()) {
      session.truncate(0);
      expectNear(logits[i]!, await session.read(ids));
    }
    for (const [i, text] of [0, 1, 2, 3, 4, 3].entries()) {
      session.truncate(0);
      // An 8-bit cache reads what it has rounded.
      await session.read(prompts[text]!.ids);
      expectNear(next[i]!, await session.advance([i + 1]));
    }
  });
});

describe("weights that are replaced", () => {
  const other = tinyModel({ rms_norm_eps: 1e-5 });
  const changed = Object.fromEntries(
    Object.entries(flattenTree(weights, isHostTensor)).map(([path, t]) => [path, t.cast("f64").cast("f32")]),
  ) as Record<string, HostTensor>;
  for (const [path, t] of Object.entries(changed))
    if (path.endsWith("proj.weight.values")) for (let i = 0; i < t.size; i++) t.set(i, -t.at(i));

  it("give what a session opened with them gives", async () => {
    const own = Object.fromEntries(
      Object.entries(weights).map(([name, w]) => [name, isHostTensor(w) ? w : changed[`${name}.values`]!]),
    );
    await using fresh = await DecoderSession.open(config, own, { threads: 1 });
    await using session = await DecoderSession.open(config, weights, {
      threads: 1,
      replaceable: (path) => path.includes("_proj"),
    });
    const before = await session.read([1, 2, 3]);
    session.replace(Object.fromEntries(Object.entries(changed).filter(([path]) => path.includes("_proj"))));
    expect(session.length).toBe(0);
    const after = await session.read([1, 2, 3]);
    expectNear(after, await fresh.read([1, 2, 3]));
    expect(Math.abs(after[0]! - before[0]!)).toBeGreaterThan(1e-3);
  });

  it("must have been declared, and keep their type and shape", async () => {
    await using session = await DecoderSession.open(other.config, other.weights, {
      threads: 1,
      replaceable: (path) => path === "model.norm.weight",
    });
    expect(() => session.replace({ "lm_head.weight.values": changed["lm_head.weight.values"]! })).toThrow(
      '"lm_head.weight.values" cannot be replaced: it is a constant of the program; declare it replaceable when you open it',
    );
    expect(() => session.replace({ "model.norm.weight": Host.zeros("f32", [3]) })).toThrow(
      '"model.norm.weight" is f32 [16] and cannot become f32 [3]',
    );
  });
});
