import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  openLlama2c,
  readLlama2cPieces,
  readTensors,
  Tokenizer,
  tokenizerJsonFromLlama2c,
} from "../../src/formats/index.ts";
import { openFile } from "../../src/formats/node.ts";
import {
  ContextError,
  complete,
  DecoderSession,
  type GeneratedToken,
  type GenerateOptions,
  type Generation,
  generate,
  logProbability,
} from "../../src/generate/index.ts";
import { decoderConfig } from "../../src/models/index.ts";
import { greedily, tinyModel, letterTokenizer as tokenizer, type WholeLogits, wholeLogits } from "./models.ts";

const letters = (ids: readonly number[]): string => ids.map((id) => String.fromCharCode(97 + id)).join("");

const { config, weights } = tinyModel();
let session: DecoderSession;
let whole: WholeLogits;
beforeAll(async () => {
  session = await DecoderSession.open(config, weights, { threads: 1 });
  whole = await wholeLogits(config, weights);
});
afterAll(() => session.dispose());

async function collect(prompt: string | number[], options: GenerateOptions) {
  const pieces: GeneratedToken[] = [];
  const running = generate(session, tokenizer, prompt, options);
  for (;;) {
    const { done, value } = await running.next();
    if (!done) {
      pieces.push(value);
      continue;
    }
    expect(pieces.map((piece) => piece.text).join("")).toBe(value.text);
    expect(pieces.map((piece) => piece.token)).toEqual(value.tokens);
    expect(value.usage.generatedTokens).toBe(value.tokens.length);
    return { pieces, result: value satisfies Generation };
  }
}

const greedy = { temperature: 0, eosIds: [] } as const;

describe("generate", () => {
  it("takes the best token each time at temperature 0", async () => {
    const expected = await greedily(whole, [3, 1, 4], 12);
    const { pieces, result } = await collect("dbe", { ...greedy, maxTokens: 12, logprobs: true });
    const { logprobs, ...plain } = result;
    expect(logprobs).toEqual(pieces.map((piece) => piece.logprob));
    expect(plain).toEqual({
      text: letters(expected),
      tokens: expected,
      finishReason: "length",
      usage: { promptTokens: 3, generatedTokens: 12 },
    });
    for (const [i, { token, logprob }] of pieces.entries())
      expect(logprob).toBeCloseTo(logProbability(await whole([3, 1, 4, ...expected.slice(0, i)]), token), 3);
    expect(await complete(session, tokenizer, [3, 1, 4], { ...greedy, maxTokens: 12 })).toEqual(plain);
  });

  it("names the most probable tokens where asked to", async () => {
    const { pieces } = await collect("dbe", { eosIds: [], maxTokens: 6, topLogprobs: 3, logprobs: true });
    for (const [i, { token, logprob, topLogprobs }] of pieces.entries()) {
      const logits = await whole([3, 1, 4, ...pieces.slice(0, i).map((piece) => piece.token)]);
      const ranked = Array.from(logits, (_, id) => ({ token: id, logprob: logProbability(logits, id) }));
      ranked.sort((a, b) => b.logprob - a.logprob);
      expect(topLogprobs!.map((top) => top.token)).toEqual(ranked.slice(0, 3).map((top) => top.token));
      for (const [j, top] of topLogprobs!.entries()) expect(top.logprob).toBeCloseTo(ranked[j]!.logprob, 3);
      const own = topLogprobs!.find((top) => top.token === token);
      if (own) expect(own.logprob).toBeCloseTo(logprob!, 5);
    }
    const all = await collect("dbe", { eosIds: [], maxTokens: 1, topLogprobs: 99 });
    expect(all.pieces[0]!.topLogprobs!.length).toBe(config.vocab);
  });

  it("goes beyond the model's context when it may slide", async () => {
    const { result } = await collect("abcdefgh", { ...greedy, maxTokens: 60, overflow: "slide" });
    expect(result.usage.generatedTokens).toBe(60);
    let context = [0, 1, 2, 3, 4, 5, 6, 7];
    const expected: number[] = [];
    for (let i = 0; i < 60; i++) {
      const [next] = await greedily(whole, context, 1);
      expected.push(next!);
      context.push(next!);
      if (context.length > config.maxPositions) context = [...context.slice(0, 4), ...context.slice(-18)];
    }
    expect(result.tokens).toEqual(expected);
    const long = Array.from({ length: 90 }, (_, i) => i % 20);
    const beyond = await collect(long, { ...greedy, overflow: "slide" });
    expect(beyond.result.usage).toEqual({ promptTokens: 90, generatedTokens: config.maxPositions });
    expect(beyond.result.tokens.slice(0, 1)).toEqual(
      await greedily(whole, [...long.slice(0, 4), ...long.slice(-18)], 1),
    );
  });

  it("gives the same whatever the session has read before", async () => {
    const options = { ...greedy, maxTokens: 10 };
    session.truncate(0);
    const { result: first } = await collect("abcdefgh", options);
    const turn = `abcdefgh${first.text}ij`;
    const { result: reused } = await collect(turn, options);
    session.truncate(0);
    expect((await collect(turn, options)).result).toEqual(reused);
    expect((await collect("abcdefgh", options)).result).toEqual(first);
  });

  it("repeats with its seed, whatever was generated before", async () => {
    const first = await collect("abc", { eosIds: [], maxTokens: 20, seed: 7 });
    const other = await collect("cba", { eosIds: [], maxTokens: 20, seed: 8 });
    const again = await collect("abc", { eosIds: [], maxTokens: 20, seed: 7 });
    expect(again).toEqual(first);
    expect(other.result.tokens).not.toEqual(first.result.tokens);
    expect(first.pieces[0]).not.toHaveProperty("logprob");
  });

  it("goes on until the context is full", async () => {
    const { result } = await collect("ab", { eosIds: [] });
    // The last of them is drawn behind the last position.
    expect(result.usage).toEqual({ promptTokens: 2, generatedTokens: config.maxPositions - 1 });
    expect(result.finishReason).toBe("length");
    const full = Array.from({ length: config.maxPositions }, (_, i) => i % 20);
    expect((await collect(full, { eosIds: [] })).result.usage.generatedTokens).toBe(1);
  });

  it("ends with an end token, which gives no text", async () => {
    const { result } = await collect("ab", { allowed: [20] });
    expect(result).toMatchObject({ text: "", tokens: [20], finishReason: "stop" });
    const second = (await greedily(whole, [3, 1, 4], 2))[1]!;
    const chosen = await collect("dbe", { temperature: 0, eosIds: [second] });
    expect(chosen.result).toMatchObject({ finishReason: "stop", usage: { promptTokens: 3, generatedTokens: 2 } });
    expect(chosen.result.text.length).toBe(1);
  });

  it("ends before a stop string that runs across tokens, and holds back what may begin one", async () => {
    const text = letters(await greedily(whole, [3, 1, 4], 12));
    const stop = text.slice(5, 8);
    const at = text.indexOf(stop);
    const { pieces, result } = await collect("dbe", { ...greedy, stop: [stop, "zzz"] });
    expect(result).toMatchObject({ text: text.slice(0, at), finishReason: "stop" });
    expect(result.tokens.length).toBe(at + 3);
    expect(pieces.slice(-3).map((piece) => piece.text)).toEqual(["", "", ""]);
  });

  it("gives what it held back when the text ends otherwise", async () => {
    const text = letters(await greedily(whole, [3, 1, 4], 12));
    const unfinished = `${text.slice(10, 12)}z`;
    const cut = await collect("dbe", { ...greedy, stop: [unfinished], maxTokens: 12 });
    expect(cut.result).toMatchObject({ text, finishReason: "length" });
    const eos = await collect("dbe", { allowed: [20], stop: ["u"] });
    expect(eos.result).toMatchObject({ text: "", finishReason: "stop" });
  });

  it("ends when it is told to, between tokens and before the first", async () => {
    const controller = new AbortController();
    const tokens: number[] = [];
    const running = generate(session, tokenizer, "ab", { eosIds: [], signal: controller.signal });
    let last = await running.next();
    for (; !last.done; last = await running.next()) {
      tokens.push(last.value.token);
      if (tokens.length === 3) controller.abort();
    }
    expect(last.value).toMatchObject({ tokens, finishReason: "abort", usage: { promptTokens: 2, generatedTokens: 3 } });
    expect(tokens.length).toBe(3);
    const never = await collect("ab", { signal: AbortSignal.abort() });
    expect(never.result).toMatchObject({ text: "", finishReason: "abort" });
  });

  it("can be left early and started again", async () => {
    for await (const { token } of generate(session, tokenizer, "abc", { eosIds: [] })) {
      expect(token).toBeLessThan(23);
      break;
    }
    expect((await collect("abc", { eosIds: [], maxTokens: 2 })).result.tokens.length).toBe(2);
  });

  it("notices that its session was used for something else", async () => {
    const running = generate(session, tokenizer, "abc", { eosIds: [] });
    await running.next();
    session.truncate(1);
    await expect(running.next()).rejects.toThrow("the session was used for something else while it generated");
  });

  it("refuses prompts and options at once", () => {
    const start =
      (prompt: string | number[], options: GenerateOptions = {}) =>
      () =>
        generate(session, tokenizer, prompt, options);
    expect(start("")).toThrow("the prompt is empty; a model needs at least one token to begin with");
    expect(start("a".repeat(41))).toThrow(
      new ContextError("the prompt has 41 tokens, but the model takes 40; shorten it"),
    );
    expect(start("a", { maxTokens: 0 })).toThrow("maxTokens must be a whole number from 1, not 0");
    expect(start("a", { topLogprobs: -1 })).toThrow("topLogprobs must be a whole number from 0, not -1");
    expect(start("a", { overflow: "drop" as never })).toThrow('overflow must be "refuse" or "slide", not "drop"');
    expect(start("a", { topP: 3 })).toThrow("topP must be above 0 and at most 1, not 3");
    expect(start("a", { stop: [""] })).toThrow("a stop string must not be empty");
  });
});

const stories = fileURLToPath(new URL("../../../shared/data/lm/stories260K/", import.meta.url));

it.skipIf(!existsSync(stories))("a trained model tells a story (needs shared/data/lm/stories260K)", async () => {
  const { config: json, tensors } = await openLlama2c(await openFile(`${stories}stories260K.bin`));
  await using _open = tensors;
  const story = decoderConfig({ ...json });
  const loaded = Object.fromEntries(await readTensors(tensors));
  const bytes = new Uint8Array(await readFile(`${stories}tok512.bin`));
  const words = Tokenizer.fromFiles(tokenizerJsonFromLlama2c(readLlama2cPieces(bytes, story.vocab, "tok512.bin")));
  await using teller = await DecoderSession.open(story, loaded, { threads: 1 });
  const prompt = words.encode("Once upon a time");
  const { text, tokens } = await complete(teller, words, "Once upon a time", { temperature: 0, maxTokens: 60 });
  expect(tokens).toEqual(await greedily(await wholeLogits(story, loaded), prompt, 60));
  expect(text).toBe(
    ", there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball. " +
      "She wanted to play with it, but it was too high.\nLily",
  );
});
