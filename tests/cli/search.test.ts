import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type SearchJob, searchModel } from "../../src/cli/search/search.ts";
import { spaceFor } from "../../src/cli/search/space.ts";
import { Tokenizer } from "../../src/formats/index.ts";
import { readModelFolder } from "../../src/formats/node.ts";
import type { LatencyProbe } from "../../src/methods/index.ts";
import { embeddedModel, openModel, saveModel } from "../../src/models/node.ts";
import { tinyModel } from "../generate/models.ts";
import { tinyShape } from "./models.ts";

const shape = { ...tinyShape, model_type: "llama", num_hidden_layers: 3, intermediate_size: 32 };
const levels = { layers: undefined, dim: undefined, ffn: undefined, attention: "full,skip", window: 8 };

describe("spaceFor", () => {
  it("reaches from half of the model to all of it, or takes what was named", () => {
    const { config } = tinyModel(shape);
    expect(spaceFor(levels, config)).toEqual({
      layers: [2, 3],
      dim: [8, 16],
      ffn: [16, 32],
      attention: ["full", "skip"],
      window: 8,
    });
    expect(spaceFor({ ...levels, layers: "1,3", dim: "8" }, config)).toMatchObject({ layers: [1, 3], dim: [8] });
    expect(() => spaceFor({ ...levels, ffn: "8,x" }, config)).toThrow(
      '--ffn takes whole numbers with commas between them, not "8,x"',
    );
    expect(() => spaceFor({ ...levels, attention: "full,none" }, config)).toThrow(
      '--attention takes kinds of full, sliding, skip, not "none"',
    );
  });
});

describe("searchModel", () => {
  let folder: string;
  const probe: LatencyProbe = {
    measure: async (all) =>
      all.map(({ layers, dim, ffn }) => ({ ttftMs: (layers * dim * (16 + ffn)) / 100, decodeTokS: 1000 / layers })),
  };
  const job = (changes: Partial<SearchJob> = {}): SearchJob => ({
    backbone: join(folder, "model"),
    space: levels,
    prompt: 8,
    ttftMs: 20,
    samples: 6,
    trials: 4,
    batch: 2,
    training: { steps: 2, finalSteps: 3, batch: 2, length: 16, rate: 1e-3 },
    train: join(folder, "text.txt"),
    text: undefined,
    clock: "wall",
    repeats: 3,
    threads: 1,
    seed: 0,
    out: join(folder, "shapes"),
    signal: new AbortController().signal,
    note: () => undefined,
    probe,
    ...changes,
  });

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "pare-search-"));
    const { weights } = tinyModel(shape);
    const { tokenizerJson, tokenizerConfig } = await readModelFolder(embeddedModel);
    const tokenizer = Tokenizer.fromFiles({ tokenizerJson, tokenizerConfig });
    await saveModel(join(folder, "model"), { json: shape, weights, tokenizer });
    const text = await readFile(join(embeddedModel, "held-out.txt"), "utf8");
    await writeFile(join(folder, "text.txt"), text.slice(0, 24_000));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it("writes the front's models, goes on where it was stopped, and draws what it tried", async () => {
    const stop = new AbortController();
    const said: string[] = [];
    const note = (line: string): void => {
      said.push(line);
      if (line.startsWith("2 of 4")) stop.abort(new Error("enough"));
    };
    expect(await searchModel(job({ signal: stop.signal, note }))).toBeNull();
    expect(said.at(-1)).toMatch(/^stopped; the same command goes on from .*trials.jsonl$/);
    const log = await readFile(join(folder, "shapes", "trials.jsonl"), "utf8");
    expect(log.match(/"trial"/g)).toHaveLength(2);
    const result = await searchModel(job());
    expect(result!.trials).toHaveLength(4);
    expect((await readFile(join(folder, "shapes", "trials.jsonl"), "utf8")).startsWith(log)).toBe(true);
    // The same as without a stop.
    const whole = await searchModel(job({ out: join(folder, "whole") }));
    expect(whole!.trials).toEqual(result!.trials);
    expect(result!.winners.length).toBeGreaterThan(0);
    for (const winner of result!.winners) {
      await using model = await openModel(winner.folder);
      const { layers, dim, ffn } = model.config;
      expect({ layers, dim, ffn }).toEqual({
        layers: winner.architecture.layers,
        dim: winner.architecture.dim,
        ffn: winner.architecture.ffn,
      });
      expect(winner.ttftMs).toBeLessThanOrEqual(20);
    }
    expect(await readFile(join(folder, "shapes", "front.html"), "utf8")).toContain("time to the first token");
  }, 120_000);

  it("refuses another search's log, and a model without a text to train on", async () => {
    await expect(searchModel(job({ prompt: 9 }))).rejects.toThrow(
      /trials.jsonl is of a search with another "prompt" \(8, now 9\)/,
    );
    await expect(searchModel(job({ train: undefined, out: join(folder, "none") }))).rejects.toThrow(
      "candidates are trained on for a while: name a text like the model's own with --train",
    );
    await expect(searchModel(job({ space: { ...levels, layers: "4" }, out: join(folder, "none") }))).rejects.toThrow(
      "the search space has layers 4, but the backbone has 3; give 1 to 3",
    );
  });
});
