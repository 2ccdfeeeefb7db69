import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { ContextError, DecoderSession, GenerateError } from "../../src/generate/index.ts";
import { DisposedError } from "../../src/runtime/index.ts";
import { Rng } from "../../src/tensor/index.ts";
import { expectNear, tinyModel, wholeLogits, windowedGemma } from "./models.ts";

const members: Record<string, Record<string, unknown>> = {
  "a Llama": {},
  "a Llama with a tied head": { tie_word_embeddings: true },
  "a Mistral with a window": { model_type: "mistral", sliding_window: 3 },
  "a Llama with layers without attention": {
    num_hidden_layers: 4,
    layer_types: ["no_attention", "sliding_attention", "full_attention", "no_attention"],
    sliding_window: 3,
  },
  "a Gemma with windows in some layers": windowedGemma,
};

const randomIds = (count: number, seed: number): number[] => new Rng(seed).integers(count, 23);

describe.each(Object.keys(members))("%s", (name) => {
  it("reads a text piece by piece as it reads the whole, also after going back", async () => {
    const { config, weights } = tinyModel(members[name]);
    const whole = await wholeLogits(config, weights);
    await using session = await DecoderSession.open(config, weights, { chunk: 5, threads: 1 });
    const step = fc.record({ add: fc.integer({ min: 1, max: 13 }), keep: fc.double({ min: 0, max: 1, noNaN: true }) });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 5 }), fc.integer(), async (steps, seed) => {
        session.truncate(0);
        let ids: number[] = [];
        for (const [i, { add, keep }] of steps.entries()) {
          // Mostly the text grows; now and then it goes back, sometimes to nothing.
          const kept = i % 2 === 1 ? Math.floor(keep * ids.length) : ids.length;
          session.truncate(kept);
          const next = randomIds(Math.min(add, config.maxPositions - kept), seed + i);
          if (next.length === 0) break;
          ids = [...ids.slice(0, kept), ...next];
          expectNear(await session.advance(next), await whole(ids));
          expect(session.length).toBe(ids.length);
        }
      }),
      { seed: 1, numRuns: 25 },
    );
  });
});

describe("a decoder session", () => {
  const { config, weights } = tinyModel();
  const open = (chunk = 4) => DecoderSession.open(config, weights, { chunk, threads: 1 });

  it("grows its cache without losing what it holds", async () => {
    const long = tinyModel({ max_position_embeddings: 300 });
    const whole = await wholeLogits(long.config, long.weights);
    await using session = await DecoderSession.open(long.config, long.weights, { threads: 1 });
    const ids = randomIds(300, 8);
    let logits = await session.advance(ids.slice(0, 60));
    for (const id of ids.slice(60, 70)) logits = await session.advance([id]);
    expectNear(logits, await whole(ids.slice(0, 70)));
    expectNear(await session.advance(ids.slice(70)), await whole(ids));
  });

  it("reads again only what differs, with the same result", async () => {
    await using session = await open();
    const whole = await wholeLogits(config, weights);
    const reading = vi.spyOn(session, "advance");
    const read = async (ids: number[]): Promise<number> => {
      reading.mockClear();
      expectNear(await session.read(ids), await whole(ids));
      expect(session.ids).toEqual(ids);
      return reading.mock.calls.reduce((sum, [part]) => sum + part.length, 0);
    };
    const ids = randomIds(20, 2);
    expect(await read(ids)).toBe(20);
    expect(await read(ids)).toBe(0);
    expect(await read([...ids, 5, 6])).toBe(2);
    expect(await read([...ids.slice(0, 12), (ids[12]! + 1) % 23, 7])).toBe(2);
    expect(await read(ids.slice(0, 12))).toBe(1);
    session.truncate(11);
    expect(await read(ids.slice(0, 11))).toBe(1);
    expect(await read([(ids[0]! + 1) % 23])).toBe(1);
  });

  it("keeps the common beginning when reading is stopped", async () => {
    await using session = await open(1);
    await session.read([1, 2, 3, 4]);
    await expect(session.read([1, 2, 5, 6], { signal: AbortSignal.abort(new Error("enough")) })).rejects.toThrow(
      "enough",
    );
    expect(session.ids).toEqual([1, 2]);
  });

  it("slides when asked to: the first tokens and the newest, at new positions", async () => {
    await using session = await open();
    const whole = await wholeLogits(config, weights);
    const ids = randomIds(100, 4);
    await session.advance(ids.slice(0, 40));
    const logits = await session.advance(ids.slice(40, 41), { overflow: "slide" });
    const left = [...ids.slice(0, 4), ...ids.slice(41 - 18, 41)];
    expect(session.ids).toEqual(left);
    expectNear(logits, await whole(left));
    const next = await session.advance(ids.slice(41), { overflow: "slide" });
    expect(session.ids).toEqual([...ids.slice(0, 4), ...ids.slice(-18)]);
    expectNear(next, await whole(session.ids));
    await expect(session.read(ids)).rejects.toThrow(new ContextError("the model takes 40 tokens; 100 are too many"));
    expectNear(await session.read(ids, { overflow: "slide" }), next);
  });

  it("keeps an 8-bit cache in a quarter of the memory, and what follows from it changes little", async () => {
    const wide = tinyModel({ hidden_size: 64, intermediate_size: 96, max_position_embeddings: 200 });
    await using plain = await DecoderSession.open(wide.config, wide.weights, { chunk: 16, threads: 1 });
    await using small = await DecoderSession.open(wide.config, wide.weights, { chunk: 16, threads: 1, cache: "int8" });
    const ids = randomIds(120, 5);
    const expected = await plain.advance(ids);
    const rms = (values: Float32Array): number => Math.hypot(...values) / Math.sqrt(values.length);
    const error = (found: Float32Array): number => rms(found.map((v, i) => v - expected[i]!)) / rms(expected);
    const found = error(await small.advance(ids));
    expect(found).toBeGreaterThan(0);
    expect(found).toBeLessThan(0.03);
    // Of each head and token 16 bytes and a scale of 4 instead of 64 bytes.
    expect(small.cacheBytes / plain.cacheBytes).toBeCloseTo(20 / 64, 6);
    small.truncate(60);
    expect(error(await small.advance(ids.slice(60)))).toBeLessThan(0.03);
  });

  it("refuses more tokens than the model has positions, and keeps its context", async () => {
    await using session = await open();
    await session.advance(randomIds(38, 1));
    await expect(session.advance([1, 2, 3])).rejects.toThrow(
      new ContextError("the model takes 40 tokens; 38 in its context and 3 more are too many"),
    );
    await session.advance([1, 2]);
    expect(session.length).toBe(40);
  });

  it("refuses tokens that there are not, and none at all", async () => {
    await using session = await open();
    await expect(session.advance([])).rejects.toThrow("there is no token to read");
    for (const id of [23, -1, 0.5])
      await expect(session.advance([1, id])).rejects.toThrow(`a token's id is a whole number from 0 to 22, not ${id}`);
    expect(session.length).toBe(0);
  });

  it("refuses to be cut to what it does not hold", async () => {
    await using session = await open();
    await session.advance([1, 2, 3]);
    for (const length of [4, -1, 1.5])
      expect(() => session.truncate(length)).toThrow(`a context of 3 tokens cannot be cut to ${length}`);
  });

  it("refuses a second reader while one is reading", async () => {
    await using session = await open();
    const first = session.advance([1, 2, 3]);
    const busy = new GenerateError(
      "the session is still reading tokens; await that first, or open a session for each text",
    );
    await expect(session.advance([4])).rejects.toThrow(busy);
    expect(() => session.truncate(0)).toThrow(busy);
    await first;
    expect(session.length).toBe(3);
  });

  it("stops between two chunks when it is told to, and stays as it was", async () => {
    await using session = await open(1);
    const before = await session.advance([1, 2]);
    const controller = new AbortController();
    const reading = session.advance(randomIds(30, 1), { signal: controller.signal });
    setImmediate(() => controller.abort(new Error("enough")));
    await expect(reading).rejects.toThrow("enough");
    expect(session.length).toBe(2);
    session.truncate(1);
    expectNear(await session.advance([2]), before);
  });

  it("cannot be used after it is disposed of", async () => {
    const session = await open();
    await session.dispose();
    await expect(session.advance([1])).rejects.toThrow(DisposedError);
  });

  it("checks its weights and options", async () => {
    const { "model.norm.weight": _norm, ...rest } = weights;
    await expect(DecoderSession.open(config, rest)).rejects.toThrow('the weights lack "model.norm.weight"');
    await expect(DecoderSession.open(config, weights, { cache: "int4" as never })).rejects.toThrow(
      'cache must be "f32" or "int8", not "int4"',
    );
    await expect(open(0)).rejects.toThrow("chunk must be a whole number from 1, not 0");
  });
});
