import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { embeddedModel } from "../../src/models/node.ts";
import {
  type Check,
  type Finding,
  families,
  reproduce,
  type Setting,
  type System,
  systems,
} from "../../src/reproduce/index.ts";
import { localWorkbench } from "../../src/reproduce/node.ts";
import { blockFor } from "../../src/reproduce/post-training.ts";
import { start } from "../cli/process.ts";
import { tinyModel } from "../generate/models.ts";

const setting: Setting = {
  seed: 3,
  full: false,
  bench: {
    languageModel: () => Promise.reject(new Error("not used")),
    cached: () => Promise.reject(new Error("not used")),
  },
  signal: new AbortController().signal,
  log: () => undefined,
};

function system(...checks: readonly Check[]): System {
  const finding: Finding = { checks, metrics: { loss: 1 }, baseline: { loss: 2 } };
  return {
    name: "Example",
    family: "weights",
    summary: "an example",
    paper: { title: "t", authors: "a", year: 2024, url: "https://example.org" },
    file: "src/index.ts",
    claim: "less",
    bar: "lower loss",
    experiment: async () => finding,
  };
}

const check = (holds: boolean): Check => ({ what: "loss", ours: 1, baseline: 2, holds });

describe("reproduce", () => {
  it("says what the experiment found", async () => {
    const verdict = await reproduce("example", system(check(true)), setting);
    expect(verdict).toMatchObject({
      system: "example",
      claim: "less",
      bar: "lower loss",
      seed: 3,
      full: false,
      metrics: { loss: 1 },
      baseline: { loss: 2 },
      holds: true,
    });
    expect(verdict.seconds).toBeGreaterThanOrEqual(0);
  });

  it("holds only if every check does, and at least one is made", async () => {
    expect((await reproduce("example", system(check(true), check(false)), setting)).holds).toBe(false);
    expect((await reproduce("example", system(), setting)).holds).toBe(false);
  });

  it("gives no verdict on an experiment that was stopped", async () => {
    const stopped = { ...setting, signal: AbortSignal.abort(new Error("stopped")) };
    await expect(reproduce("example", system(check(true)), stopped)).rejects.toThrow("stopped");
  });
});

describe("the registry", () => {
  it.each(Object.keys(systems))("describes %s completely", async (id) => {
    const { name, family, summary, paper, file, claim, bar } = await systems[id]!();
    expect(families).toContain(family);
    for (const text of [name, summary, claim, bar, paper.title, paper.authors]) expect(text.length).toBeGreaterThan(2);
    expect(summary).not.toContain("\n");
    expect(paper.url).toMatch(/^https:\/\//);
    expect(existsSync(file), file).toBe(true);
  });
});

describe("the local workbench", () => {
  it("has a model with text that it was trained on and text that it was not", async () => {
    const { config, training, heldOut } = await localWorkbench().languageModel();
    expect(training.length).toBeGreaterThan(50_000);
    expect(heldOut.length).toBeGreaterThan(40_000);
    expect(Math.max(...heldOut)).toBeLessThan(config.vocab);
    const windows = new Set<string>();
    for (let i = 0; i + 24 <= training.length; i++) windows.add(training.slice(i, i + 24).join());
    const shared = heldOut.filter((_, i) => i % 24 === 0 && windows.has(heldOut.slice(i, i + 24).join()));
    expect(shared).toEqual([]);
  });
});

describe("on another model", () => {
  it("takes the texts that come with pare, or a text of the user's, of which the last tenth is held out", async () => {
    const folder = await mkdtemp(join(tmpdir(), "pare-reproduce-"));
    try {
      const text = join(folder, "text.txt");
      await writeFile(text, "A fox ran.<|endoftext|>A hen sat. ".repeat(50));
      const named = await localWorkbench({ model: embeddedModel, text }).languageModel();
      expect(named.name).toBe("storybook");
      const all = [...named.training, ...named.heldOut];
      expect(named.heldOut.length).toBe(Math.ceil(all.length / 10));
      const bos = named.tokenizer.bosId!;
      const stories = named.tokenizer
        .decode(all, { skipSpecialTokens: false })
        .split(named.tokenizer.decode([bos], { skipSpecialTokens: false }));
      expect(stories.slice(0, 3)).toEqual(["", "A fox ran.", "A hen sat. A fox ran."]);
      expect(all.filter((id) => id === bos).length).toBe(51);
      const missing = localWorkbench({ text: join(folder, "none.txt") }).languageModel();
      await expect(missing).rejects.toThrow(/none.txt cannot be read \(ENOENT\)/);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("blocks are the largest of at most 128 that divide all widths", () => {
    const { config } = tinyModel();
    const widths = (dim: number, ffn: number) => ({ ...config, dim, ffn, heads: 2, headDim: dim / 2 });
    expect(blockFor(widths(256, 640))).toBe(128);
    expect(blockFor(widths(288, 768))).toBe(96);
    expect(blockFor(widths(96, 240))).toBe(48);
    expect(blockFor(widths(64, 172))).toBe("channel");
  });
});

describe("pare reproduce", { timeout: 300_000 }, () => {
  it("names the system that was probably meant", async () => {
    const { code, err } = await start("reproduce", "gptg").ended;
    expect(err).toContain('there is no system "gptg" (did you mean "gptq"?)');
    expect(code).toBe(2);
  });

  it("shows the page of a system, and names the one that was probably meant", async () => {
    const { code, out } = await start("systems", "gptq").ended;
    expect(out).toBe(readFileSync("docs/systems/gptq.md", "utf8"));
    expect(code).toBe(0);
    const shown = await start("systems", "gptq", "--json").ended;
    expect(JSON.parse(shown.out)).toMatchObject({ id: "gptq", name: "GPTQ", file: "src/methods/weights/gptq.ts" });
    const unknown = await start("systems", "gptg").ended;
    expect(unknown.err).toContain('there is no system "gptg" (did you mean "gptq"?); pare systems lists them');
    expect(unknown.code).toBe(2);
  });

  it("lists what there is", async () => {
    const { code, out } = await start("systems", "--json").ended;
    expect((JSON.parse(out) as { id: string }[]).map(({ id }) => id).sort()).toEqual(Object.keys(systems).sort());
    expect(code).toBe(0);
  });

  it("shows that GPTQ loses less than rounding to nearest", async () => {
    const { code, out } = await start("reproduce", "gptq", "--seed", "5", "--json").ended;
    const verdict = JSON.parse(out) as { holds: boolean; checks: Check[] };
    expect(verdict.checks).toHaveLength(3);
    for (const { ours, baseline } of verdict.checks) expect(ours).toBeLessThan(baseline);
    expect([verdict.holds, code]).toEqual([true, 0]);
  });
});
