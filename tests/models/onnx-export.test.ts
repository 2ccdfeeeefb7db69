import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { PreTrainedModel } from "@huggingface/transformers";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { decoderConfig, decoderGraph, requireTokenizer } from "../../src/models/index.ts";
import { embeddedModel, exportOnnx, type OnnxDtype, openModel, saveModel } from "../../src/models/node.ts";
import { HalfWeight, roundToBlocks } from "../../src/nn/index.ts";
import { checkModel, nodesOf } from "../../src/onnx/index.ts";
import { generateTheirs, openTheirs } from "../support/transformers-js.ts";
import { expectParity, length, ours } from "./continuation.ts";
import { family, type Json, randomWeights } from "./family.ts";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-onnx-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

const prompt = [1, 5, 9, 200, 260, 5, 3];
const parse = async (name: string): Promise<Json> => JSON.parse(await readFile(join(folder, name), "utf8")) as Json;

/** Opens what was exported into the folder, and closes it again. */
async function withTheirs<R>(dtype: OnnxDtype, use: (model: PreTrainedModel) => Promise<R>): Promise<R> {
  const model = await openTheirs(folder, dtype);
  try {
    return await use(model);
  } finally {
    await model.dispose();
  }
}

/** A small model with random weights, as exported and as run here. */
function tiny(json: Json) {
  return { json, config: decoderConfig(json), weights: Object.fromEntries(randomWeights(json)) };
}

describe("transformers.js and pare", () => {
  it.each(Object.keys(family))(
    "go on alike with random weights: %s",
    async (name) => {
      const model = tiny(family[name]!);
      await exportOnnx(folder, model);
      const [theirs] = await withTheirs("fp32", (session) => generateTheirs(session, [prompt], length));
      expectParity(await ours(model, prompt), theirs!);
    },
    120_000,
  );

  const stories = new URL("../../../shared/data/lm/stories260K/stories260K.bin", import.meta.url);

  it.skipIf(!existsSync(stories))(
    "tell the same story (needs shared/data/lm/stories260K)",
    async () => {
      await using model = await openModel(fileURLToPath(stories));
      await exportOnnx(folder, model);
      const text = requireTokenizer(model).encode("Once upon a time, there was a");
      const [theirs] = await withTheirs("fp32", (session) => generateTheirs(session, [text], length));
      expectParity(await ours(model, text), theirs!);
    },
    120_000,
  );

  it("go on alike with the embedded model, its tokenizer included", async () => {
    await using model = await openModel(embeddedModel);
    await exportOnnx(folder, model);
    const text = requireTokenizer(model).encode("Once upon a time, there was a");
    const { AutoTokenizer } = await import("@huggingface/transformers");
    const theirTokenizer = await AutoTokenizer.from_pretrained(folder);
    expect(theirTokenizer.encode("Once upon a time, there was a", { add_special_tokens: false })).toEqual(text);
    const [theirs] = await withTheirs("fp32", (session) => generateTheirs(session, [text], length));
    expectParity(await ours(model, text), theirs!);
  }, 120_000);
});

describe("an exported model", () => {
  it.each(["llama", "mistral", "gemma2"])(
    "goes on in a padded batch as alone: %s",
    async (name) => {
      await exportOnnx(folder, tiny(family[name]!));
      const prompts = [prompt, [1, 7], [1, 44, 8, 100]];
      await withTheirs("fp32", async (session) => {
        const together = await generateTheirs(session, prompts, length);
        for (const [i, alone] of prompts.entries()) {
          expectParity((await generateTheirs(session, [alone], length))[0]!, together[i]!);
        }
      });
    },
    120_000,
  );

  it("has a cache of the layers alone that have attention", async () => {
    const types = ["no_attention", "full_attention", "no_attention", "sliding_attention"];
    const model = tiny({ ...family.llama!, num_hidden_layers: 4, layer_types: types, sliding_window: 24 });
    await exportOnnx(folder, model);
    const { inputs, outputs } = decoderGraph(model.config, model.weights);
    const caches = ["1.key", "1.value", "3.key", "3.value"];
    expect(inputs.map(({ name }) => name).slice(3)).toEqual(caches.map((name) => `past_key_values.${name}`));
    expect(outputs.map(({ name }) => name).slice(1)).toEqual(caches.map((name) => `present.${name}`));
    const [theirs] = await withTheirs("fp32", (session) => generateTheirs(session, [prompt], length));
    expectParity(await ours(model, prompt), theirs!);
  }, 120_000);

  it("computes nearly the same in half precision, from a file of half the size", async () => {
    const model = tiny(family.llama!);
    const [whole, half] = [await exportOnnx(folder, model), await exportOnnx(folder, model, { dtype: "fp16" })];
    expect((await readdir(join(folder, "onnx"))).sort()).toEqual(["model.onnx", "model_fp16.onnx"]);
    const [a, b] = await Promise.all([readFile(whole), readFile(half)]);
    for (const bytes of [a, b]) expect(() => checkModel(bytes)).not.toThrow();
    expect(b.length / a.length).toBeLessThan(0.6);
    const [exact] = await withTheirs("fp32", (session) => generateTheirs(session, [prompt], 1));
    const [rounded] = await withTheirs("fp16", (session) => generateTheirs(session, [prompt], 1));
    const worst = Math.max(...exact!.scores[0]!.map((x, i) => Math.abs(x - rounded!.scores[0]![i]!)));
    expect(worst).toBeLessThan(0.05 * Math.max(...exact!.scores[0]!));
    expect(worst).toBeGreaterThan(0);
  }, 120_000);

  it.each([
    ["q8", "int8"],
    ["q4", "int4"],
  ] as const)(
    "keeps the packed weights that the model has: %s",
    async (dtype, format) => {
      const dense = tiny(family.llama!);
      const weights = Object.fromEntries(
        Object.entries(dense.weights).map(([name, tensor]) => {
          const packed = tensor.shape.length === 2 && roundToBlocks(tensor, { format, block: 32, exact: true });
          return [name, packed || tensor];
        }),
      );
      const [whole, path] = [
        await exportOnnx(folder, dense),
        await exportOnnx(folder, { ...dense, weights }, { dtype }),
      ];
      expect((await stat(path)).size / (await stat(whole)).size).toBeLessThan(format === "int8" ? 0.45 : 0.3);
      const { outputs } = decoderGraph(dense.config, weights);
      const operators = nodesOf(outputs.map(({ tensor }) => tensor)).map(({ op }) => op);
      expect(operators.filter((op) => op === "com.microsoft.MatMulNBits").length).toBe(7 * 2 + 1);
      const [theirs] = await withTheirs(dtype, (session) => generateTheirs(session, [prompt], length));
      expectParity(await ours({ ...dense, weights }, prompt), theirs!);
    },
    120_000,
  );

  it("keeps the packed and half-precision weights of a model that was saved and opened again", async () => {
    const dense = tiny(family.llama!);
    const weights = Object.fromEntries(
      Object.entries(dense.weights).map(([name, tensor]) => [
        name,
        tensor.shape.length === 2 ? roundToBlocks(tensor, { format: "int4", block: 32, exact: true }) : tensor,
      ]),
    );
    const table = "model.embed_tokens.weight";
    const halves = { [table]: new HalfWeight(dense.weights[table]!.cast("f16")) };
    await saveModel(join(folder, "saved"), { ...dense, weights: { ...weights, ...halves } });
    await using model = await openModel(join(folder, "saved"));
    await exportOnnx(folder, model, { dtype: "q4" });
    const [theirs] = await withTheirs("q4", (session) => generateTheirs(session, [prompt], length));
    expectParity(await ours(model, prompt), theirs!);
  }, 120_000);

  it.each(["llama", "gpt2"])(
    "computes nearly the same with packed weights in half precision: %s",
    async (name) => {
      const dense = tiny(family[name]!);
      const weights = Object.fromEntries(
        Object.entries(dense.weights).map(([key, tensor]) => {
          const isMatrix = tensor.shape.length === 2;
          return [key, isMatrix ? roundToBlocks(tensor, { format: "int4", block: 32 }) : tensor];
        }),
      );
      const first = async (dtype: OnnxDtype): Promise<readonly number[]> => {
        await exportOnnx(folder, { ...dense, weights }, { dtype });
        const [theirs] = await withTheirs(dtype, (session) => generateTheirs(session, [prompt], 1));
        return theirs!.scores[0]!;
      };
      const [whole, half] = [await first("q4"), await first("q4f16")];
      expect(Math.max(...whole.map((x, i) => Math.abs(x - half[i]!)))).toBeLessThan(0.1 * Math.max(...whole));
    },
    120_000,
  );

  it("may keep its weights in a file of their own, of which loaders are told", async () => {
    const model = tiny(family.llama!);
    await exportOnnx(folder, model, { external: true });
    expect((await readdir(join(folder, "onnx"))).sort()).toEqual(["model.onnx", "model.onnx_data"]);
    const told = { use_external_data_format: { "model.onnx": true } };
    expect((await parse("config.json"))["transformers.js_config"]).toEqual(told);
    const [theirs] = await withTheirs("fp32", (session) => generateTheirs(session, [prompt], length));
    expectParity(await ours(model, prompt), theirs!);
    // A further representation leaves the first as it is; the first written anew takes its data file along.
    await exportOnnx(folder, model, { dtype: "fp16" });
    expect((await parse("config.json"))["transformers.js_config"]).toEqual(told);
    await exportOnnx(folder, model);
    expect((await readdir(join(folder, "onnx"))).sort()).toEqual(["model.onnx", "model_fp16.onnx"]);
    expect(await parse("config.json")).toEqual(model.json);
  }, 120_000);

  it("says which tokens begin and end a text", async () => {
    await exportOnnx(folder, tiny({ ...family.llama!, bos_token_id: 1, eos_token_id: [2, 3], pad_token_id: null }));
    expect(await parse("generation_config.json")).toEqual({ bos_token_id: 1, eos_token_id: [2, 3] });
  });

  it("is refused under a name that does not fit", async () => {
    const model = tiny(family.llama!);
    await expect(exportOnnx(folder, model, { dtype: "q4" })).rejects.toThrow(
      "all weights are dense, so that they cannot be exported as q4; quantize them first",
    );
    await expect(exportOnnx(folder, model, { dtype: "f32" as OnnxDtype })).rejects.toThrow(
      'transformers.js has no dtype "f32"; it has fp32, fp16, q8, q4',
    );
    const { "model.norm.weight": _, ...weights } = model.weights;
    await expect(exportOnnx(folder, { ...model, weights })).rejects.toThrow('the weights lack "model.norm.weight"');
    expect(await readdir(folder)).toEqual([]);
  });
});
