import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { checkAgreement, runDecode } from "../../bench/decode/decode.ts";
import type { Engine } from "../../bench/decode/engine.ts";
import { type DecodeResult, summarize, table } from "../../bench/decode/figures.ts";
import { modelFolder } from "../../bench/decode/files.ts";
import { Ours } from "../../bench/decode/ours.ts";
import type { Measured } from "../../bench/harness.ts";
import { LlamaCpp } from "../../bench/peers/llama-cpp.ts";
import { TransformersJs } from "../../bench/peers/transformers-js.ts";

let work: string;
beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), "pare-bench-"));
});
afterAll(async () => {
  await rm(work, { recursive: true });
});

const quiet = (): void => {};

/** Of a made-up work: steps of 1 and 3 seconds. */
const measured = (value: number, weightBytes: number): Measured => ({
  setupSeconds: 4,
  setupPeakBytes: 2 ** 21,
  stepSeconds: [value, 3 * value, 2 * value],
  cpuSeconds: [4 * value],
  values: [7, 7, 7, 7, 7],
  peakBytes: 2 ** 20,
  figures: { weightBytes },
});

const works = (decodeSeconds: number, weightBytes = 2 ** 20) => ({
  prefill: measured(256, weightBytes),
  decode32: measured(4, weightBytes),
  decode512: measured(decodeSeconds, weightBytes),
});

const example = {
  bits4: {
    pare: works(8),
    "llama.cpp": works(16, 2 ** 21),
    "transformers.js": works(24),
    bandwidth: { step: measured(64, 0) },
  },
};

describe("figures of decoding", () => {
  const result = summarize(example, { shape: "tiny", threads: 3, load: [1, 2, 3] });

  test("are medians, and shares of what reading the weights takes", () => {
    expect(result.bandwidth).toEqual({ bits4: 2 ** 20 });
    expect(result.ours.bits4).toEqual({
      prefill: { tokensPerSecond: 1, bestTokensPerSecond: 2, cpuSecondsPerToken: 2 },
      decode: {
        32: { tokensPerSecond: 2, bestTokensPerSecond: 4, cpuSecondsPerToken: 1, shareOfBound: 2 },
        512: { tokensPerSecond: 1, bestTokensPerSecond: 2, cpuSecondsPerToken: 2, shareOfBound: 1 },
      },
      loadSeconds: 4,
      loadPeakBytes: 2 ** 21,
      peakBytes: 2 ** 20,
      weightBytes: 2 ** 20,
    });
    expect(result.peers.llamaCpp.bits4!.decode[512]!.shareOfBound).toBe(1);
  });

  test("are compared to each peer's", () => {
    expect(result.ratios).toEqual({ llamaCpp: { bits4: 2 }, transformersJs: { bits4: 3 } });
    expect(result.furtherRatios.prefill).toEqual({ llamaCpp: { bits4: 1 }, transformersJs: { bits4: 1 } });
    expect(result.furtherRatios.cpu).toEqual({ llamaCpp: { bits4: 2 }, transformersJs: { bits4: 3 } });
  });

  test("are printed as a table", () => {
    expect(table(result)).toContain(
      "| 4 | `llama.cpp` | 1.0 | 2.0 | 0.5 | 1.0 | 100% | 4000.0 ms | 4.0 s | 2 MiB | 1 MiB |",
    );
    expect(table(result)).toContain("| decode512 | 2.00 | 3.00 |");
  });

  test("are refused where an engine chooses other tokens", () => {
    expect(() => checkAgreement(example.bits4)).not.toThrow();
    const other = { ...works(8), decode32: { ...measured(1, 0), values: [7, 7, 8] } };
    expect(() => checkAgreement({ ...example.bits4, "transformers.js": other })).toThrow(
      "decode32: transformers.js chooses token 8 where 7 is expected",
    );
  });
});

test("a shape or a number of bits that there is not", async () => {
  const run = (options: { shape: string; bits: string }) =>
    runDecode({ ...options, rounds: 1, threads: 1, work, log: quiet });
  await expect(run({ shape: "large", bits: "4" })).rejects.toThrow('there is no shape "large"; there are tiny, 100m');
  await expect(run({ shape: "tiny", bits: "4,5" })).rejects.toThrow("--bits takes 32, 8, 4 and 2, separated by commas");
});

describe("three engines on one model", () => {
  /** What an engine chooses behind two prompts; each is gone on from twice. */
  async function choices(engine: Engine): Promise<number[][]> {
    await engine.open();
    const chosen: number[][] = [];
    for (const length of [5, 40]) {
      const first = await engine.read(Array.from({ length }, (_, i) => 3 + ((i * i) % 250)));
      for (let i = 0; i < 2; i++) chosen.push([first, ...(await engine.decode(first, 7))]);
    }
    await engine.close();
    return chosen;
  }

  test("choose the same tokens at f32", async () => {
    const model = { folder: await modelFolder(work, "tiny", ["f32"], quiet), precision: "f32" } as const;
    const mine = await choices(new Ours(model, 1));
    expect(mine[1]).toEqual(mine[0]);
    expect(mine[3]).toEqual(mine[2]);
    expect(await choices(new LlamaCpp(model, 1))).toEqual(mine);
    expect(await choices(new TransformersJs(model, 1))).toEqual(mine);
  }, 120_000);

  test("are measured in one run", async () => {
    const { result, text } = await runDecode({
      shape: "tiny",
      bits: "4",
      rounds: 1,
      threads: 1,
      seconds: 0.01,
      work,
      log: quiet,
    });
    const { name, load, ours, peers, ratios } = JSON.parse(JSON.stringify(result)) as DecodeResult;
    expect(name).toBe("decode");
    expect(load).toHaveLength(3);
    for (const engine of [ours, peers.llamaCpp, peers.transformersJs]) {
      expect(Object.keys(engine)).toEqual(["bits4"]);
      for (const figures of Object.values(engine)) {
        expect(figures.prefill.tokensPerSecond).toBeGreaterThan(0);
        for (const length of [32, 512]) expect(figures.decode[length]!.shareOfBound).toBeGreaterThan(0);
        expect(figures.loadSeconds).toBeGreaterThan(0);
        expect(figures.weightBytes).toBeGreaterThan(0);
      }
    }
    for (const of of Object.values(ratios)) expect(Object.keys(of)).toEqual(["bits4"]);
    expect(text).toMatch(/^\| 4 \| `llama\.cpp` \|/m);
  }, 300_000);
});
