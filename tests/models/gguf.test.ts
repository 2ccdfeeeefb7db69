import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { getLlama, type Llama, LlamaLogLevel, type LlamaModel, type Token } from "node-llama-cpp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openGguf, saveGguf } from "../../src/formats/gguf/gguf.node.ts";
import type { MetadataValue } from "../../src/formats/gguf/metadata.ts";
import { ggufTypes } from "../../src/formats/gguf/tensor-types.ts";
import { ggmlTypes } from "../../src/formats/gguf/types.ts";
import type { PendingGgufTensor } from "../../src/formats/gguf/write.ts";
import type { LlamaConfig } from "../../src/formats/llama-config.ts";
import { tokenizerJsonFromLlama2c } from "../../src/formats/llama2c-tokenizer.ts";
import { type PendingTensor, pendingFrom, pendingTensors, readTensors } from "../../src/formats/tensor-file.ts";
import { ggufTokenizerMetadata } from "../../src/formats/tokenizer-gguf.ts";
import { fromGgmlName, toGgmlName } from "../../src/models/gguf/names.ts";
import { decoderFromGguf, decoderToGguf } from "../../src/models/index.ts";
import { HostTensor, toHalf } from "../../src/tensor/index.ts";
import { halves } from "../formats/gguf-twin.ts";
import { le, random } from "../formats/malformed.ts";
import { lastLogits, randomWeights, tinyConfig, tinyPieces } from "../formats/tiny-llama.ts";
import { logProbabilities, theirLogProbabilities } from "../support/llama-cpp.ts";
import { family } from "./family.ts";

let folder: string;
let llama: Llama;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-gguf-llama-"));
  llama = await getLlama({ gpu: false, build: "never", maxThreads: 1, logLevel: LlamaLogLevel.error });
});
afterAll(async () => {
  await llama.dispose();
  await rm(folder, { recursive: true });
});

/** A model with its vocabulary as llama.cpp is to see it. */
async function save(
  path: string,
  config: LlamaConfig,
  weights: readonly PendingTensor[],
  type: string,
  extra: readonly PendingGgufTensor[] = [],
): Promise<void> {
  const { metadata, tensors } = decoderToGguf({ ...config }, weights, ggufTypes(type));
  const tokenizer = ggufTokenizerMetadata(tokenizerJsonFromLlama2c(tinyPieces), config.vocab_size);
  await saveGguf(path, new Map<string, MetadataValue>([...metadata, ...tokenizer]), [...extra, ...tensors]);
}

async function withModel<T>(path: string, use: (model: LlamaModel) => Promise<T>): Promise<T> {
  const model = await llama.loadModel({ modelPath: path });
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

/** llama.cpp's log-probabilities after the last of `tokens`. */
async function theirs(model: LlamaModel, tokens: readonly number[]): Promise<number[]> {
  const context = await model.createContext({ contextSize: 32, threads: 1 });
  try {
    return await theirLogProbabilities(context.getSequence(), tokens);
  } finally {
    await context.dispose();
  }
}

describe("a Llama written to GGUF", () => {
  const tokens = [1, 5, 9, 200, 260, 5, 3];

  it.each([
    ["F32", false, 2e-3],
    ["F32", true, 2e-3],
    ["F16", false, 5e-3],
    ["Q8_0", false, 0.05],
    ["Q4_0", false, 0.1],
  ])("computes in llama.cpp what its weights say: %s (tied: %s)", async (type, tied, tolerance) => {
    const config = tinyConfig({ tie_word_embeddings: tied });
    const path = join(folder, `${type}-${tied}.gguf`);
    await save(path, config, pendingTensors(randomWeights(config, 5)), type);
    // What was really stored, read back in Hugging Face's terms.
    const { tensors } = await decoderFromGguf(await openGguf(path));
    const stored = new Map(Array.from(await readTensors(tensors), ([name, t]) => [name, t.cast("f32")]));
    await tensors.close();
    const expected = logProbabilities(lastLogits(config, stored, tokens));
    const found = await withModel(path, (model) => theirs(model, tokens));
    const mean = expected.reduce((sum, x) => sum + x, 0) / expected.length;
    const spread = Math.sqrt(expected.reduce((sum, x) => sum + (x - mean) ** 2, 0) / expected.length);
    const error = Math.sqrt(expected.reduce((sum, x, i) => sum + (x - found[i]!) ** 2, 0) / expected.length);
    expect(found.length).toBe(config.vocab_size);
    expect(error / spread).toBeLessThan(tolerance);
  });

  it("is tokenized by llama.cpp as by its tokenizer.json", async () => {
    const config = tinyConfig();
    const path = join(folder, "tokens.gguf");
    await save(path, config, pendingTensors(randomWeights(config, 5)), "F16");
    await withModel(path, async (model) => {
      expect(model.tokens.bos).toBe(1);
      expect(model.tokens.eos).toBe(2);
      // " abc", then "a", "bc" would merge worse than " a", "bc".
      expect(model.tokenize("abc")).toEqual([269]);
      expect(model.tokenize("cü")).toEqual([259, 262, 0xc3 + 3, 0xbc + 3]);
    });
  });

  it("comes back as it was", async () => {
    const config = tinyConfig({ tie_word_embeddings: true });
    const weights = randomWeights(config, 5);
    const path = join(folder, "back.gguf");
    await save(path, config, pendingTensors(weights), "F32");
    const { json: read, tensors } = await decoderFromGguf(await openGguf(path));
    expect({ ...read, rms_norm_eps: 0 }).toEqual({ ...config, rms_norm_eps: 0 });
    expect(read.rms_norm_eps).toBe(Math.fround(config.rms_norm_eps));
    const back = await readTensors(tensors);
    expect(new Set(back.keys())).toEqual(new Set(weights.keys()));
    for (const [name, tensor] of weights) expect(back.get(name)).toEqual(tensor);
    // And once more, over the file that it comes from.
    await save(path, config, pendingFrom(tensors), "Q8_0");
    await tensors.close();
  });

  it.each(Object.keys(halves))("has its %s blocks decoded by llama.cpp as by pare", async (type) => {
    const config = tinyConfig({ hidden_size: 256, head_dim: 64, num_hidden_layers: 1, tie_word_embeddings: true });
    // Layers that add nothing leave the normalized rows of the table, which llama.cpp gives as embeddings.
    const weights = new Map(
      Array.from(randomWeights(config, 1), ([name, { shape }]) => {
        const tensor = HostTensor.zeros("f32", shape);
        if (shape.length === 1) (tensor.data as Float32Array).fill(1);
        return [name, tensor] as const;
      }),
    );
    weights.delete("model.embed_tokens.weight");
    const { block, bytes } = ggmlTypes.get(type)!;
    const next = random(9);
    const count = (config.vocab_size * 256) / block;
    const blocks = Uint8Array.from({ length: count * bytes }, () => Math.floor(256 * next()));
    for (let b = 0; b < count; b++) {
      for (const at of halves[type]!) blocks.set(le(toHalf(0.001 + next() / 100), 2), b * bytes + at);
    }
    const path = join(folder, `table-${type}.gguf`);
    const table = { name: "token_embd.weight", type, shape: [config.vocab_size, 256], load: () => blocks };
    await save(path, config, pendingTensors(weights), "F32", [table]);
    await using file = await openGguf(path);
    await withModel(path, async (model) => {
      const context = await model.createEmbeddingContext({ contextSize: 32, threads: 1 });
      for (const token of [5, 100, 269]) {
        const { vector } = await context.getEmbeddingFor([1, token] as Token[]);
        const row = (await file.read("token_embd.weight", [token, token + 1])).toArray();
        const scale = Math.sqrt(row.reduce((sum, x) => sum + x * x, 0) / row.length + config.rms_norm_eps);
        const worst = Math.max(...row.map((x, i) => Math.abs(vector[i]! - x / scale)));
        expect(worst).toBeLessThan(1e-5);
      }
      await context.dispose();
    });
  });

  it("has names of its own for everything a Llama consists of", () => {
    const names = [...randomWeights(tinyConfig(), 1).keys(), "model.layers.7.self_attn.q_proj.bias"];
    for (const name of names) expect(fromGgmlName(toGgmlName(name)!)).toBe(name);
    expect(toGgmlName("model.layers.11.mlp.down_proj.weight")).toBe("blk.11.ffn_down.weight");
    expect(toGgmlName("model.layers.0.mlp.experts.0.weight")).toBeUndefined();
    expect(fromGgmlName("blk.0.ffn_gate_inp.weight")).toBeUndefined();
  });

  it("keeps vectors whole, and falls back where rows are not whole blocks", () => {
    const typeOf = ggufTypes("Q4_K");
    expect(typeOf({ name: "model.norm.weight", shape: [256] })).toBe("F32");
    expect(typeOf({ name: "model.layers.0.mlp.up_proj.weight", shape: [8, 512] })).toBe("Q4_K");
    expect(typeOf({ name: "model.layers.0.mlp.up_proj.weight", shape: [8, 96] })).toBe("Q8_0");
    expect(typeOf({ name: "model.layers.0.mlp.up_proj.weight", shape: [8, 100] })).toBe("F16");
    expect(typeOf({ name: "lm_head.weight", shape: [8, 512] })).toBe("Q6_K");
    expect(() => ggufTypes("Q4_X")).toThrow("GGUF has no element type called Q4_X");
  });

  it("is refused when llama.cpp could not run it", () => {
    const config = tinyConfig();
    const odd = pendingTensors([["model.layers.0.oddity.weight", HostTensor.zeros("f32", [1])]]);
    const write = (json: object, tensors = odd) => decoderToGguf({ ...json }, tensors, ggufTypes("F16"));
    expect(() => write(config)).toThrow(
      'llama.cpp has no name for the tensor "model.layers.0.oddity.weight" of a llama',
    );
    const { gemma2 } = family;
    expect(() => write({ ...gemma2, query_pre_attn_scalar: 4 }, [])).toThrow(
      "llama.cpp scales a gemma2's attention by 0.25, not by 0.5",
    );
    expect(() => write({ ...family.llama!, layer_types: ["full_attention", "no_attention"] }, [])).toThrow(
      "llama.cpp has no layers without attention, and layer 1 of this llama is one; export the model to ONNX instead",
    );
    const everywhere = ["sliding_attention", "sliding_attention"];
    expect(() => write({ ...gemma2, layer_types: everywhere }, [])).toThrow(
      "every layer of a gemma2 except each 2th; layer 1 of this one differs",
    );
  });

  it("ends where llama.cpp, which knows no window, would see more than the model", () => {
    const { metadata } = decoderToGguf(family.mistral!, [], ggufTypes("F16"));
    expect(metadata.get("llama.context_length")).toEqual({ type: "u32", value: 24 });
  });

  it("is refused when it is no Llama, or not a whole one", async () => {
    const table = {
      name: "token_embd.weight",
      type: "F32",
      shape: [4, 2],
      load: () => HostTensor.zeros("f32", [4, 2]),
    };
    const text = (value: string): MetadataValue => ({ type: "string", value });
    const attempt = async (metadata: Map<string, MetadataValue>, tensors: PendingGgufTensor[]): Promise<void> => {
      const path = join(folder, "other.gguf");
      await saveGguf(path, metadata, tensors);
      await using file = await openGguf(path);
      await decoderFromGguf(file);
    };
    const llamaKey = new Map([["general.architecture", text("llama")]]);
    await expect(attempt(new Map([["general.architecture", text("mamba")]]), [])).rejects.toThrow(
      'its architecture is "mamba"; supported are llama, qwen2, qwen3, gemma2, gemma3, gpt2',
    );
    await expect(attempt(new Map(), [])).rejects.toThrow('there is no metadata "general.architecture"');
    await expect(attempt(llamaKey, [])).rejects.toThrow('it has no table "token_embd.weight"');
    await expect(attempt(llamaKey, [table])).rejects.toThrow('there is no metadata "llama.attention.head_count"');
    await expect(attempt(new Map([...llamaKey, ["llama.attention.head_count", text("4")]]), [table])).rejects.toThrow(
      'the metadata "llama.attention.head_count" is of type string, not a number',
    );
  });
});
