import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import {
  awqScales,
  clipped,
  compressDecoder,
  foldScales,
  memorySource,
  methodOf,
  planFor,
  prepared,
  procedureOf,
  type Recipe,
  withoutText,
} from "../../../src/methods/index.ts";
import { keptResult } from "../../../src/methods/node.ts";
import { storeWeights } from "../../../src/nn/index.ts";
import { tinyModel } from "../../generate/models.ts";
import { randomWindows } from "./methods.ts";

const model = tinyModel({ hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2 });
const source = memorySource(model);
const windows = randomWindows(model.config.vocab, 4, 12);
const device = { threads: 1 };

/** What a recipe makes of the model. */
async function made(recipe: Recipe) {
  const { preparation, layers, except } = procedureOf(recipe);
  const from = preparation ? await prepared(source, preparation, windows, device) : source;
  const { weights, reports } = await compressDecoder(from, planFor(from.config, { layers, except }), windows, device);
  return { config: from.config, reports, ...storeWeights(weights) };
}

describe("a recipe", () => {
  it("is what its method's paper does, one step after the other: AWQ", async () => {
    const grid = { format: "int3", block: 16, symmetric: false, scales: "f16" } as const;
    const scaled = foldScales(source, await awqScales(source, windows, grid, device));
    const plan = planFor(model.config, { layers: clipped(grid) });
    const { weights } = await compressDecoder(scaled, plan, windows, device);
    const found = await made({ to: "3bit", method: "awq", block: 16 });
    expect({ tensors: found.tensors, description: found.description }).toEqual(storeWeights(weights));
    expect(found.reports[0]!.method).toBe("awq, clipped int3 in blocks of 16, asymmetric, f16");
  });

  it("rounds whole rows, and the inputs token by token: SmoothQuant", async () => {
    const { description } = await made({ to: "8bit", method: "smoothquant" });
    const { kind, attributes, inner } = description["model.layers.1.mlp.up_proj.weight"]!;
    expect([kind, attributes]).toEqual(["rounded-input", { bits: 8 }]);
    expect(inner!.inner!.attributes).toEqual({ format: "int8", block: 32, columns: 32, exact: true });
  });

  it("turns inputs at run time where they are rounded, and nowhere else: QuaRot", async () => {
    const kinds = ({ description }: Awaited<ReturnType<typeof made>>) =>
      ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"].map(
        (name) => description[`model.layers.0.${name}.weight`]!.kind,
      );
    const rounded = await made({ to: "4bit", method: "quarot", block: 16 });
    expect(kinds(rounded)).toEqual(["rounded-input", "transformed", "transformed"]);
    expect(rounded.config.tied).toBe(false);
    const kept = await made({ to: "4bit", method: "quarot", block: 16, activations: "keep", calibrated: false });
    expect(kinds(kept)).toEqual(["blocks", "blocks", "blocks"]);
  });

  it("chooses the best method that there is text for", () => {
    expect(methodOf({ to: "4bit" }).name).toMatch(/^gptq int4 in blocks of 32/);
    expect(methodOf({ to: "4bit", calibrated: false }).name).toMatch(/^nearest int4 in blocks of 32, searched/);
    expect(methodOf({ to: "2:4", calibrated: false }).name).toMatch(/^magnitude/);
    expect(procedureOf({ to: "4bit", method: "quarot", calibrated: false }).layers.name).toMatch(/^quarot, nearest/);
  });

  it.each<[Recipe, string]>([
    [{ to: "4bit", method: "smoothquant" }, "smoothquant makes 8-bit activations and 8-bit weights usable together"],
    [{ to: "8bit", method: "smoothquant", activations: "4bit" }, "smoothquant is for 8-bit activations; quarot"],
    [{ to: "2:4", activations: "8bit" }, "2:4 weights take them as they are"],
    [{ to: "4bit", method: "awq", calibrated: false }, "awq calibrates on text like what the model will read"],
    [{ to: "ternary", method: "awq" }, "ternary does not go with awq, but with gptq, nearest"],
    [{ to: "ternary", asymmetric: true }, "ternary weights are symmetric; leave out the zero points"],
    [{ to: "sparse", keep: 1 }, "the share to keep lies between 0 and 1, not at 1"],
  ])("refuses %o", (recipe, message) => {
    expect(() => procedureOf(recipe)).toThrow(message);
  });

  it("has a twin of the same form that needs no text", () => {
    for (const recipe of [
      { to: "4bit" },
      { to: "8bit", method: "smoothquant" },
      { to: "4bit", method: "quarot" },
      { to: "3bit", method: "awq", block: 16 },
      { to: "2:4" },
    ] as const) {
      const twin = withoutText(recipe);
      expect(procedureOf(twin).layers.calibrated).toBe(false);
      expect(withoutText(twin)).toEqual(twin);
    }
    expect(withoutText({ to: "8bit", method: "smoothquant" })).toMatchObject({ activations: "8bit", block: "channel" });
  });
});

test("a result is kept for the same question, and made anew for another or when its file is damaged", async () => {
  const folder = await mkdtemp(join(tmpdir(), "pare-kept-"));
  const path = join(folder, "in", "kept.json");
  let made = 0;
  const ask = (key: string) => keptResult(path, key, async () => [++made, 0.1 + 0.2]);
  expect(await ask("a")).toEqual([1, 0.30000000000000004]);
  expect(await ask("a")).toEqual([1, 0.30000000000000004]);
  expect(await ask("b")).toEqual([2, 0.30000000000000004]);
  await writeFile(path, '{"key":"b","res');
  expect(await ask("b")).toEqual([3, 0.30000000000000004]);
  await rm(folder, { recursive: true });
});

test("preparing a model stops between two weights", async () => {
  const stop = new AbortController();
  const { preparation } = procedureOf({ to: "4bit", method: "awq", block: 16 });
  const layers: number[] = [];
  const onLayer = (layer: number): void => {
    if (layers.push(layer) === 2) stop.abort(new Error("enough"));
  };
  const work = prepared(source, preparation!, windows, { ...device, signal: stop.signal, onLayer });
  await expect(work).rejects.toThrow("enough");
  expect(layers).toEqual([0, 1]);
});
