import { existsSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CompressJob, compressModel } from "../../src/cli/compress/compress.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { readModelFolder } from "../../src/formats/node.ts";
import { denseValues } from "../../src/methods/index.ts";
import { denseTensors } from "../../src/models/index.ts";
import { embeddedModel, openModel, outlineModel, saveModel } from "../../src/models/node.ts";
import { asWeight, HalfWeight } from "../../src/nn/index.ts";
import type { Report } from "../../src/report/index.ts";
import { HostTensor } from "../../src/tensor/index.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape } from "./models.ts";
import { start } from "./process.ts";

const work = mkdtempSync(join(tmpdir(), "pare-compress-"));
const at = (name: string): string => join(work, name);
afterAll(() => rmSync(work, { recursive: true }));

const shape = {
  ...tinyShape,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  max_position_embeddings: 128,
};

async function saveTiny(
  name: string,
  change: (name: string, tensor: HostTensor) => HostTensor = (_, tensor) => tensor,
): Promise<void> {
  const { weights } = tinyModel(shape);
  const json = { model_type: "llama", ...shape };
  const { tokenizerJson, tokenizerConfig } = await readModelFolder(embeddedModel);
  const changed = Object.fromEntries(Array.from(denseTensors(weights), ([key, tensor]) => [key, change(key, tensor)]));
  await saveModel(at(name), {
    json,
    weights: changed,
    tokenizer: Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig }),
  });
}

beforeAll(async () => {
  await saveTiny("tiny");
  await saveTiny("damaged", (name, tensor) =>
    name === "model.layers.1.mlp.up_proj.weight"
      ? new HostTensor("f32", [64, 32], new Float32Array(64 * 32).fill(Number.NaN))
      : tensor,
  );
  writeFileSync(at("text.txt"), readFileSync(join(embeddedModel, "training-sample.txt"), "utf8").slice(0, 30_000));
  writeFileSync(at("empty.txt"), "");
});

const notes: string[] = [];
let refusals = 0;
function job(out: string, changes: Partial<CompressJob> = {}): CompressJob {
  return {
    model: at("tiny"),
    recipe: { to: "4bit", block: 16 },
    budget: undefined,
    embedding: undefined,
    calibrate: at("text.txt"),
    text: undefined,
    windows: 4,
    length: 64,
    out: at(out),
    formats: ["safetensors"],
    report: false,
    force: false,
    seed: 0,
    threads: 1,
    signal: new AbortController().signal,
    note: (line) => notes.push(line),
    ...changes,
  };
}

/** All numbers of a saved model. */
async function numbersOf(name: string): Promise<Record<string, Uint8Array>> {
  await using model = await openModel(at(name));
  const entries = Object.entries(model.weights).map(async ([key, w]) => {
    const values = w.shape.length === 2 ? await denseValues(asWeight(w)) : (w as HostTensor);
    return [key, values.rawBytes()] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}

describe("compressing", { timeout: 300_000 }, () => {
  it("writes every format, and a report", async () => {
    const result = await compressModel(
      job("all", { formats: ["safetensors", "onnx", "gguf"], report: true, recipe: { to: "4bit", block: 32 } }),
    );
    expect(result!.before / result!.after).toBeGreaterThan(3);
    for (const file of ["model.safetensors", "onnx/model_q4.onnx", "all.gguf", "tokenizer.json", "report.html"])
      expect(existsSync(join(at("all"), file)), file).toBe(true);
    const report = JSON.parse(readFileSync(join(at("all"), "report.json"), "utf8")) as Report;
    expect(report.variants.map(({ name }) => name)).toEqual(["original", "4bit"]);
    const [original, compressed] = report.variants;
    expect(original!.kl).toBeNull();
    expect(compressed!.kl!.value).toBeGreaterThan(0);
    expect(compressed!.speed!.decode).toBeGreaterThan(0);
    expect(compressed!.loadSeconds).toBeGreaterThan(0);
    expect(Object.keys(compressed!.layerErrors)).toHaveLength(16);
    expect(compressed!.bytes).toBe(result!.after);
    expect(report.histograms).toHaveLength(2);
    expect(report.cache!.variant).toBe("4bit");
    expect(report.cache!.bytesPerToken.f32 / report.cache!.bytesPerToken.int8).toBeGreaterThan(2);
    expect(existsSync(`${at("all")}.partial`) || existsSync(`${at("all")}.state`)).toBe(false);
  });

  it("goes on where it was stopped, with the same numbers", async () => {
    await compressModel(job("whole"));
    const stop = new AbortController();
    let matrices = 0;
    const note = (line: string): void => {
      if (/^\d+\/16/.test(line) && ++matrices === 9) stop.abort();
    };
    expect(await compressModel(job("halved", { signal: stop.signal, note }))).toBeNull();
    expect(existsSync(at("halved"))).toBe(false);
    const again: string[] = [];
    await compressModel(job("halved", { note: (line) => again.push(line) }));
    expect(again.filter((line) => /^\d+\/16/.test(line)).length).toBeLessThan(16);
    expect(await numbersOf("halved")).toEqual(await numbersOf("whole"));
  });

  it("refuses to go on with files that have changed, unless told to start over", async () => {
    await saveTiny("edited");
    const stop = new AbortController();
    const note = (line: string): void => {
      if (/^1\/16/.test(line)) stop.abort();
    };
    const changes = { model: at("edited") };
    expect(await compressModel(job("again", { ...changes, signal: stop.signal, note }))).toBeNull();
    const later = new Date(Date.now() + 5000);
    utimesSync(join(at("edited"), "model.safetensors"), later, later);
    await expect(compressModel(job("again", changes))).rejects.toThrow(
      /again\.state: the saved state belongs to another run: the model is another, or its files have changed/,
    );
    expect(await compressModel(job("again", { ...changes, force: true }))).not.toBeNull();
  });

  it.each(["bf16", "f16"] as const)(
    "leaves an embedding in %s in that precision when it is to be kept",
    async (dtype) => {
      await saveTiny("half", (name, tensor) => (name.includes("embed") ? tensor.cast(dtype) : tensor));
      await compressModel(job(`half-${dtype}`, { model: at("half"), embedding: null }));
      const embeddingOf = async (name: string): Promise<HostTensor> => {
        await using model = await outlineModel(at(name));
        const read = await model.stored.get("model.embed_tokens.weight")!.read();
        return read instanceof HalfWeight ? (read.values as HostTensor) : (read as HostTensor);
      };
      const [before, after] = [await embeddingOf("half"), await embeddingOf(`half-${dtype}`)];
      expect(after.dtype).toBe(dtype);
      expect(after.rawBytes()).toEqual(before.rawBytes());
      rmSync(at("half"), { recursive: true });
    },
  );

  it.each(["f16", "bf16"] as const)("makes everything %s", async (to) => {
    const { reports } = (await compressModel(job(`all-${to}`, { recipe: { to }, embedding: to })))!;
    expect(reports.map(({ bitsPerWeight }) => bitsPerWeight)).toEqual(reports.map(() => 16));
    for (const { weightError } of reports) expect(weightError).toBeLessThan(to === "f16" ? 1e-3 : 4e-3);
    await using opened = await openModel(at(`all-${to}`));
    expect(Object.keys(opened.weights)).toHaveLength(21);
  });

  it.each([
    ["2:4", "sparse24", 8 + 1],
    ["sparse", "sparse", 8 + 1],
    ["lowrank", "low-rank", 8],
  ] as const)("keeps numbers of %s weights in half precision where the model's are", async (to, kind, bits) => {
    await saveTiny("bf16", (_, tensor) => (tensor.shape.length === 2 ? tensor.cast("bf16") : tensor));
    const out = `bf16-${kind}`;
    const { reports } = (await compressModel(job(out, { model: at("bf16"), recipe: { to }, force: true })))!;
    const layers = reports.filter(({ name }) => name.includes("_proj"));
    expect(layers.map((report) => report.kind)).toEqual(layers.map(() => kind));
    for (const { name, bitsPerWeight } of layers) expect(bitsPerWeight, name).toBeLessThanOrEqual(bits + 0.05);
    await using opened = await openModel(at(out));
    const weight = await denseValues(asWeight(opened.weights["model.layers.0.mlp.up_proj.weight"]!));
    expect((weight.data as Float32Array).every(Number.isFinite)).toBe(true);
    rmSync(at("bf16"), { recursive: true });
  });

  it("shares out bits under a budget", async () => {
    const bytes = 150_000;
    const mixed = await compressModel(job("mixed", { budget: { bytes }, report: true }));
    expect(mixed!.after).toBeLessThanOrEqual(bytes);
    expect(new Set(mixed!.reports.map(({ method }) => method)).size).toBeGreaterThan(1);
    const { sensitivity, variants } = mixed!.report!;
    expect(sensitivity.map(({ format }) => format)).toEqual(["8bit", "4bit", "3bit", "2bit"]);
    // Each matrix was measured in all forms, and got one.
    const names = mixed!.reports.map(({ name }) => name).sort();
    for (const { increase } of sensitivity) expect(Object.keys(increase).sort()).toEqual(names);
    expect(sensitivity.flatMap(({ chosen }) => chosen).sort()).toEqual(names);
    expect(Object.keys(variants[1]!.layerErrors).sort()).toEqual(names);
    await expect(compressModel(job("none", { budget: { bytes: 1000 } }))).rejects.toThrow(/bytes are too few/);
  });

  it("gives a budget the forms only that all formats hold", async () => {
    const mixed = await compressModel(
      job("shared", { budget: { bytes: 180_000 }, formats: ["gguf"], recipe: { to: "4bit", block: 32 } }),
    );
    const methods = new Set(mixed!.reports.map(({ method }) => /int\d/.exec(method)![0]));
    expect(methods).toEqual(new Set(["int8", "int4"]));
    await using opened = await openModel(join(at("shared"), "shared.gguf"));
    expect(Object.keys(opened.weights)).toHaveLength(21);
  });

  it.each([
    ["awq", "4bit"],
    ["smoothquant", "8bit"],
    ["quarot", "4bit"],
  ] as const)("makes models that open again by %s", async (method, to) => {
    const recipe = { to, method, block: 16 };
    const result = await compressModel(job(method, { recipe, formats: ["safetensors", "onnx"] }));
    expect(result!.reports[0]!.name).toBe("model.embed_tokens.weight");
    expect(result!.reports[1]!.method.startsWith(`${method}, `)).toBe(true);
    await using opened = await openModel(at(method));
    expect(Object.keys(opened.weights)).toHaveLength(21);
    expect(existsSync(join(at(method), "onnx", to === "8bit" ? "model_quantized.onnx" : "model_q4.onnx"))).toBe(true);
  });

  it.each([
    [
      { recipe: { to: "4bit", method: "quarot", block: 32 }, formats: ["gguf"] },
      /gguf cannot hold.*"model\.layers\.0\..*" is represented as rounded-input.*--activations keep leaves/,
    ],
    [
      { recipe: { to: "8bit", method: "smoothquant" }, formats: ["onnx", "compressed-tensors"] },
      /compressed-tensors cannot hold.*rounded-input.*--activations keep/,
    ],
    [{ recipe: { to: "2:4" }, formats: ["gguf"] }, /gguf cannot hold.*is represented as sparse24/],
    [{ recipe: { to: "4bit", block: 48 }, formats: ["compressed-tensors"] }, /packs int4 and int8 into whole blocks/],
    [{ recipe: { to: "4bit" }, embedding: "8bit", formats: ["compressed-tensors"] }, /is a table of blocks/],
    [
      { recipe: { to: "4bit" }, budget: { bytes: 1e6 }, formats: ["compressed-tensors"] },
      /holds matrices of one form only/,
    ],
    [{ recipe: { to: "4bit", method: "awq" }, budget: { bytes: 1e6 } }, /awq readies a model for one form of weights/],
    [
      { recipe: { to: "4bit", block: 16 }, budget: { bytes: 1e6 }, formats: ["gguf"] },
      /int8 blocks of 16, which GGUF has no type for/,
    ],
  ] as const)("says before any work that it cannot write %o", async (changes, message) => {
    notes.length = 0;
    await expect(compressModel(job("unfit", changes as Partial<CompressJob>))).rejects.toThrow(message);
    expect(notes).toEqual([]);
    for (const left of ["unfit", "unfit.partial", "unfit.state"]) expect(existsSync(at(left)), left).toBe(false);
  });

  it.each(["2:4", "sparse", "lowrank", "ternary", "f16"] as const)("makes %s models that open again", async (to) => {
    await compressModel(job(`to-${to.replace(":", "")}`, { recipe: { to, block: 16 } }));
    expect(Object.keys(await numbersOf(`to-${to.replace(":", "")}`))).toHaveLength(21);
  });

  it("leaves what is there alone unless told otherwise", async () => {
    await compressModel(job("kept"));
    const before = readFileSync(join(at("kept"), "model.safetensors"));
    await expect(compressModel(job("kept"))).rejects.toThrow(/kept exists; --force replaces it/);
    const impossible = job("kept", { force: true, recipe: { to: "3bit", block: 16 }, formats: ["gguf"] });
    await expect(compressModel(impossible)).rejects.toThrow(/which GGUF has no type for/);
    expect(readFileSync(join(at("kept"), "model.safetensors"))).toEqual(before);
    // What a run was at that was stopped is not mixed up with another.
    const stop = new AbortController();
    const note = (line: string): void => void (line.startsWith("2/16") && stop.abort());
    expect(await compressModel(job("kept", { force: true, signal: stop.signal, note }))).toBeNull();
    expect(readFileSync(join(at("kept"), "model.safetensors"))).toEqual(before);
    const other = { recipe: { to: "2bit", block: 16 } } as const;
    rmSync(at("kept"), { recursive: true });
    await expect(compressModel(job("kept", other))).rejects.toThrow(
      /kept\.state.parts: the saved state belongs to another run: .*; remove it to start over, or give --force/,
    );
    await compressModel(job("kept", { ...other, force: true }));
    expect(readFileSync(join(at("kept"), "model.safetensors"))).not.toEqual(before);
  });

  it.each([
    [{ calibrate: at("empty.txt") }, "the calibration text is empty"],
    [{ calibrate: at("nowhere.txt") }, /nowhere\.txt cannot be read \(ENOENT\)/],
    [{ model: at("damaged") }, /"model\.layers\.1\.mlp\.up_proj\.weight" holds NaN/],
    [{ calibrate: undefined, recipe: { to: "4bit", method: "gptq" } }, /gptq calibrates on text/],
    [{ calibrate: undefined, budget: { bytes: 1e6 } }, /a budget is shared out by what each matrix costs on text/],
    [{ calibrate: undefined, report: true }, /a report measures on text; give --text/],
    [{ recipe: { to: "2:4", method: "gptq" } }, "2:4 does not go with gptq, but with sparsegpt, wanda, magnitude"],
    [{ recipe: { to: "4bit", method: "smoothquant" } }, /smoothquant makes 8-bit activations and 8-bit weights usable/],
  ] as const)("refuses %o", async (changes, message) => {
    // A folder of its own: of a model that turns out to be damaged, the parts before are kept.
    const out = `refused-${refusals++}`;
    await expect(compressModel(job(out, changes as Partial<CompressJob>))).rejects.toThrow(message);
    expect(existsSync(at(out))).toBe(false);
  });

  it.each([
    [["--method", "gptg"], 'did you mean "gptq"'],
    [["--block", "20"], '--block takes a multiple of 16, or channel, not "20"'],
    [["--size", "60"], '--size takes a size such as 60MB or 1.5GB, not "60"'],
    [["--size", "60MB", "--ppl-increase", "2%"], "give --size or --ppl-increase, not both"],
    [["--format", "ggml"], 'there is no format "ggml"'],
  ])("explains %o", async (words, message) => {
    const { code, err } = await start("compress", ...words).ended;
    expect(err).toContain(message);
    expect(code).toBe(2);
  });
});
