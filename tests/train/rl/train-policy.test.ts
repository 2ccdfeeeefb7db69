import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { decoderLogits, type Weights } from "../../../src/models/index.ts";
import { Dense, LowRank, optim, SumWeight } from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import {
  div,
  flattenTree,
  HostTensor,
  isHostTensor,
  logSoftmax,
  mapTree,
  Rng,
  spec,
} from "../../../src/tensor/index.ts";
import {
  type BatchSource,
  completionMean,
  decoderPolicy,
  type Group,
  groupRelative,
  type LogEntry,
  type Prompt,
  type TrainPolicyOptions,
  trainPolicy,
} from "../../../src/train/index.ts";
import { checkpointFolder } from "../../../src/train/node.ts";
import { tinyModel } from "../../generate/models.ts";
import { always, probabilities, tablePolicy } from "./bandit.ts";

const folders: string[] = [];
const temporary = (): string => {
  folders.push(mkdtempSync(join(tmpdir(), "pare-rl-")));
  return folders.at(-1)!;
};
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

const { config, weights } = tinyModel();

class Prompts implements BatchSource<readonly Prompt[]> {
  #rng = new Rng(2);
  next(): readonly Prompt[] {
    return Array.from({ length: 3 }, (_, i) => ({ ids: this.#rng.integers(2 + i, 20) }));
  }
  state(): unknown {
    return this.#rng.toJSON();
  }
  restore(state: unknown): void {
    this.#rng = Rng.fromJSON(state);
  }
}

/** Small tokens are good, so that every group has a lesson. */
const options = (steps: number): TrainPolicyOptions<Weights, Prompt, unknown> => ({
  policy: decoderPolicy(config, weights),
  prompts: new Prompts(),
  verify: (_prompt, { tokens }) => tokens.reduce((sum, t) => sum + Number(t < 8), 0) / tokens.length,
  samples: 4,
  maxTokens: 5,
  stop: [20],
  steps,
  threads: 1,
  seed: 1,
  optimizer: optim.adamw({ weightDecay: 0.1 }),
  schedule: () => 1e-2,
});

const flat = (tree: unknown): Record<string, HostTensor> => flattenTree(tree, isHostTensor);
const bits = (tree: unknown): string =>
  Object.values(flat(tree))
    .map((t) => Buffer.from(t.rawBytes()).toString("hex"))
    .join("");

describe("trainPolicy", () => {
  it("raises the reward of a decoder, and logs what happens", async () => {
    const seen: number[] = [];
    const evaluated: number[] = [];
    const { log, stopped } = await trainPolicy({
      ...options(40),
      kl: 0,
      measure: (groups) => ({ first: groups[0]!.completions[0]!.tokens.length }),
      onLog: ({ step }) => seen.push(step),
      evaluate: {
        every: 20,
        run: async ({ rollouts, step, params }) => {
          evaluated.push(step);
          expect(Object.keys(params)).toEqual(Object.keys(weights));
          const [group] = await rollouts.sample([{ ids: [1, 2] }], { samples: 8, maxTokens: 3, stop: [] });
          return { small: group!.filter(({ tokens }) => tokens.every((t) => t < 8)).length / 8 };
        },
      },
    });
    expect(stopped).toBe("done");
    const train = log.filter(({ kind }) => kind === "train");
    expect(train.map(({ step }) => step)).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
    expect(train[0]!.values.kl).toBeCloseTo(0, 5);
    expect(train.at(-1)!.values.kl).toBeGreaterThan(0.01);
    expect(train.at(-1)!.values.reward! - train[0]!.values.reward!).toBeGreaterThan(0.3);
    expect(Object.keys(train[0]!.values).sort()).toEqual(
      "clipFraction ended entropy first gradNorm kl length loss rate reward skipped".split(" "),
    );
    expect(evaluated).toEqual([20, 40]);
    expect(log.at(-1)!.values.small).toBeGreaterThan(0.5);
  });

  it("takes the gradient of the objective over the tokens that were drawn, and of nothing else", async () => {
    let groups: readonly Group<Prompt>[] = [];
    const path = "model.layers.1.mlp.down_proj.weight.values";
    const kl = 0.3;
    const temperature = 0.8;
    const { params } = await trainPolicy({
      ...options(1),
      temperature,
      kl,
      weights: completionMean,
      optimizer: optim.sgd(),
      clipNorm: null,
      schedule: () => 1,
      trainable: (p) => p === path,
      accumulate: 5,
      measure: (all) => {
        groups = all;
        return {};
      },
    });
    await using program = await compile(
      (values, ids) => {
        const own = mapTree(weights, isHostTensor, (leaf, p) => (p === path ? values : leaf)) as Weights;
        return logSoftmax(div(decoderLogits(config, own, ids), temperature), -1);
      },
      [flat(weights)[path]!, spec("i64", [1, "seq"])],
      { threads: 1 },
    );
    const start = flat(weights)[path]!;
    const logProbs = async (values: HostTensor, ids: readonly number[]) =>
      program(values, HostTensor.from([ids.map(BigInt)]));
    const drawn = groups.flatMap((group) => {
      const advantages = groupRelative()(group) as number[];
      return group.completions.map((completion, i) => ({
        ...completion,
        ids: group.prompt.ids,
        advantage: advantages[i]!,
      }));
    });
    const reference = await Promise.all(drawn.map(({ ids, tokens }) => logProbs(start, [...ids, ...tokens])));
    const loss = async (values: HostTensor): Promise<number> => {
      let total = 0;
      for (const [n, { ids, tokens, advantage, logProbs: behaviour }] of drawn.entries()) {
        const all = await logProbs(values, [...ids, ...tokens]);
        tokens.forEach((token, i) => {
          const at = (ids.length - 1 + i) * config.vocab + token;
          const ratio = Math.exp(all.at(at) - behaviour[i]!);
          const d = reference[n]!.at(at) - all.at(at);
          const policy = -Math.min(ratio * advantage, Math.min(Math.max(ratio, 0.8), 1.28) * advantage);
          total += (policy + kl * (Math.exp(d) - d - 1)) / (tokens.length * drawn.length);
        });
      }
      return total;
    };
    const step = 2e-3;
    for (const index of [0, 57, 133, 200, 301]) {
      const [above, below] = [start.clone(), start.clone()];
      above.set(index, start.at(index) + step);
      below.set(index, start.at(index) - step);
      const slope = ((await loss(above)) - (await loss(below))) / (2 * step);
      const taken = start.at(index) - flat(params)[path]!.at(index);
      expect(Math.abs(taken - slope)).toBeLessThan(2e-3 * (1 + Math.abs(slope)));
    }
  });

  it("cuts ratios off only where completions are used more than once", async () => {
    const fractions = async (updates: number): Promise<number> => {
      const { log } = await trainPolicy({ ...options(6), updates });
      return log.reduce((sum, { values }) => sum + values.clipFraction!, 0);
    };
    expect(await fractions(1)).toBe(0);
    expect(await fractions(3)).toBeGreaterThan(0);
  });

  it("finds the arm that pays, in each state", async () => {
    const best = [2, 0];
    const { params } = await trainPolicy({
      ...banditOptions(),
      policy: tablePolicy([
        [0, 0, 0],
        [0, 0, 1],
      ]),
      prompts: always([{ ids: [0] }, { ids: [1] }]),
      verify: ({ ids }, { tokens }) => Number(tokens[0] === best[ids[0]!]),
      steps: 80,
      patience: 100,
    });
    const rows = params.table.toArray();
    expect(probabilities(rows.slice(0, 3))[2]).toBeGreaterThan(0.95);
    expect(probabilities(rows.slice(3))[0]).toBeGreaterThan(0.95);
  });

  it("comes to rest where reward and divergence balance", async () => {
    // Where the gradients of E[r] and of the k3 term cancel: p(a) = kl q(a) / (kl + E[r] - r(a)), with q the start.
    const [start, rewards, kl] = [[0.3, -0.2, 0.4], [1, 0.5, 0], 0.5];
    const q = probabilities(start);
    const at = (mean: number): number[] => q.map((x, a) => (kl * x) / (kl + mean - rewards[a]!));
    let [low, high] = [Math.max(...rewards) - kl + 1e-9, Math.max(...rewards)];
    for (let i = 0; i < 100; i++) {
      const middle = (low + high) / 2;
      if (at(middle).reduce((a, b) => a + b, 0) > 1) low = middle;
      else high = middle;
    }
    const optimum = at(low);
    const { params } = await trainPolicy({
      ...banditOptions(),
      policy: tablePolicy([start]),
      prompts: always([{ ids: [0] }]),
      verify: (_prompt, { tokens }) => rewards[tokens[0]!]!,
      advantages: groupRelative({ normalize: false }),
      samples: 512,
      steps: 200,
      kl,
    });
    const found = probabilities(params.table.toArray());
    expect(optimum[0]! - q[0]!).toBeGreaterThan(0.15);
    for (const [a, p] of optimum.entries()) expect(Math.abs(found[a]! - p)).toBeLessThan(0.03);
  });

  it("takes advantages of single tokens", async () => {
    const { log } = await trainPolicy({
      ...options(20),
      // Only a first token below 8 is good; what follows counts nothing.
      advantages: ({ completions }) =>
        completions.map(({ tokens }) => tokens.map((t, i) => (i === 0 ? (t < 8 ? 1 : -1) : 0))),
      measure: (groups) => {
        const first = groups.flatMap((g) => g.completions.map(({ tokens }) => Number(tokens[0]! < 8)));
        return { first: first.reduce((a, b) => a + b, 0) / first.length };
      },
    });
    expect(log.at(-1)!.values.first).toBeGreaterThan(0.8);
  });

  it("draws with weights rounded to bfloat16 and trains the exact ones", async () => {
    const precise = await trainPolicy(options(3));
    const rounded = await trainPolicy({ ...options(3), rolloutPrecision: "bf16" });
    expect(bits(rounded.params)).not.toBe(bits(precise.params));
    const values = flat(rounded.params)["model.layers.0.mlp.up_proj.weight.values"]!;
    expect(values.toArray().every((x) => x === HostTensor.from([x]).cast("bf16").at(0))).toBe(false);
  });

  it("caps the length by step", async () => {
    const { log } = await trainPolicy({ ...options(4), stop: [], maxTokens: (step) => 1 + step });
    expect(log.map(({ values }) => values.length)).toEqual([1, 2, 3, 4]);
  });
});

describe("what is not to change", () => {
  it("are frozen weights under adapters", async () => {
    const rng = new Rng(6);
    const adapted: Weights = Object.fromEntries(
      Object.entries(weights).map(([name, w]) => {
        if (!(w instanceof Dense) || !name.includes("_proj")) return [name, w];
        const [out, width] = w.shape;
        const adapter = new LowRank(
          new Dense(HostTensor.zeros("f32", [out, 2])),
          new Dense(rng.fork(name).normalTensor([2, width], { std: 0.3 })),
        );
        return [name, new SumWeight([{ weight: w }, { weight: adapter, scale: 2 }])];
      }),
    );
    const isAdapter = (path: string) => /\.(up|down)\.values$/.test(path);
    const { params, log } = await trainPolicy({
      ...options(15),
      policy: decoderPolicy(config, adapted),
      trainable: isAdapter,
      schedule: () => 3e-2,
    });
    const [before, after] = [flat(adapted), flat(params)];
    for (const [path, t] of Object.entries(before)) expect(bits(after[path]) === bits(t)).toBe(!isAdapter(path));
    expect(log.at(-1)!.values.reward! - log[0]!.values.reward!).toBeGreaterThan(0.1);
  });

  it("are masked entries, weight decay or not", async () => {
    const path = "model.layers.0.mlp.up_proj.weight.values";
    const before = flat(weights)[path]!;
    const rng = new Rng(8);
    const mask = HostTensor.zeros("bool", before.shape);
    for (let i = 0; i < mask.size; i++) mask.set(i, rng.integer(2));
    const { params } = await trainPolicy({ ...options(2), masks: { [path]: mask } });
    const after = flat(params)[path]!;
    for (let i = 0; i < mask.size; i++) expect(after.at(i) === before.at(i)).toBe(mask.at(i) === 0);
    const whole = "model.layers.0.mlp.down_proj.weight.values";
    expect(
      flat(params)
        [whole]!.toArray()
        .some((x, i) => x === flat(weights)[whole]!.at(i)),
    ).toBe(false);
  });

  it("is anything in a step without a lesson", async () => {
    const same = await trainPolicy({ ...options(3), verify: () => 0.1 });
    expect(bits(same.params)).toBe(bits(weights));
    expect(same.log.map(({ values }) => values.skipped)).toEqual([1, 1, 1]);
  });
});

describe("a stopped run", () => {
  it("goes on with the very same bits", async () => {
    const reference = await trainPolicy({ ...options(7), kl: 0.1, updates: 2 });
    const store = checkpointFolder(temporary());
    const stop = new AbortController();
    const first = await trainPolicy({
      ...options(7),
      kl: 0.1,
      updates: 2,
      checkpoint: { every: 2, store },
      signal: stop.signal,
      onLog: ({ step }) => step === 3 && stop.abort(),
    });
    expect([first.step, first.stopped]).toEqual([3, "aborted"]);
    const rest = await trainPolicy({ ...options(7), kl: 0.1, updates: 2, checkpoint: { every: 2, store } });
    expect(rest.log.map(({ step }) => step)).toEqual([4, 5, 6, 7]);
    expect(bits(rest.params)).toBe(bits(reference.params));
    const numbers = (log: readonly LogEntry[]) => log.map(({ values }) => values);
    expect([...numbers(first.log), ...numbers(rest.log)]).toEqual(numbers(reference.log));
  });

  it("may be stopped while it draws", async () => {
    const stop = new AbortController();
    const prompts = new Prompts();
    const before = JSON.stringify(prompts.state());
    const run = trainPolicy({
      ...options(5),
      prompts: {
        next: () => {
          stop.abort();
          return prompts.next();
        },
        state: () => prompts.state(),
        restore: (state) => prompts.restore(state),
      },
      signal: stop.signal,
    });
    expect(await run).toMatchObject({ step: 0, stopped: "aborted" });
    expect(JSON.stringify(prompts.state())).toBe(before);
  });

  it("ends early, with what was learnt, where every completion is as good as can be", async () => {
    const { step, stopped, params, log } = await trainPolicy({
      ...banditOptions(),
      policy: tablePolicy([[3, 0, 0]]),
      prompts: always([{ ids: [0] }]),
      verify: (_, { tokens }) => Number(tokens[0] === 0),
      steps: 2000,
      patience: 4,
      solved: 1,
    });
    expect(stopped).toBe("early");
    expect(step).toBeLessThan(2000);
    expect(log.slice(-4).every(({ values }) => values["reward"] === 1)).toBe(true);
    expect(probabilities(params.table.toArray())[0]).toBeGreaterThan(0.8);
  });
});

describe("bad input", () => {
  it.each([
    [{ steps: 0 }, "steps must be a whole number from 1, not 0"],
    [{ updates: 0.5 }, "updates must be a whole number from 1, not 0.5"],
    [{ patience: 0 }, "patience must be a whole number from 1, not 0"],
    [
      { samples: 1 },
      "samples must be a whole number from 2, not 1: completions are compared with others of the same prompt",
    ],
    [{ temperature: 0 }, "temperature must be a number above 0, not 0"],
    [{ kl: -1 }, "kl must be a finite number from 0, not -1"],
    [{ trainable: () => false }, "no floating-point parameter is to be trained"],
    [
      { verify: (): number => Number.NaN },
      "the verifier gave sample 0 of prompt 0 in step 1 the reward NaN; rewards must be finite numbers",
    ],
    [
      { masks: { "lm_head.weight.values": HostTensor.zeros("bool", [3]) } },
      'the mask of "lm_head.weight.values" is bool [3]; it must be bool [23, 16]',
    ],
    [
      { masks: { other: HostTensor.zeros("bool", [3]) } },
      'there is a mask for "other", which is not among the parameters',
    ],
    [
      { verify: (): number => 0, patience: 3, steps: 20 },
      "no learning signal: for 3 steps in a row all completions of each prompt earned the same (the last were all 0); take prompts that are solved now and then, raise the temperature, or draw more samples",
    ],
    [{ schedule: () => Number.NaN }, "the model gave token 0 the score NaN; its weights are damaged or overflow"],
    [
      { objective: ({ logProbs }: { logProbs: never }) => ({ loss: div(logProbs, 0) }) },
      /training diverged in step 1: the loss is (NaN|-?Infinity) and the norm of its gradient .*; no checkpoint was made; lower the learning rate or the temperature/,
    ],
  ])("is refused (%#)", async (change, message) => {
    await expect(trainPolicy({ ...options(2), ...(change as object) })).rejects.toThrow(message as string);
  });
});

function banditOptions() {
  return {
    samples: 16,
    maxTokens: 1,
    stop: [],
    threads: 1,
    optimizer: optim.adamw({ weightDecay: 0 }),
    schedule: () => 0.1,
  };
}
