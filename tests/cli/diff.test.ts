import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ggufTypes, pendingTensors } from "../../src/formats/index.ts";
import { saveGguf, saveSafetensors } from "../../src/formats/node.ts";
import { decoderToGguf, denseTensors, ggufWeights, type Weights } from "../../src/models/index.ts";
import { saveModel } from "../../src/models/node.ts";
import { Dense, roundToBlocks } from "../../src/nn/index.ts";
import { HostTensor, Rng } from "../../src/tensor/index.ts";
import { tinyModel } from "../generate/models.ts";
import { pare } from "./process.ts";

const shape = {
  vocab_size: 23,
  hidden_size: 32,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 40,
};
const json = { model_type: "llama", architectures: ["LlamaForCausalLM"], ...shape };
const { weights } = tinyModel(shape);
const up = "model.layers.1.mlp.up_proj.weight";

let folder: string;
const at = (name: string): string => join(folder, name);

/** The weights with each changed. */
function changed(change: (values: HostTensor, name: string) => HostTensor): Weights {
  return Object.fromEntries(
    Array.from(denseTensors(weights), ([name, tensor]) => {
      const moved = change(tensor, name);
      return [name, moved.shape.length === 2 ? new Dense(moved) : moved];
    }),
  );
}

const diff = (...words: string[]) => pare("diff", ...words, "--out", at("report.html"));

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-diff-"));
  const rng = new Rng(8);
  const tuned = changed((t, name) => {
    const noise = rng.fork(name).normalTensor(t.shape, { std: 1e-3 });
    return HostTensor.from(
      t.toArray().map((x, i) => x + noise.at(i)),
      { shape: t.shape },
    );
  });
  await saveModel(at("base"), { json, weights });
  await saveModel(at("tuned"), { json, weights: tuned });
  await saveModel(at("half"), { json, weights: changed((t) => (t.shape.length === 2 ? t.cast("bf16") : t)) });
  const wider = { ...shape, intermediate_size: 48 };
  await saveModel(at("wider"), { json: { ...json, ...wider }, weights: tinyModel(wider).weights });
  const broken = changed((t, name) => {
    const copy = t.clone();
    if (name === up) copy.set(3, Number.NaN);
    return copy;
  });
  await saveModel(at("broken"), { json, weights: broken });
  for (const type of ["F32", "Q8_0"]) {
    const { metadata, tensors } = decoderToGguf(json, ggufWeights(weights), ggufTypes(type));
    await saveGguf(at(`${type}.gguf`), metadata, tensors);
  }
  const packed = {
    ...weights,
    [up]: roundToBlocks((weights[up] as Dense).values as HostTensor, { format: "int4", block: 32 }),
  };
  await saveModel(at("packed"), { json, weights: packed });
  await saveModel(at("quantized"), { json, weights });
  await writeFile(
    join(at("quantized"), "config.json"),
    JSON.stringify({ ...json, quantization_config: { quant_method: "fp8" } }),
  );
  await mkdir(at("adapter"));
  await writeFile(join(at("adapter"), "adapter_config.json"), "{}");
  await saveSafetensors(
    join(at("adapter"), "adapter_model.safetensors"),
    pendingTensors([["base_model.model.layers.0.mlp.up_proj.lora_A.weight", HostTensor.zeros("f32", [2, 32])]]),
  );
});
afterAll(async () => await rm(folder, { recursive: true }));

describe("pare diff", { timeout: 120_000 }, () => {
  it("prints what changed by type and in all, and draws it", async () => {
    const { code, out } = await diff(at("base"), at("tuned"));
    expect(code).toBe(0);
    expect(out).toMatch(/^q_proj +2 +\d/m);
    expect(out).toMatch(/^all +14 .* hold$/m);
    expect(out).toContain(`${at("report.html")} shows more`);
    const page = await readFile(at("report.html"), "utf8");
    expect(page).toContain("What training changed");
  });

  it("gives the same as JSON", async () => {
    const { code, out } = await diff(at("base"), at("tuned"), "--json", "--alpha", "0.5", "--matrices", "mlp");
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report).toMatchObject({ before: at("base"), after: at("tuned"), alpha: 0.5 });
    expect(report.matrices.map((m: { name: string }) => m.name).every((name: string) => name.includes(".mlp."))).toBe(
      true,
    );
    expect(report.summaries.at(-1)).toMatchObject({ name: "all", matrices: 6, storedSparsity: 0, boundsHold: true });
    expect(report.summaries.at(-1).overlaps.small.chance).toBeCloseTo(0.5, 2);
  });

  it("finds identical checkpoints identical, across formats", async () => {
    for (const [a, b] of [
      ["base", "base"],
      ["base", "F32.gguf"],
    ] as const) {
      const { code, out } = await diff(at(a), at(b), "--json");
      expect(code).toBe(0);
      const { summaries } = JSON.parse(out);
      expect(summaries.at(-1)).toMatchObject({
        sparsity: 1,
        storedSparsity: 1,
        nss: 0,
        angle: 0,
        overlaps: { principal: { share: null }, small: { share: null } },
      });
    }
    expect(await readFile(at("report.html"), "utf8")).toContain(
      "The checkpoints are the same in all matrices of their layers.",
    );
  });

  it("sees no change where a checkpoint was only rounded to bfloat16", async () => {
    const { summaries } = JSON.parse((await diff(at("base"), at("half"), "--json")).out);
    expect(summaries.at(-1).sparsity).toBe(1);
    expect(summaries.at(-1).storedSparsity).toBeLessThan(0.02);
    expect(summaries.at(-1).overlaps.small.share).toBeNull();
  });

  it.each([
    [
      ["base", "wider"],
      /the checkpoints are of different architectures: "model\.layers\.0\.mlp\.\w+_proj\.weight" is \[\d+, \d+\] in .*base and \[\d+, \d+\] in .*wider; .*/,
    ],
    [["base", "broken"], `"${up}" has NaN at [0, 3] in the checkpoint after; it is damaged`],
    [
      ["base", "packed"],
      /packed is packed: which of its entries training changed cannot be told from codes; give the checkpoint that it was made from/,
    ],
    [["quantized", "base"], /quantized is packed: which of its entries/],
    [
      ["base", "Q8_0.gguf"],
      /"model\.layers\.0\.\S+" of .*Q8_0\.gguf is of type Q8_0: which of its entries training changed cannot be told from packed numbers/,
    ],
    [["base", "adapter"], /adapter is an adapter \(LoRA\), not a model; merge it into its base first/],
    [["base", "base", "--alpha", "1"], "alpha must be above 0 and below 1, not 1"],
    [["base", "base", "--rank", "33"], "is a whole number from 1 to 32, not 33"],
    [["base", "base", "--matrices", "("], "--matrices is no regular expression"],
    [
      ["base", "base", "--matrices", "nothing"],
      "no matrix of a layer has a name that /nothing/ matches; pare inspect lists them",
    ],
  ])("refuses what cannot be compared (%#)", async (words, message) => {
    const places = words.map((word, i) => (i < 2 ? at(word) : word));
    const { code, err } = await diff(...places);
    expect(code).toBe(2);
    expect(err).toMatch(message);
  });
});
