import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Architecture,
  type AttentionKind,
  architectureChoices,
  architectureConfig,
  architectureName,
  checkArchitecture,
  checkSpace,
  continuePreTraining,
  inherit,
  interleavedTimings,
  LatencyModel,
  meanLoss,
  NoisyProbeError,
  parameterCount,
  promptFlops,
  type SearchOptions,
  type SearchSpace,
  searchArchitectures,
  sessionProbe,
  spreadArchitectures,
  structuredImportance,
  type Trial,
  trialFront,
  trialHypervolume,
} from "../../../src/methods/index.ts";
import { frontPage, openSearchLog } from "../../../src/methods/node.ts";
import { checkWeights } from "../../../src/models/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";
import { tinyModel } from "../../generate/models.ts";

const backbone = tinyModel({ num_hidden_layers: 4, hidden_size: 16, intermediate_size: 24 });
const space: SearchSpace = {
  layers: [2, 3, 4],
  dim: [8, 12, 16],
  ffn: [8, 16, 24],
  attention: ["full", "sliding", "skip"],
  window: 4,
};
const arch = (attention: string, dim = 16, ffn = 24): Architecture => {
  const kinds = { f: "full", w: "sliding", "-": "skip" } as const;
  const list = Array.from(attention, (letter): AttentionKind => kinds[letter as "f"]);
  return { layers: list.length, dim, ffn, attention: list };
};

describe("a space of architectures", () => {
  it("is refused where it is empty, larger than the backbone, or at odds with its heads", () => {
    const check = (changes: Partial<SearchSpace>) => () => checkSpace({ ...space, ...changes }, backbone.config);
    expect(check({})).not.toThrow();
    expect(check({ ffn: [] })).toThrow("the search space is empty: it has no value for ffn");
    expect(check({ attention: [] })).toThrow("the search space is empty: it has no kind of attention");
    expect(check({ layers: [4, 5] })).toThrow("the search space has layers 5, but the backbone has 4; give 1 to 4");
    expect(check({ dim: [10] })).toThrow("dim 10 is not a multiple of the head size 4, which stays as it is");
    expect(check({ attention: ["skip", "sliding"] })).toThrow(
      "no architecture of skip and sliding layers meets the constraint: at least one full-attention layer is required",
    );
    expect(check({ window: 0 })).toThrow("sliding layers need a window of at least one position, not 0");
  });

  it("tells which architectures are in it", () => {
    const check = (x: Architecture) => () => checkArchitecture(x, space);
    expect(check(arch("f--f"))).not.toThrow();
    expect(check(arch("---"))).toThrow("at least one full-attention layer is required");
    expect(check(arch("f-w-"))).toThrow("3 layers in a row are without full attention; at most 2 may be");
    expect(check(arch("ff", 14))).toThrow("dim 14 is not one of 8, 12, 16");
    expect(check({ ...arch("ff"), layers: 3 })).toThrow("3 layers need as many kinds of attention, not 2");
  });

  it("has random ones, neighbours and a spread that keep to the constraints", () => {
    const choices = architectureChoices(space);
    const rng = new Rng(2);
    const seen = new Set<string>();
    for (let i = 0; i < 300; i++) {
      const x = choices.random(rng);
      checkArchitecture(x, space);
      seen.add(x.attention.join());
      for (const y of choices.neighbours(x)) checkArchitecture(y, space);
    }
    expect(seen.size).toBeGreaterThan(30);
    const near = choices.neighbours(arch("ff", 12, 16)).map(architectureName);
    expect(near).toContain("2x8x16 ff");
    expect(near).toContain("2x16x16 ff");
    expect(near).toContain("3x12x16 ff-");
    expect(near).toContain("2x12x16 f-");
    expect(choices.neighbours(arch("f-")).map(architectureName)).toContain("2x16x24 -f");
    const spread = spreadArchitectures(space, 20, new Rng(1));
    expect(new Set(spread.map(architectureName)).size).toBe(20);
    const few = { ...space, layers: [2], dim: [8], ffn: [8], attention: ["full"] as const };
    expect(() => spreadArchitectures(few, 2, new Rng(0))).toThrow(
      "the search space has fewer than 2 architectures; ask for fewer, or give more levels",
    );
  });

  it("counts weights and operations", () => {
    const full = architectureConfig(backbone.config, arch("ffff"), 4);
    expect(parameterCount(full)).toBe(parameterCount(backbone.config));
    const skip = architectureConfig(backbone.config, arch("f-ff"), 4);
    // Queries, outputs, keys, values and the norm of a layer.
    expect(parameterCount(full) - parameterCount(skip)).toBe(2 * 16 * 16 + 2 * 8 * 16 + 16);
    const saved = 2 * ((2 * 16 * 16 + 2 * 8 * 16) * 10 + 2 * 55 * 16);
    expect(promptFlops(full, 10) - promptFlops(skip, 10)).toBe(saved);
    const slides = architectureConfig(backbone.config, arch("fwff"), 4);
    expect(promptFlops(full, 10) - promptFlops(slides, 10)).toBe(2 * 2 * (55 - (1 + 2 + 3 + 4 * 7)) * 16);
  });
});

describe("candidates", () => {
  it("inherit what mattered most, and learn", async () => {
    const windows = HostTensor.zeros("i64", [2, 12]);
    new Rng(1).integers(24, 23).forEach((id, i) => {
      windows.set(i, id);
    });
    const importance = await structuredImportance(backbone, windows);
    const candidate = inherit(backbone, arch("f-", 8, 16), importance, 4);
    checkWeights(candidate.config, candidate.weights);
    expect(candidate.config.window).toEqual([null, 0]);
    const text = Array.from({ length: 400 }, (_, i) => (i * i) % 7);
    const weights = await continuePreTraining(candidate, {
      training: text,
      steps: 12,
      batch: 2,
      length: 12,
      rate: 1e-2,
      seed: 0,
      threads: 1,
    });
    const judge = HostTensor.zeros("i64", [2, 12]);
    for (let i = 0; i < 24; i++) judge.set(i, text[i]!);
    expect(await meanLoss({ ...candidate, weights }, judge)).toBeLessThan(0.8 * (await meanLoss(candidate, judge)));
  });
});

describe("interleavedTimings", () => {
  /** Times that a run gives one after the other, and then the last again and again. */
  const giving =
    (...times: number[]) =>
    async (): Promise<readonly number[]> => [times.length > 1 ? times.shift()! : times[0]!];

  it("takes the lower quartile of runs in turns, behind those that warm up", async () => {
    const order: string[] = [];
    const task = (name: string, times: number[]) => async () => {
      order.push(name);
      return [times.shift()!, 2];
    };
    const found = await interleavedTimings([task("a", [99, 11, 10, 30]), task("b", [99, 20, 20, 40])], {
      warmUps: 1,
      repeats: 3,
    });
    expect(order.join("")).toBe("abababab");
    expect(found.map((timing) => timing!.values)).toEqual([
      [10.5, 2],
      [20, 2],
    ]);
  });

  it("drops runs that gave nothing, and what never gives anything", async () => {
    const said: string[] = [];
    const options = { warmUps: 0, repeats: 3, longest: 50, warn: (line: string) => said.push(line) };
    const found = await interleavedTimings(
      [giving(Number.NaN, 10, 60, 11, 12), giving(Number.NaN), giving(-1)],
      options,
    );
    expect(found[0]).toEqual({ values: [10.5], noise: 2 * (1 - 10 / 10.5), runs: 3 });
    expect(found.slice(1)).toEqual([null, null]);
    expect(said).toEqual(["2 of 3 latencies could not be measured and are left out"]);
  });

  it("makes more runs of what is noisy, and gives up on what stays so", async () => {
    const said: string[] = [];
    const warn = (line: string): void => {
      said.push(line);
    };
    const calm = Array.from({ length: 4 }, () => giving(10));
    const [settled] = await interleavedTimings([giving(8, 12, 16, 8, 8, 20, 20), ...calm], {
      warmUps: 0,
      repeats: 3,
      warn,
    });
    expect(settled!.values).toEqual([8]);
    expect(said).toEqual(["1 of 5 latencies vary by up to 40 % between runs; each is run 6 times"]);
    const wild = () => {
      let n = 0;
      return async () => [n++ === 0 ? 5 : 15];
    };
    said.length = 0;
    const [lost] = await interleavedTimings([wild(), ...calm], { warmUps: 0, repeats: 4, warn });
    expect(lost).toBeNull();
    expect(said.at(-1)).toBe("1 of 5 latencies stay too noisy and are left out");
    const all = interleavedTimings([wild(), wild()], { warmUps: 0, repeats: 4 });
    await expect(all).rejects.toThrow(NoisyProbeError);
    await expect(interleavedTimings([wild(), wild()], { warmUps: 0, repeats: 4 })).rejects.toThrow(
      "the latencies of 2 of 2 architectures vary by up to 133 % between runs, too much to rank them; end other programs, or measure processor time",
    );
    await expect(interleavedTimings([], { repeats: 0 })).rejects.toThrow(
      "repeats must be a whole number from 1, not 0",
    );
  });
});

describe("sessionProbe", () => {
  it("times the prompt and what follows, with a clock of its own", async () => {
    let now = 0;
    const clock = (): number => (now += 6);
    const probe = sessionProbe({
      backbone: backbone.config,
      window: 4,
      promptTokens: 50,
      decodeTokens: 3,
      clock,
      threads: 1,
      warmUps: 1,
      repeats: 3,
    });
    // The clock is read at the start, behind the prompt, and at the end.
    expect(await probe.measure([arch("f-"), arch("wf", 8, 8)])).toEqual(
      [0, 1].map(() => ({ ttftMs: 6, decodeTokS: 500 })),
    );
  });
});

describe("LatencyModel", () => {
  it("predicts latencies that follow from the architecture", async () => {
    const cost = ({ layers, dim, ffn, attention }: Architecture): number =>
      0.5 + layers * dim * ffn * 1e-3 + attention.filter((kind) => kind !== "skip").length * dim * 0.02;
    const sample = (x: Architecture) => ({ architecture: x, ttftMs: cost(x) });
    const model = await LatencyModel.fit(spreadArchitectures(space, 40, new Rng(1)).map(sample), space, new Rng(2));
    expect(model.leaveOneOutR2).toBeGreaterThan(0.95);
    for (const x of spreadArchitectures(space, 6, new Rng(3))) {
      const { meanMs, stdMs } = model.predict(x);
      expect(Math.abs(meanMs / cost(x) - 1)).toBeLessThan(0.15);
      expect(stdMs).toBeGreaterThan(0);
    }
  });
});

describe("searchArchitectures", () => {
  const latency = ({ layers, dim, ffn }: Architecture): number => layers * dim * (ffn + 20);
  const loss = ({ layers, dim, ffn, attention }: Architecture): number =>
    4 - 0.3 * layers - 0.03 * dim - 0.01 * ffn + 0.1 * attention.filter((kind) => kind === "skip").length;
  const reference = { loss: 4, ttftMs: 4 * 16 * 50 };
  const options = (changes: Partial<SearchOptions> = {}): SearchOptions => ({
    space,
    latency,
    evaluate: async (x) => loss(x),
    trials: 14,
    initial: 4,
    batch: 3,
    reference,
    seed: 5,
    ...changes,
  });
  const all = async (changes: Partial<SearchOptions> = {}): Promise<Trial[]> => {
    const trials: Trial[] = [];
    for await (const trial of searchArchitectures(options(changes))) trials.push(trial);
    return trials;
  };
  let whole: Trial[];
  beforeAll(async () => {
    whole = await all();
  });

  it("tries different architectures of the space, and beats random choice", () => {
    expect(whole.map(({ number }) => number)).toEqual(Array.from({ length: 14 }, (_, i) => i + 1));
    expect(new Set(whole.map(({ architecture }) => architectureName(architecture))).size).toBe(14);
    for (const { architecture } of whole) checkArchitecture(architecture, space);
    let random = 0;
    for (let seed = 0; seed < 5; seed++) {
      const rng = new Rng(seed);
      const drawn = Array.from({ length: 14 }, (_, number) => {
        const architecture = architectureChoices(space).random(rng);
        return { number, architecture, loss: loss(architecture), ttftMs: latency(architecture) };
      });
      random += trialHypervolume(drawn, reference) / 5;
    }
    expect(trialHypervolume(whole, reference)).toBeGreaterThan(random);
    const front = trialFront(whole);
    expect(front.map(({ ttftMs }) => ttftMs)).toEqual(front.map(({ ttftMs }) => ttftMs).toSorted((a, b) => a - b));
  });

  it("goes on from earlier trials, also from the middle of a batch, as if it had never stopped", async () => {
    for (const count of [2, 9]) expect(await all({ done: whole.slice(0, count) })).toEqual(whole.slice(count));
  });

  it("keeps to a pool where one is given, and ends when it is used up", async () => {
    const pool = spreadArchitectures(space, 9, new Rng(7));
    const trials = await all({ pool });
    expect(trials.map(({ architecture }) => architectureName(architecture)).toSorted()).toEqual(
      pool.map(architectureName).toSorted(),
    );
  });

  it("says when nothing reaches the reference, and refuses what cannot be meant", async () => {
    const said: string[] = [];
    await all({ trials: 4, reference: { loss: 0.1, ttftMs: 5 }, warn: (line) => said.push(line) });
    expect(said).toEqual([
      "none of the first 4 trials is better than the reference in both (loss 0.100, 5.0 ms), so that their hypervolume is 0; raise it, or give smaller architectures",
    ]);
    await expect(all({ trials: 3 })).rejects.toThrow("a search of 3 trials starts with 2 to 3 of them, not 4");
    const stopped = AbortSignal.abort(new Error("stopped by hand"));
    await expect(all({ signal: stopped })).rejects.toThrow("stopped by hand");
  });

  describe("its log", () => {
    let folder: string;
    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), "pare-search-"));
    });
    afterAll(() => rm(folder, { recursive: true }));

    it("holds what was found, less a line that was cut off", async () => {
      const path = join(folder, "new", "trials.jsonl");
      const log = await openSearchLog(path, { prompt: 8 });
      const latencyLine = { architecture: arch("f-"), latency: { ttftMs: 3, decodeTokS: 4 } };
      await log.append({ latency: latencyLine });
      await log.append({ trial: whole[0]! });
      await writeFile(path, `${await readFile(path, "utf8")}{"trial": {"num`);
      const again = await openSearchLog(path, { prompt: 8 });
      expect(again.latencies).toEqual([latencyLine]);
      expect(again.trials).toEqual([whole[0]]);
      await again.append({ trial: whole[1]! });
      expect((await openSearchLog(path, { prompt: 8 })).trials).toEqual(whole.slice(0, 2));
      await expect(openSearchLog(path, { prompt: 9 })).rejects.toThrow(
        /trials.jsonl is of a search with another "prompt" \(8, now 9\); give the same options/,
      );
      await writeFile(path, '{"settings":{}}\n{"other":1}\n');
      await expect(openSearchLog(path, {})).rejects.toThrow(
        /trials.jsonl:2 is no line of a search; remove the file to start again/,
      );
    });

    it("is drawn with its front", () => {
      const page = frontPage({ title: "a <b> front", trials: whole, backbone: { loss: 1, ttftMs: 9 } });
      expect(page).toContain("a &#60;b&#62; front");
      for (const { architecture } of trialFront(whole)) expect(page).toContain(architectureName(architecture));
    });
  });
});
