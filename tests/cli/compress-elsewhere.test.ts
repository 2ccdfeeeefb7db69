import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tensor } from "@huggingface/transformers";
import { getLlama, LlamaLogLevel, type Token } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compressModel } from "../../src/cli/compress/compress.ts";
import { DecoderSession } from "../../src/generate/index.ts";
import { requireTokenizer } from "../../src/models/index.ts";
import { embeddedModel, openModel } from "../../src/models/node.ts";
import { greedy } from "../models/continuation.ts";
import { logProbabilities, theirLogProbabilities } from "../support/llama-cpp.ts";
import { openTheirs } from "../support/transformers-js.ts";

const work = mkdtempSync(join(tmpdir(), "pare-elsewhere-"));
const out = join(work, "storybook-4bit");
afterAll(() => rmSync(work, { recursive: true }));

let prompt: number[];
/** Text that the model has not seen. */
let text: number[];
/** Log-probabilities of the next token behind each of some tokens, over the vocabulary. */
type Predictions = readonly (readonly number[])[];
let ours: Predictions;
let story: readonly number[];

const session = async (): Promise<DecoderSession> => {
  await using model = await openModel(out);
  return await DecoderSession.open(model.config, model.weights, { threads: 1 });
};

beforeAll(async () => {
  await compressModel({
    model: undefined,
    recipe: { to: "4bit", method: "nearest" },
    budget: undefined,
    embedding: undefined,
    calibrate: undefined,
    text: undefined,
    windows: 1,
    length: 64,
    out,
    formats: ["safetensors", "onnx", "gguf"],
    report: false,
    force: false,
    seed: 0,
    threads: 1,
    signal: new AbortController().signal,
    note: () => {},
  });
  await using model = await openModel(out);
  const tokenizer = requireTokenizer(model);
  prompt = tokenizer.encode("Once upon a time, there was a");
  const heldOut = readFileSync(join(embeddedModel, "held-out.txt"), "utf8").slice(0, 4000);
  text = tokenizer.encode(heldOut, { allowSpecial: true }).slice(0, 200);
  await using reader = await session();
  const found: number[][] = [];
  for (const token of text) found.push(logProbabilities(Array.from(await reader.advance([token]))));
  ours = found;
  await using writer = await session();
  story = (await greedy(prompt, async (_, fresh) => logProbabilities(Array.from(await writer.advance([...fresh])))))
    .tokens;
}, 300_000);

function perplexity(predictions: Predictions): number {
  const nats = predictions.slice(0, -1).map((logProbs, i) => -logProbs[text[i + 1]!]!);
  return Math.exp(nats.reduce((a, b) => a + b) / nats.length);
}

/** Share of places where two models find the same token most likely. */
function agreement(a: Predictions, b: Predictions): number {
  const best = (logProbs: readonly number[]): number => logProbs.indexOf(Math.max(...logProbs));
  return a.filter((logProbs, i) => best(logProbs) === best(b[i]!)).length / a.length;
}

describe("what pare compress writes", { timeout: 300_000 }, () => {
  it("is read by transformers.js as it is here: the same story, the same perplexity", async () => {
    const model = await openTheirs(out, "q4");
    const forward = async (ids: readonly number[]): Promise<number[][]> => {
      const row = (values: readonly number[]) =>
        new Tensor("int64", BigInt64Array.from(values, BigInt), [1, ids.length]);
      const inputs = {
        input_ids: row(ids),
        attention_mask: row(ids.map(() => 1)),
        position_ids: row(ids.map((_, i) => i)),
      };
      const { logits } = (await model(inputs)) as { logits: Tensor };
      const [, count, vocab] = logits.dims as [number, number, number];
      const values = logits.data as Float32Array;
      return Array.from({ length: count }, (_, i) =>
        logProbabilities(Array.from(values.subarray(i * vocab, (i + 1) * vocab))),
      );
    };
    const theirs = await forward(text);
    expect(perplexity(theirs) / perplexity(ours)).toBeCloseTo(1, 2);
    expect(agreement(theirs, ours)).toBeGreaterThan(0.97);
    const continued = await greedy(prompt, async (all) => (await forward(all)).at(-1)!);
    expect(continued.tokens).toEqual(story);
    await model.dispose();
  });

  it("is read by llama.cpp nearly as it is here, which rounds activations in its own way", async () => {
    const llama = await getLlama({ gpu: false, build: "never", maxThreads: 1, logLevel: LlamaLogLevel.error });
    const model = await llama.loadModel({ modelPath: join(out, "storybook-4bit.gguf") });
    const context = await model.createContext({ contextSize: 256, threads: 1, sequences: 2 });
    const everything = { temperature: 1, topK: 0, topP: 1, minP: 0 };
    const asked = { generateNext: { probabilities: true, options: everything } };
    const results = await context
      .getSequence()
      .controlledEvaluate(text.map((token) => [token as Token, asked]) as never);
    const theirs = results.map((result) => {
      const { probabilities } = result!.next as { probabilities: Map<Token, number> };
      return Array.from({ length: probabilities.size }, (_, id) => Math.log(probabilities.get(id as Token)!));
    });
    expect(Math.abs(perplexity(theirs) / perplexity(ours) - 1)).toBeLessThan(0.02);
    expect(agreement(theirs, ours)).toBeGreaterThan(0.9);
    const sequence = context.getSequence();
    const continued = await greedy(prompt, (_, fresh) => theirLogProbabilities(sequence, fresh));
    expect(continued.tokens.slice(0, 4)).toEqual(story.slice(0, 4));
    await llama.dispose();
  });
});
