import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { compare } from "../../src/cli/commands/compare.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { readModelFolder } from "../../src/formats/node.ts";
import { embeddedModel, saveModel } from "../../src/models/node.ts";
import { Dense, HalfWeight } from "../../src/nn/index.ts";
import type { Report } from "../../src/report/index.ts";
import type { HostTensor } from "../../src/tensor/index.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape } from "./models.ts";

const work = mkdtempSync(join(tmpdir(), "pare-compare-"));
const at = (name: string): string => join(work, name);
afterAll(() => rmSync(work, { recursive: true }));

const json = { model_type: "llama", ...tinyShape, max_position_embeddings: 256 };

beforeAll(async () => {
  const { weights } = tinyModel(json);
  const { tokenizerJson, tokenizerConfig } = await readModelFolder(embeddedModel);
  const tokenizer = Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig });
  const halved = Object.entries(weights).map(([name, w]) => [
    name,
    w instanceof Dense ? new HalfWeight((w.values as HostTensor).cast("f16")) : w,
  ]);
  await saveModel(at("whole"), { json, weights, tokenizer });
  await saveModel(at("half"), { json, weights: Object.fromEntries(halved), tokenizer });
});

function run(models: readonly string[]) {
  const options = { text: undefined, tokens: 600, prompt: "Once", out: at("report"), threads: 1 };
  return compare.run({ args: { models }, options, json: true, signal: new AbortController().signal } as never);
}

describe("pare compare", { timeout: 300_000 }, () => {
  it("measures each model, the others against the first", async () => {
    const { json: result } = await run([at("whole"), at("half")]);
    const { variants, text } = result as Report;
    expect(text).toEqual({ name: "held-out.txt", tokens: 600 });
    expect(variants.map(({ name }) => name)).toEqual([at("whole"), at("half")]);
    const [whole, half] = variants;
    expect(whole!.kl).toBeNull();
    expect(half!.kl!.value).toBeLessThan(1e-3);
    expect(half!.topAgreement!.value).toBeGreaterThan(0.98);
    expect(half!.bytes / whole!.bytes).toBeCloseTo(0.5, 2);
    for (const { speed, perplexity } of variants) {
      expect(speed!.prefill).toBeGreaterThan(0);
      expect(perplexity.low).toBeLessThanOrEqual(perplexity.value);
    }
    expect(readFileSync(join(at("report"), "report.html"), "utf8")).toContain("2 models compared");
    expect(JSON.parse(readFileSync(join(at("report"), "report.json"), "utf8"))).toEqual(
      JSON.parse(JSON.stringify(result)),
    );
  });

  it("refuses a model that is named twice", async () => {
    await expect(run([at("whole"), at("whole")])).rejects.toThrow("a model is named twice");
  });
});
