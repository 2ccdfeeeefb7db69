import { appendFile, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  disagreementsOf,
  dropOf,
  type ItemResult,
  type KickItem,
  type KickModel,
  type KickOptions,
  type KickRow,
  type KickTask,
  kick,
  kickCompressors,
  maxMatchingOf,
  settingName,
  uniqueTokens,
} from "../../../src/evaluate/index.ts";
import { openKickStore } from "../../../src/evaluate/node.ts";
import { Rng } from "../../../src/tensor/index.ts";
import { embeddedTokenizer, tinyTextModel } from "../scorers.ts";

let model: KickModel;
let options: KickOptions;
let folder: string;
const { magnitude, wanda, sparsegpt, nearest, gptq } = kickCompressors();

beforeAll(async () => {
  const tokenizer = await embeddedTokenizer();
  model = { ...tinyTextModel(tokenizer), tokenizer };
  folder = await mkdtemp(join(tmpdir(), "pare-kick-"));
  const tokens = new Rng(1).integers(1000, tokenizer.vocabSize);
  options = {
    threads: 1,
    runs: 2,
    tasks: [told({ dense: 0.8 })],
    compressors: [{ compressor: magnitude!, grid: [{ sparsity: 0.5 }] }],
    calibration: { tokens, count: 4, length: 16 },
    text: { tokens: tokens.slice(0, 100), window: 16 },
  };
});
afterAll(() => rm(folder, { recursive: true }));

const items: KickItem[] = Array.from({ length: 120 }, (_, i) => ({ id: `${i}`, question: "Once upon", answers: [] }));

/** A task whose results are told by how many models it has seen: the share of items with a value of 1. */
function told(shares: Readonly<Record<string, number>>): KickTask & { models: number } {
  const list = Object.values(shares);
  const seen = new Set<unknown>();
  return {
    name: "told",
    metrics: ["told"],
    items,
    settings: null,
    get models() {
      return seen.size;
    },
    async run(reader, asked): Promise<ItemResult[]> {
      seen.add(reader);
      const share = list[Math.min(seen.size, list.length) - 1]!;
      return asked.map(({ id }) => ({ values: { told: Number(Number(id) < 120 * share) }, output: "" }));
    },
  };
}

describe("an audit", () => {
  test("measures what compression really did, and what was lost", async () => {
    const task = told({ dense: 0.8, half: 0.8, most: 0.4, bits: 0.77 });
    const { dense, rows, maxMatching, warnings } = await kick(model, {
      ...options,
      tasks: [task],
      compressors: [
        { compressor: magnitude!, grid: [{ sparsity: 0.5 }, { sparsity: 0.9 }] },
        { compressor: nearest!, grid: [{ bits: 4 }] },
      ],
    });
    expect(dense.scores["told"]).toMatchObject({ value: 0.8, items: 120, excluded: 0 });
    expect(rows.map(({ method, scores: { told: score } }) => [method, score!.mean, score!.matching])).toEqual([
      ["magnitude", 0.8, true],
      ["magnitude", 0.4, false],
      // 92 of 120 right: 4.2 % less than 96.
      ["nearest", expect.closeTo(93 / 120), true],
    ]);
    expect(rows[1]!.scores["told"]!.drop).toBeCloseTo(0.5);
    expect(rows.map(({ achievedSparsity }) => achievedSparsity)).toEqual([
      expect.closeTo(0.5, 2),
      expect.closeTo(0.9, 2),
      expect.any(Number),
    ]);
    expect(rows[2]!.bitsPerWeight).toBeGreaterThan(4);
    expect(rows[2]!.bitsPerWeight).toBeLessThan(8);
    expect(rows[1]!.perplexityRise).toBeCloseTo(rows[1]!.perplexity / dense.perplexity - 1);
    expect(maxMatching).toEqual({ magnitude: { told: 0.5 } });
    expect(warnings).toEqual([]);
  });

  test("runs calibrated methods once for each seed, with other text each time", async () => {
    const task = told({ dense: 1, first: 1, second: 0.5 });
    const { rows } = await kick(model, {
      ...options,
      tasks: [task],
      compressors: [{ compressor: wanda!, grid: [{ sparsity: 0.6 }] }],
    });
    expect(task.models).toBe(3);
    expect(rows[0]!.runs).toBe(2);
    expect(rows[0]!.perplexityStd).toBeGreaterThan(0);
    expect(rows[0]!.scores["told"]).toMatchObject({ mean: 0.75, drop: 0.25 });
    expect(rows[0]!.scores["told"]!.std).toBeCloseTo(0.5 / Math.SQRT2);
  });

  test("goes on where it was stopped, with the same result", async () => {
    const audit = { ...options, tasks: [uniqueTokens(items.slice(0, 70), { maxTokens: 2 })] };
    const whole = await kick(model, audit);
    const stopped = new AbortController();
    const first = await openKickStore(folder, { of: "stopped" });
    let left = 4;
    const counted = {
      ...first,
      put: async (key: string, value: unknown) => {
        await first.put(key, value);
        if (--left === 0) stopped.abort(new Error("enough"));
      },
    };
    await expect(kick(model, { ...audit, store: counted, signal: stopped.signal })).rejects.toThrow("enough");
    await appendFile(first.path, '{"part":"cut of');
    const second = await openKickStore(folder, { of: "stopped" });
    const lines = (await readFile(second.path, "utf8")).trim().split("\n");
    expect(lines).toHaveLength(5);
    const made: string[] = [];
    const put = async (key: string, value: unknown): Promise<void> => {
      made.push(key);
      await second.put(key, value);
    };
    expect(await kick(model, { ...audit, store: { ...second, put } })).toEqual(whole);
    expect(made).not.toContain("dense, perplexity");
    expect(made).toHaveLength(3);
    const third = await openKickStore(folder, { of: "other settings" });
    expect(third.get("dense, perplexity")).toBeUndefined();
  });

  test("refuses a damaged store", async () => {
    const store = await openKickStore(folder, { of: "damage" });
    await appendFile(store.path, '{"no":"part"}\n');
    await expect(openKickStore(folder, { of: "damage" })).rejects.toThrow(/:2 is no part of an audit; remove the file/);
  });

  test("gives no drop where the dense model scores 0, and does not call that matching", async () => {
    const { rows, maxMatching } = await kick(model, { ...options, tasks: [told({ dense: 0 })] });
    expect(rows[0]!.scores["told"]).toMatchObject({ mean: 0, drop: null, matching: false });
    expect(maxMatching).toEqual({ magnitude: { told: null } });
    expect(dropOf(0, 0)).toBeNull();
  });

  test("warns of few items", async () => {
    const { warnings, dense } = await kick(model, { ...options, limit: 5 });
    expect(warnings).toEqual(["told: 5 items say little; see how wide the intervals are"]);
    expect(dense.scores["told"]!.low).not.toBeNull();
  });

  test("warns where there are fewer calibration tokens than inputs", async () => {
    const { warnings } = await kick(model, {
      ...options,
      runs: 1,
      calibration: { ...options.calibration, count: 1, length: 4 },
      compressors: [{ compressor: sparsegpt!, grid: [{ sparsity: 0.5 }] }],
    });
    expect(warnings).toEqual([
      expect.stringMatching(/^sparsegpt 50 %: 4 calibration tokens are fewer than the \d+ inputs of a matrix/),
    ]);
  });

  test("refuses what cannot be, before anything is measured", async () => {
    const refused = async (changed: Partial<KickOptions>, message: string | RegExp): Promise<void> => {
      const task = told({ dense: 1 });
      await expect(kick(model, { ...options, tasks: [task], ...changed })).rejects.toThrow(message);
      expect(task.models).toBe(0);
    };
    const grid = (compressor = magnitude!, ...settings: Parameters<typeof compressor.method>) => ({
      compressors: [{ compressor, grid: settings }],
    });
    for (const sparsity of [-0.1, 1, Number.NaN])
      await refused(grid(wanda, { sparsity }), `wanda: sparsity must be from 0 to below 1, not ${sparsity}`);
    await refused(
      grid(magnitude, { sparsity: 0.4, pattern: "2:4" }),
      "magnitude: 2:4 drops 0.5 of the weights, so that its sparsity cannot be 0.4",
    );
    await refused(
      grid(magnitude, { pattern: "4:4" }),
      'magnitude: a pattern keeps some of a group, such as 2:4, not "4:4"',
    );
    await refused(grid(magnitude, {}), "magnitude takes a sparsity or a pattern such as 2:4");
    await refused(grid(magnitude, { bits: 4 }), "magnitude drops weights and has no bits");
    await refused(grid(gptq, { bits: 6 }), 'gptq rounds to 8, 4, 3, 2 bits, not to {"bits":6}');
    await refused(grid(magnitude, { pattern: "3:7" }), /have \d+ entries, which do not divide into groups of 7/);
    await refused({ eps: 1 }, "eps must be from 0 to below 1, not 1");
    await refused({ runs: 0 }, "runs must be a whole number from 1, not 0");
    await refused({ tasks: [] }, "an audit takes at least one task");
    await refused({ tasks: [{ ...told({}), judged: true }] }, "the task told takes a judge; name one, or leave it out");
  });

  test("takes a pattern with the sparsity that it has", () => {
    expect(magnitude!.method({ sparsity: 0.5, pattern: "2:4" }).name).toBe("magnitude 2:4");
    expect(sparsegpt!.method({ pattern: "1:2" }).name).toContain("1:2");
    expect(settingName({ pattern: "4:8" })).toBe("4:8");
    expect(settingName({ sparsity: 0.35 })).toBe("35 %");
    expect(settingName({ bits: 3 })).toBe("3 bits");
  });
});

function row(method: string, sparsity: number, perplexity: number, mean: number, matching: boolean): KickRow {
  const score = { mean, std: 0, ci95: [mean - 0.1, mean + 0.1] as const, drop: 0, matching, excluded: 0, groups: {} };
  return {
    method,
    setting: { sparsity },
    achievedSparsity: sparsity,
    bitsPerWeight: 32,
    perplexity,
    perplexityStd: 0,
    perplexityRise: 0,
    runs: 1,
    scores: { t: score },
  };
}

describe("a report", () => {
  test("names the largest sparsity up to which a method always matches", () => {
    const rows = [
      row("a", 0.3, 1, 1, true),
      row("a", 0.1, 1, 1, true),
      row("a", 0.2, 1, 1, true),
      row("a", 0.5, 1, 1, true),
      row("a", 0.4, 1, 1, false),
      row("b", 0.1, 1, 1, false),
      row("b", 0.2, 1, 1, true),
    ];
    expect(maxMatchingOf(rows)).toEqual({ a: { t: 0.3 }, b: { t: null } });
  });

  test("says where a task ranks two methods otherwise than perplexity, beyond doubt", () => {
    const rows = [row("a", 0.1, 10, 0.3, true), row("b", 0.1, 11, 0.6, true), row("c", 0.1, 12, 0.45, true)];
    expect(disagreementsOf(rows)).toEqual([{ score: "t", perplexity: 0, better: 1 }]);
  });
});
