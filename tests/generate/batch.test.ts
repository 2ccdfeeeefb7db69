import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import {
  type BatchRequest,
  ContextError,
  complete,
  completeBatch,
  DecoderSession,
  type GenerationTokenizer,
  generateBatch,
} from "../../src/generate/index.ts";
import { Rng } from "../../src/tensor/index.ts";
import {
  expectNear,
  tinyModel,
  letterTokenizer as tokenizer,
  type WholeLogits,
  wholeLogits,
  windowedGemma,
} from "./models.ts";

const families: Record<string, { changes: Record<string, unknown>; cache?: "int8" }> = {
  "a Llama": { changes: {} },
  "a Llama with an int8 cache": { changes: {}, cache: "int8" },
  "a Mistral with a window": { changes: { model_type: "mistral", sliding_window: 3 } },
  "a Gemma with windows in some layers": {
    changes: windowedGemma,
  },
};

const prompt = (length: number, seed: number): number[] => new Rng(seed).integers(length, 20);

describe.each(Object.keys(families))("%s", (name) => {
  it("continues texts of unequal lengths as it continues each alone", async () => {
    const { changes, cache } = families[name]!;
    const { config, weights } = tinyModel(changes);
    await using session = await DecoderSession.open(config, weights, { threads: 1, ...(cache && { cache }) });
    const greedy = { temperature: 0, eosIds: [] };
    const requests: BatchRequest[] = [
      { prompt: prompt(3, 1), ...greedy, maxTokens: 20 },
      { prompt: prompt(17, 2), ...greedy, maxTokens: 3 },
      { prompt: prompt(1, 3), ...greedy, maxTokens: 9, stop: ["h"] },
      { prompt: prompt(8, 4), temperature: 0, maxTokens: 12 },
      { prompt: prompt(30, 5), ...greedy },
      { prompt: prompt(17, 2), temperature: 1.3, seed: 4, eosIds: [], maxTokens: 6 },
      { prompt: prompt(40, 6), ...greedy },
      { prompt: prompt(2, 7), ...greedy, maxTokens: 70, overflow: "slide" },
    ];
    const alone = [];
    for (const { prompt: ids, ...options } of requests) {
      session.truncate(0);
      alone.push([await complete(session, tokenizer, ids, options)]);
    }
    for (const texts of [3, 16]) expect(await completeBatch(session, tokenizer, requests, { texts })).toEqual(alone);
  });
});

describe("a batch", () => {
  const { config, weights } = tinyModel();
  let session: DecoderSession;
  let whole: WholeLogits;
  beforeAll(async () => {
    session = await DecoderSession.open(config, weights, { threads: 1 });
    whole = await wholeLogits(config, weights);
  });
  afterAll(() => session.dispose());

  it("draws samples of one prompt, which is read once", async () => {
    const ids = prompt(9, 8);
    session.truncate(0);
    const reading = vi.spyOn(session, "advance");
    const options = { eosIds: [], maxTokens: 8, logprobs: true };
    const [samples] = await completeBatch(session, tokenizer, [{ prompt: ids, samples: 5, seed: 7, ...options }]);
    expect(reading.mock.calls.map(([read]) => read.length)).toEqual([9]);
    reading.mockRestore();
    expect(new Set(samples!.map(({ text }) => text)).size).toBeGreaterThan(1);
    for (const [i, sample] of samples!.entries()) {
      const { logprobs, ...same } = await complete(session, tokenizer, ids, { ...options, seed: 7 + i });
      expect(sample).toMatchObject(same);
      for (const [j, logprob] of logprobs!.entries()) expect(sample.logprobs![j]).toBeCloseTo(logprob, 4);
    }
  });

  it("gives the tokens of all texts as they come", async () => {
    const requests = [
      { prompt: "abc", samples: 2, maxTokens: 4, eosIds: [] },
      { prompt: "de", maxTokens: 2, eosIds: [] },
    ];
    const running = generateBatch(session, tokenizer, requests);
    const tokens: number[][][] = [[[], []], [[]]];
    let step = await running.next();
    for (; !step.done; step = await running.next())
      tokens[step.value.request]![step.value.sample]!.push(step.value.token);
    expect(tokens).toEqual(step.value.map((samples) => samples.map((sample) => sample.tokens)));
    expect(tokens.flat().map(({ length }) => length)).toEqual([4, 4, 2]);
  });

  it("ends one text when it is told to, and goes on with the others", async () => {
    const controller = new AbortController();
    const requests: BatchRequest[] = [
      { prompt: "abc", maxTokens: 10, eosIds: [], signal: controller.signal },
      { prompt: "de", maxTokens: 10, eosIds: [] },
      { prompt: "f", signal: AbortSignal.abort() },
    ];
    const running = generateBatch(session, tokenizer, requests);
    let step = await running.next();
    for (let i = 0; !step.done; step = await running.next()) if (++i === 6) controller.abort();
    expect(step.value.map(([text]) => [text!.finishReason, text!.tokens.length])).toEqual([
      ["abort", 3],
      ["length", 10],
      ["abort", 0],
    ]);
  });

  it("keeps each text's context while others come, grow and go", async () => {
    const batch = session.batch();
    const texts: number[][] = [];
    const start = async (ids: number[]): Promise<void> => {
      await session.read(ids);
      batch.add();
      texts.push(ids);
    };
    const step = async (): Promise<void> => {
      const next = texts.map((ids, i) => (ids.length + 3 * i) % 23);
      const logits = await batch.advance(next);
      for (const [i, token] of next.entries()) {
        texts[i]!.push(token);
        expectNear(logits[i]!, await whole(texts[i]!));
      }
      expect(batch.lengths).toEqual(texts.map(({ length }) => length));
    };
    await start(prompt(4, 1));
    await step();
    await start(prompt(30, 2));
    await start(prompt(34, 3));
    await step();
    batch.remove(0);
    texts[0] = texts.pop()!;
    await step();
    await start(prompt(1, 4));
    await step();
    expect(batch.cacheBytes).toBeGreaterThanOrEqual(3 * 37 * 2 * config.layers * config.kvHeads * config.headDim * 4);
    batch.remove(2);
    batch.remove(1);
    texts.length = 1;
    for (let i = 0; i < 3; i++) await step();
    await expect(batch.advance([1])).rejects.toThrow(
      new ContextError("the model takes 40 tokens, and text 0 has as many; remove it"),
    );
  });

  it("refuses what it cannot do", async () => {
    const batch = session.batch();
    await expect(batch.advance([])).rejects.toThrow("the batch has 0 texts and cannot read 0 tokens");
    await session.read([1, 2]);
    batch.add();
    await expect(batch.advance([1, 2])).rejects.toThrow("the batch has 1 texts and cannot read 2 tokens");
    await expect(batch.advance([23])).rejects.toThrow("a token's id is a whole number from 0 to 22, not 23");
    expect(() => batch.remove(1)).toThrow("the batch has 1 texts and none with the number 1");
    const reading = batch.advance([3]);
    expect(() => batch.remove(0)).toThrow("the batch is still reading tokens; await that first");
    expect(() => batch.add()).toThrow("the batch is still reading tokens; await that first");
    await reading;
    const start =
      (request: BatchRequest, texts = 1) =>
      () =>
        generateBatch(session, tokenizer, [request], { texts });
    expect(start({ prompt: "a" }, 0)).toThrow("texts must be a whole number from 1, not 0");
    expect(start({ prompt: "a", samples: 1.5 })).toThrow("samples must be a whole number from 1, not 1.5");
    expect(start({ prompt: "" })).toThrow("the prompt is empty");
    expect(await completeBatch(session, tokenizer as GenerationTokenizer, [])).toEqual([]);
  });
});
