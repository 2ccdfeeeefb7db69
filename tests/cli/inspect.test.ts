import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ggufTypes, pendingTensors, tokenizerJsonFromLlama2c } from "../../src/formats/index.ts";
import { saveGguf, saveSafetensors, saveSafetensorsFolder } from "../../src/formats/node.ts";
import { decoderToGguf, ggufWeights } from "../../src/models/index.ts";
import { embeddedModel, exportOnnx, saveCompressedTensors, saveModel } from "../../src/models/node.ts";
import { HalfWeight, roundToBlocks, storeWeights, toSparse } from "../../src/nn/index.ts";
import { HostTensor } from "../../src/tensor/index.ts";
import { tinyPieces } from "../formats/tiny-llama.ts";
import { family, randomWeights } from "../models/family.ts";
import { pare } from "./process.ts";

const patience = 300_000;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-inspect-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

const inspect = (...words: string[]) => pare("inspect", ...words);

/** What `--json` gives. */
async function reportOn(...words: string[]) {
  const { code, out } = await inspect(...words, "--json");
  return { code, report: JSON.parse(out) };
}

const json = family.llama!;
const dense = Object.fromEntries(randomWeights(json));
const represented = (tensor: HostTensor, name: string) => {
  if (tensor.shape.length < 2) return tensor;
  if (name.includes("embed")) return new HalfWeight(tensor.cast("bf16"));
  if (name.includes("lm_head")) return tensor;
  return name.includes("up_proj")
    ? toSparse(tensor)
    : roundToBlocks(tensor, { format: "int4", block: 32, scales: "f16" });
};
const compressed = Object.fromEntries(Object.entries(dense).map(([name, tensor]) => [name, represented(tensor, name)]));
const parameters = Object.values(dense).reduce((sum, { size }) => sum + size, 0);

describe("pare inspect", { timeout: patience }, () => {
  it("shows the model that pare brings, its layers in one line or each", async () => {
    const short = await inspect("--no-values");
    expect(short.code).toBe(0);
    expect(short.out).toMatch(/^architecture +llama$/m);
    expect(short.out).toMatch(/^layers +6$/m);
    expect(short.out).toMatch(/^model\.layers\.\*\.mlp\.up_proj\.weight +6 +F16 +\[640, 256\]/m);
    expect(short.out).not.toContain("exact zeros");
    const long = await inspect("--no-values", "--tensors");
    expect(long.out).toMatch(/^model\.layers\.3\.mlp\.up_proj\.weight +1 +F16/m);
    expect(long.out).not.toContain("*");
    expect(short.out.startsWith(`${embeddedModel}\n`)).toBe(true);
  });

  it("tells representations, their sizes, and the numbers that they stand for", async () => {
    const pruned = HostTensor.zeros("f32", [270, 64]);
    pruned.set(0, 2);
    pruned.set(1, -3);
    await saveModel(folder, { json, weights: { ...compressed, "lm_head.weight": pruned } });
    const { code, report } = await reportOn(folder);
    expect(code).toBe(0);
    expect(report).toMatchObject({ parameters, problems: [], notes: [], facts: { architecture: "llama", layers: 2 } });
    const found = Object.fromEntries(report.tensors.map((tensor: { name: string }) => [tensor.name, tensor]));
    expect(found["lm_head.weight"]).toMatchObject({
      type: "F32",
      bytes: 4 * 270 * 64,
      values: { count: 270 * 64, zeros: 270 * 64 - 2, nan: 0, infinite: 0, min: -3, max: 2 },
    });
    expect(found["model.embed_tokens.weight"]).toMatchObject({ type: "half", bytes: 2 * 270 * 64 });
    expect(found["model.layers.0.mlp.up_proj.weight"]).toMatchObject({ type: "sparse", values: { count: 96 * 64 } });
    expect(found["model.layers.1.self_attn.q_proj.weight"]).toMatchObject({
      type: "int4 blocks of 32",
      shape: [64, 64],
      bytes: (64 * 64) / 2 + 2 * 64 * 2,
      parameters: 64 * 64,
    });
    const zeros = report.tensors.reduce(
      (sum: number, { values }: { values: { zeros: number } }) => sum + values.zeros,
      0,
    );
    expect(report.sparsity).toBe(zeros / parameters);
    const bytes = report.tensors.reduce((sum: number, tensor: { bytes: number }) => sum + tensor.bytes, 0);
    expect(report).toMatchObject({ bytes, bitsPerWeight: (8 * bytes) / parameters });
    // The file by itself says what it holds, too.
    const alone = await reportOn(join(folder, "model.safetensors"), "--no-values");
    expect(alone.report).toMatchObject({ parameters, bytes, sparsity: null });
    const { tensors, description } = storeWeights(compressed);
    const metadata = new Map([["pare.weights", JSON.stringify(description)]]);
    await saveSafetensorsFolder(folder, pendingTensors(Object.entries(tensors)), { metadata, maxShardBytes: 20_000 });
    const index = await reportOn(join(folder, "model.safetensors.index.json"), "--no-values");
    expect(index).toMatchObject({ code: 0, report: { format: "safetensors", parameters } });
    const { out } = await inspect(folder, "--no-values");
    expect(out).toMatch(/^int4 blocks of 32 +12 tensors, /m);
  });

  it("knows packed weights of compressed-tensors", async () => {
    const weights = { ...compressed };
    for (const name of Object.keys(weights)) if (/embed|up_proj/.test(name)) weights[name] = dense[name]!;
    await saveCompressedTensors(folder, { json, weights });
    const { code, report } = await reportOn(folder, "--no-values");
    expect(code).toBe(0);
    const name = "model.layers.0.mlp.down_proj.weight";
    expect(report.tensors.find((tensor: { name: string }) => tensor.name === name)).toMatchObject({
      type: "int4 blocks of 32",
      shape: [64, 96],
    });
    expect(report.parameters).toBe(parameters);
  });

  it("reads GGUF, ONNX, llama2.c and tokenizers", async () => {
    const gguf = join(folder, "model.gguf");
    const { metadata, tensors } = decoderToGguf(json, ggufWeights(dense), ggufTypes("Q8_0"));
    await saveGguf(gguf, metadata, tensors);
    const inGguf = await reportOn(gguf);
    expect(inGguf).toMatchObject({
      code: 0,
      report: { format: "GGUF", parameters, facts: { layers: 2, vocabulary: 270 } },
    });
    expect(inGguf.report.tensors[0]).toMatchObject({ name: "token_embd.weight", type: "Q8_0" });

    const exported = join(folder, "exported");
    await mkdir(exported);
    const onnx = await exportOnnx(exported, { json, weights: dense });
    for (const place of [onnx, exported]) {
      const { code, report } = await reportOn(place);
      expect(code).toBe(0);
      expect(report.facts.inputs).toContain("input_ids i64");
      expect(report.parameters).toBeGreaterThanOrEqual(parameters);
    }

    const packed = await exportOnnx(exported, { json, weights: compressed }, { dtype: "q4" });
    expect((await inspect(packed)).out).toContain("note: packed codes are counted as the bytes that they are");

    const tokenizer = join(folder, "tokenizer.json");
    await writeFile(tokenizer, JSON.stringify(tokenizerJsonFromLlama2c(tinyPieces).tokenizerJson));
    expect(await reportOn(tokenizer)).toMatchObject({
      code: 0,
      report: { format: "tokenizer", facts: { "tokens of the tokenizer": 270 }, tensors: [], bitsPerWeight: null },
    });

    // Width 4, feed-forward 4, one layer, two heads, three tokens, four positions, tied.
    const sizes = [4, 4, 1, 2, 2, 3, 4];
    const numbers = 3 * 4 + 4 + 4 * 16 + 4 + 3 * 16 + 4 + 2 * 4;
    const checkpoint = Buffer.alloc(28 + 4 * numbers);
    for (const [i, size] of sizes.entries()) checkpoint.writeInt32LE(size, 4 * i);
    await writeFile(join(folder, "model.bin"), checkpoint);
    expect(await reportOn(join(folder, "model.bin"))).toMatchObject({
      code: 0,
      report: { format: "llama2.c", sparsity: 1, facts: { layers: 1, "tied embeddings": true } },
    });
  });

  it("exits with 1 where something is wrong, and says what and where", async () => {
    const path = join(folder, "model.safetensors");
    const broken = { ...dense, "lm_head.weight": HostTensor.zeros("f32", [270, 64]) };
    broken["lm_head.weight"].set(5, NaN);
    broken["lm_head.weight"].set(6, -Infinity);
    await saveModel(folder, { json, weights: broken });
    const unsound = await inspect(folder);
    expect(unsound.code).toBe(1);
    expect(unsound.out).toContain('problem: "lm_head.weight" holds 1 NaN and 1 infinities');
    expect((await inspect(folder, "--no-values")).code).toBe(0);

    await writeFile(join(folder, "config.json"), JSON.stringify({ ...json, intermediate_size: 100 }));
    const disagreeing = await reportOn(folder, "--no-values");
    expect(disagreeing).toMatchObject({
      code: 1,
      report: {
        problems: [
          '"model.layers.0.mlp.gate_proj.weight" has shape [96, 64], but the configuration asks for [100, 64]',
        ],
        parameters,
      },
    });
    await writeFile(join(folder, "config.json"), JSON.stringify({ ...json, model_type: "bert" }));
    const foreign = await inspect(folder, "--no-values");
    expect(foreign.code).toBe(0);
    expect(foreign.out).toMatch(/^note: .*bert/m);

    const bytes = await readFile(path);
    await writeFile(path, bytes.subarray(0, 5000));
    const cut = await inspect(path);
    expect(cut.code).toBe(1);
    expect(cut.out).toMatch(new RegExp(`^malformed: ${path}: .*cut short`));
    await saveSafetensors(path, pendingTensors(Object.entries(dense)), new Map([["pare.weights", "{"]]));
    expect(await reportOn(path)).toMatchObject({
      code: 1,
      report: { path, problems: [expect.stringContaining("not JSON")] },
    });
    const damaged = join(folder, "model.onnx");
    await writeFile(damaged, bytes.subarray(0, 100));
    expect((await inspect(damaged)).out).toContain(`malformed: ${damaged}: `);
    for (const name of ["model.gguf", "model.bin", "tokenizer.json"]) {
      await writeFile(join(folder, name), "no such thing, but long enough to be one");
      expect((await inspect(join(folder, name))).out).toContain(`malformed: ${join(folder, name)}`);
    }
  });

  it("keeps what a file would do to the terminal from it", async () => {
    const path = join(folder, "odd.safetensors");
    await saveSafetensors(path, pendingTensors([["a\u001b[2Jb", HostTensor.zeros("f32", [2])]]));
    const { code, out } = await inspect(path);
    expect(code).toBe(0);
    expect(out).toContain("a\ufffd[2Jb");
    expect(out).not.toContain("\u001b");
  });

  it("exits with 2 where there is nothing to inspect", async () => {
    await writeFile(join(folder, "notes.txt"), "");
    for (const [path, message] of [
      [join(folder, "none"), "there is no file or folder"],
      [join(folder, "notes.txt"), "cannot tell from its name what"],
      [folder, "has no config.json; is it the folder of a model?"],
    ] as const) {
      const { code, err } = await inspect(path);
      expect(code).toBe(2);
      expect(err).toContain(message);
    }
  });
});
