import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, type Llama, LlamaLogLevel } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ggufTokenizerMetadata, ggufTypes, pendingTensors, tokenizerJsonFromLlama2c } from "../../src/formats/index.ts";
import { saveGguf } from "../../src/formats/node.ts";
import { decoderConfig, decoderToGguf, denseTensors, requireTokenizer } from "../../src/models/index.ts";
import { embeddedModel, openModel } from "../../src/models/node.ts";
import type { HostTensor } from "../../src/tensor/index.ts";
import { tinyPieces } from "../formats/tiny-llama.ts";
import { logProbabilities, theirLogProbabilities } from "../support/llama-cpp.ts";
import { type Continuation, expectParity, greedy, ours } from "./continuation.ts";
import { family, type Json, randomWeights } from "./family.ts";

let folder: string;
let llama: Llama;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-parity-"));
  llama = await getLlama({ gpu: false, build: "never", maxThreads: 1, logLevel: LlamaLogLevel.error });
});
afterAll(async () => {
  await llama.dispose();
  await rm(folder, { recursive: true });
});

/** Ours, by log-probabilities. */
async function here(model: Parameters<typeof ours>[0], prompt: readonly number[]): Promise<Continuation> {
  const { tokens, scores } = await ours(model, prompt);
  return { tokens, scores: scores.map(logProbabilities) };
}

/** llama.cpp, which keeps its keys and values in half precision unless told otherwise. */
async function theirs(path: string, prompt: readonly number[]): Promise<Continuation> {
  const model = await llama.loadModel({ modelPath: path });
  const context = await model.createContext({
    contextSize: 128,
    threads: 1,
    flashAttention: false,
    experimentalKvCacheKeyType: "F32",
    experimentalKvCacheValueType: "F32",
  });
  const sequence = context.getSequence();
  try {
    return await greedy(prompt, (_, fresh) => theirLogProbabilities(sequence, fresh));
  } finally {
    await model.dispose();
  }
}

/** A model as llama.cpp is to see it. */
async function saveForThem(
  path: string,
  json: Json,
  weights: Iterable<readonly [string, HostTensor]>,
  tokenizer: Parameters<typeof ggufTokenizerMetadata>[0],
): Promise<void> {
  const { metadata, tensors } = decoderToGguf(json, pendingTensors(weights), ggufTypes("F32"));
  const vocabulary = ggufTokenizerMetadata(tokenizer, json["vocab_size"] as number);
  await saveGguf(path, new Map([...metadata, ...vocabulary]), tensors);
}

describe("llama.cpp and pare", () => {
  const stories = new URL("../../../shared/data/lm/stories260K/stories260K.bin", import.meta.url);

  it.skipIf(!existsSync(stories))(
    "tell the same story (needs shared/data/lm/stories260K)",
    async () => {
      await using model = await openModel(fileURLToPath(stories));
      const tokenizer = requireTokenizer(model);
      const { tokenizerJson, tokenizerConfig } = tokenizer.files;
      const path = join(folder, "stories.gguf");
      await saveForThem(path, model.json, denseTensors(model.weights), { tokenizerJson, tokenizerConfig });
      const prompt = tokenizer.encode("Once upon a time, there was a");
      const story = await here(model, prompt);
      expectParity(story, await theirs(path, prompt));
      expect(tokenizer.decode(story.tokens)).toMatch(/^ ?little girl/);
    },
    120_000,
  );

  it("go on alike with the embedded model", async () => {
    await using model = await openModel(embeddedModel);
    const tokenizer = requireTokenizer(model);
    const { tokenizerJson, tokenizerConfig } = tokenizer.files;
    const path = join(folder, "embedded.gguf");
    await saveForThem(path, model.json, denseTensors(model.weights), { tokenizerJson, tokenizerConfig });
    const prompt = tokenizer.encode("Once upon a time, there was a");
    expectParity(await here(model, prompt), await theirs(path, prompt));
  }, 120_000);

  const { llama, mistral, ...others } = family;
  const variants: Readonly<Record<string, Json>> = {
    ...others,
    llama: llama!,
    "llama with biases": { ...llama, attention_bias: true, mlp_bias: true },
    "llama with wide heads": { ...llama, head_dim: 32, num_key_value_heads: 1 },
    // llama.cpp knows no window for it, but within one all is alike.
    "mistral within its window": { ...mistral, sliding_window: 128 },
    "llama, its rotary positions closer together": { ...llama, rope_scaling: { rope_type: "linear", factor: 2 } },
  };
  /** llama.cpp looks the activation of the others up in a table of half precision. */
  const tolerance = (json: Json): number => (/^(gemma|gpt2)/.test(json["model_type"] as string) ? 1e-2 : 1e-4);

  it.each(Object.keys(variants))(
    "go on alike with random weights, both from one GGUF file: %s",
    async (name) => {
      const json = variants[name]!;
      const path = join(folder, "random.gguf");
      const weights = randomWeights(json);
      await saveForThem(path, json, weights, tokenizerJsonFromLlama2c(tinyPieces));
      await using model = await openModel(path);
      expect(new Set(Object.keys(model.weights))).toEqual(new Set(weights.keys()));
      const prompt = [1, 5, 9, 200, 260, 5, 3];
      const found = await here(model, prompt);
      expectParity(found, await theirs(path, prompt), tolerance(json));
      // And what was read computes what was written.
      const written = { config: decoderConfig(json), weights: Object.fromEntries(weights) };
      expectParity(await here(written, prompt), found);
    },
    120_000,
  );
});
