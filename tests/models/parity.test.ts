import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { getLlama, type Llama, LlamaLogLevel } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  ggufTokenizerMetadata,
  ggufTypes,
  type LlamaConfig,
  llamaToGguf,
  pendingTensors,
  tokenizerJsonFromLlama2c,
} from "../../src/formats/index.ts";
import { saveGguf } from "../../src/formats/node.ts";
import {
  decoderConfig,
  decoderLogits,
  decoderShapes,
  denseTensors,
  type LoadedDecoder,
  requireTokenizer,
} from "../../src/models/index.ts";
import { openModel } from "../../src/models/node.ts";
import { compile } from "../../src/runtime/index.ts";
import { HostTensor, Rng, spec } from "../../src/tensor/index.ts";
import { tinyConfig, tinyPieces } from "../formats/tiny-llama.ts";
import { logProbabilities, theirLogProbabilities } from "../support/llama-cpp.ts";

/** Tokens that each program goes on by. */
const length = 64;

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

/** A continuation, with the log-probabilities that each of its tokens was chosen by. */
interface Continuation {
  readonly tokens: readonly number[];
  readonly scores: readonly (readonly number[])[];
}

const largest = (values: readonly number[]): number => values.indexOf(Math.max(...values));

/** The greedy continuation, each token chosen by what `next` gives for all tokens so far. */
async function greedy(
  prompt: readonly number[],
  next: (tokens: readonly number[], fresh: readonly number[]) => Promise<readonly number[]>,
): Promise<Continuation> {
  const tokens = [...prompt];
  const scores: (readonly number[])[] = [];
  for (let fresh = prompt; scores.length < length; fresh = tokens.slice(-1)) {
    scores.push(await next(tokens, fresh));
    tokens.push(largest(scores.at(-1)!));
  }
  return { tokens: tokens.slice(prompt.length), scores };
}

async function ours({ config, weights }: LoadedDecoder, prompt: readonly number[]): Promise<Continuation> {
  await using program = await compile((ids) => decoderLogits(config, weights, ids), [spec("i64", [1, "seq"])], {
    threads: 1,
  });
  return await greedy(prompt, async (tokens) => {
    const logits = await program(HostTensor.from([...tokens], { dtype: "i64", shape: [1, tokens.length] }));
    return logProbabilities(Array.from(logits.data.subarray((tokens.length - 1) * config.vocab) as Float32Array));
  });
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

/** The worst difference of any log-probability, relative to their standard deviation at its place. */
function worstDifference(a: Continuation, b: Continuation): number {
  return Math.max(
    ...a.scores.map((row, t) => {
      const mean = row.reduce((sum, x) => sum + x, 0) / row.length;
      const scale = Math.sqrt(row.reduce((sum, x) => sum + (x - mean) ** 2, 0) / row.length);
      return Math.max(...row.map((x, i) => Math.abs(x - b.scores[t]![i]!))) / scale;
    }),
  );
}

function expectParity(a: Continuation, b: Continuation): void {
  expect(a.tokens).toEqual(b.tokens);
  expect(a.scores.map((row) => row.length)).toEqual(b.scores.map((row) => row.length));
  expect(worstDifference(a, b)).toBeLessThan(1e-4);
}

/** A model as llama.cpp is to see it. */
async function saveForThem(
  path: string,
  config: LlamaConfig,
  weights: Iterable<readonly [string, HostTensor]>,
  tokenizer: Parameters<typeof ggufTokenizerMetadata>[0],
): Promise<void> {
  const { metadata, tensors } = llamaToGguf(config, pendingTensors(weights), ggufTypes("F32"));
  await saveGguf(path, new Map([...metadata, ...ggufTokenizerMetadata(tokenizer, config.vocab_size)]), tensors);
}

/** Weights large enough that every part matters, gains and biases included. */
function randomWeights(json: Readonly<Record<string, unknown>>): Map<string, HostTensor> {
  const rng = new Rng(11);
  return new Map(
    Array.from(decoderShapes(decoderConfig(json)), ([name, shape]) => {
      const mean = shape.length === 1 && !name.endsWith(".bias") ? 1 : 0;
      const std = shape.length === 1 ? 0.3 : 1.2 / Math.sqrt(shape[1]!);
      return [name, rng.fork(name).normalTensor(shape, { mean, std })];
    }),
  );
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
      const config = model.json as unknown as LlamaConfig;
      await saveForThem(path, config, denseTensors(model.weights), { tokenizerJson, tokenizerConfig });
      const prompt = tokenizer.encode("Once upon a time, there was a");
      const story = await ours(model, prompt);
      expectParity(story, await theirs(path, prompt));
      expect(tokenizer.decode(story.tokens)).toMatch(/^ ?little girl/);
    },
    60_000,
  );

  it.each<[string, Partial<LlamaConfig>]>([
    ["a tied head", { tie_word_embeddings: true }],
    ["a head of its own, and wide heads of attention", { head_dim: 32, num_key_value_heads: 1, rope_theta: 5000 }],
    ["biases", { attention_bias: true, mlp_bias: true }],
  ])(
    "go on alike with random weights, both from one GGUF file, with %s",
    async (_, changes) => {
      const config = tinyConfig({ max_position_embeddings: 128, ...changes });
      const path = join(folder, "random.gguf");
      const weights = randomWeights({ ...config });
      await saveForThem(path, config, weights, tokenizerJsonFromLlama2c(tinyPieces));
      await using model = await openModel(path);
      expect(new Set(Object.keys(model.weights))).toEqual(new Set(weights.keys()));
      const prompt = [1, 5, 9, 200, 260, 5, 3];
      expectParity(await ours(model, prompt), await theirs(path, prompt));
    },
    60_000,
  );
});
