import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import {
  aprox,
  fista,
  levelsOf,
  type ParqOptions,
  packQuantized,
  parq,
  piecewiseAffine,
  proxSgd,
  type QuantGroup,
} from "../../../../src/methods/index.ts";
import { BlockWeight, type CodebookWeight, Dense, meanSquaredError, optim } from "../../../../src/nn/index.ts";
import { nodesOf } from "../../../../src/onnx/index.ts";
import { compile, compileLoop } from "../../../../src/runtime/index.ts";
import { grad, HostTensor, mul, Rng, square, sub, sum, type Tensor } from "../../../../src/tensor/index.ts";
import { type BatchSource, type TrainOptions, train } from "../../../../src/train/index.ts";
import { checkpointFolder } from "../../../../src/train/node.ts";
import { evaluate } from "../../../nn/weights/support.ts";
import { expectClose } from "../../../support/numbers.ts";

interface Batch<T = HostTensor> {
  readonly x: T;
  readonly y: T;
}

/** Inputs with the outputs of a fixed matrix. */
class Regression implements BatchSource<Batch> {
  #rng = new Rng(3);
  next(): Batch {
    const x = this.#rng.normalTensor([16, 32]);
    const target = new Rng(11).normalTensor([8, 32]);
    const y = HostTensor.zeros("f32", [16, 8]);
    for (let i = 0; i < 16; i++)
      for (let o = 0; o < 8; o++)
        y.set(
          8 * i + o,
          Array.from({ length: 32 }, (_, k) => x.at(32 * i + k) * target.at(32 * o + k)).reduce((a, b) => a + b),
        );
    return { x, y };
  }
  state(): unknown {
    return this.#rng.toJSON();
  }
  restore(state: unknown): void {
    this.#rng = Rng.fromJSON(state);
  }
}

type Params = { w: Dense; bias: HostTensor };
const start = (): Params => ({
  w: new Dense(new Rng(5).normalTensor([8, 32], { std: 0.2 })),
  bias: HostTensor.zeros("f32", [8]),
});
const matrix: QuantGroup = { match: (name) => name === "w.values", bits: 2 };

function options(
  steps: number,
  groups: QuantGroup[] = [matrix],
  o: Partial<ParqOptions> = {},
  inner = optim.adamw({ weightDecay: 0 }),
): TrainOptions<Params, Batch> {
  return {
    params: start(),
    data: new Regression(),
    steps,
    threads: 1,
    loss: (p, { x, y }) => meanSquaredError(sub(p.w.apply(x), mul(p.bias as unknown as Tensor, -1)), y),
    optimizer: parq(inner, groups, { annealEnd: 60, quantPeriod: 5, ...o }),
    schedule: optim.constantRate(0.02),
  };
}

const distinct = (values: readonly number[]): number => new Set(values).size;
const rowsOf = (w: HostTensor): number[][] =>
  Array.from({ length: 8 }, (_, r) => w.toArray().slice(32 * r, 32 * r + 32));
const trained = (p: Params): HostTensor => p.w.values as HostTensor;

describe("training with PARQ", () => {
  it.each([0, 1, 2, 3] as const)("ends with at most the levels of %d bits in each row, and learns", async (bits) => {
    const { params, log } = await train(options(80, [{ ...matrix, bits }]));
    for (const row of rowsOf(trained(params))) expect(distinct(row)).toBeLessThanOrEqual(bits === 0 ? 3 : 2 ** bits);
    expect(distinct((params.bias as HostTensor).toArray())).toBe(8);
    expect(log.at(-1)!.values.loss).toBeLessThan(0.8 * log[0]!.values.loss!);
  });

  it("does not quantize before it is hard, nor during the warm-up", async () => {
    const early = await train(options(20));
    for (const row of rowsOf(trained(early.params))) expect(distinct(row)).toBeGreaterThan(8);
    const plain = await train({ ...options(4), optimizer: optim.adamw({ weightDecay: 0 }) });
    const warm = await train(options(4, [matrix], { warmUp: 4, prox: "hard" }));
    expect(trained(warm.params).toArray()).toEqual(trained(plain.params).toArray());
    const after = await train(options(5, [matrix], { warmUp: 4, prox: "hard" }));
    for (const row of rowsOf(trained(after.params))) expect(distinct(row)).toBeLessThanOrEqual(4);
  });

  it("shares levels over the tensor, a row or a block of it", async () => {
    const per = async (per: QuantGroup["per"]) =>
      trained((await train(options(6, [{ ...matrix, bits: 1, per: per! }], { prox: "hard" }))).params).toArray();
    expect(distinct(await per("tensor"))).toBe(2);
    const rows = await per("channel");
    expect(distinct(rows)).toBe(16);
    const blocks = await per(8);
    for (let b = 0; b < 32; b++) expect(distinct(blocks.slice(8 * b, 8 * b + 8))).toBeLessThanOrEqual(2);
    expect(distinct(blocks)).toBeGreaterThan(16);
  });

  it("searches for levels every quantPeriod steps only, in the latent weights", async () => {
    const rule = parq(optim.sgd(), [{ match: () => true, bits: 1, per: "tensor" }], {
      annealEnd: 2,
      prox: "hard",
      quantPeriod: 3,
    });
    const w = { w: HostTensor.from([1, 3]) };
    await using loop = await compileLoop(
      (s, g, r) => {
        const next = rule.update({ w: g }, s.state as never, s.params as never, r);
        return { state: { params: next.params, state: next.state }, result: r };
      },
      { params: w, state: rule.init(w) },
      [HostTensor.from([0, 0]), HostTensor.from(1)],
      { threads: 1 },
    );
    const step = async (...g: number[]): Promise<number[]> => {
      await loop.run(HostTensor.from(g), HostTensor.from(1));
      return ((await loop.state()).params as typeof w).w.toArray();
    };
    expect(await step(-1, -1)).toEqual([3, 3]);
    expect(await step(-2, -2)).toEqual([3, 3]);
    expect(await step(9, 0)).toEqual([-3, 3]);
    // Latent weights are now -5 and 6: their mean magnitude is the new level.
    expect(await step(0, 0)).toEqual([-5.5, 5.5]);
    const state = (await loop.state()).state as unknown as { latent: typeof w };
    expect(state.latent.w.toArray()).toEqual([-5, 6]);
  });

  it("sorts rows at the steps of a search only, for the levels that a search of its own finds", async () => {
    const rule = parq(optim.sgd(), [{ match: () => true, bits: 2, levels: "lsbq-optimal" }], {
      annealEnd: 20,
      quantPeriod: 3,
    });
    const w = { w: new Rng(2).normalTensor([3, 16]) };
    const example = HostTensor.zeros("f32", [3, 16]);
    await using loop = await compileLoop(
      (s, g, r) => {
        const next = rule.update({ w: g }, s.state as never, s.params as never, r);
        return { state: { params: next.params, state: next.state }, result: r };
      },
      { params: w, state: rule.init(w) },
      [example, HostTensor.from(1)],
      { threads: 1 },
    );
    expect(nodesOf(loop.graph.outputs.map((p) => p.tensor)).map((node) => node.op)).not.toContain("TopK");
    await using search = await compile((u) => levelsOf(u, 2, "lsbq-optimal"), [example]);
    let levels: number[] = [];
    for (let step = 1; step <= 7; step++) {
      await loop.run(new Rng(step).normalTensor([3, 16]), HostTensor.from(0.5));
      const { latent, map } = (await loop.state()).state as unknown as Record<string, Record<string, unknown>>;
      const found = (await search(latent!.w as HostTensor)).toArray();
      if (step % 3 === 1) levels = found;
      else expect(found).not.toEqual(levels);
      expect((map!.levels as typeof w).w.toArray()).toEqual(levels);
    }
  });

  it("decays latent weights, less and less, and shrinks them where asked to", async () => {
    const follow = async (o: Partial<ParqOptions>, steps: number): Promise<number[]> => {
      const rule = parq(optim.sgd(), [{ match: () => true, bits: 1, per: "tensor" }], {
        annealEnd: 4,
        quantPeriod: 1,
        ...o,
      });
      const w = { w: HostTensor.from([1, -1]) };
      await using loop = await compileLoop(
        (s, g, r) => {
          const next = rule.update({ w: g }, s.state as never, s.params as never, r);
          return { state: { params: next.params, state: next.state }, result: r };
        },
        { params: w, state: rule.init(w) },
        [HostTensor.from([0, 0]), HostTensor.from(1)],
        { threads: 1 },
      );
      for (let i = 0; i < steps; i++) await loop.run(HostTensor.from([0, 0]), HostTensor.from(0.5));
      return ((await loop.state()).params as typeof w).w.toArray();
    };
    // inverse slopes at steps 2 and 4 of 4: 1/2 and 0.
    const [decayed] = await follow({ decay: { weight: 0.2, annealed: 1 } }, 4);
    const s = (x: number): number => 1 / (1 + Math.exp(10 * x));
    const inverse = [0.25, 0.5, 0.75, 1].map((f) => (s(f - 0.5) - s(0.5)) / (s(-0.5) - s(0.5)));
    expect(decayed).toBeCloseTo(
      inverse.reduce((u, inv) => u * (1 - 0.5 * 0.2 * inv), 1),
      5,
    );
    const [half] = await follow({ decay: { weight: 0.2, annealed: 0 } }, 1);
    expect(half).toBeCloseTo(0.9, 6);
    // The rates add up to 2 behind the fourth step.
    expect(await follow({ shrink: true }, 4)).toEqual([0.5, -0.5]);
    expect(await follow({ shrink: true }, 1)).toEqual([1, -1]);
  });

  it("goes on bit for bit where it was stopped", async () => {
    const folder = mkdtempSync(join(tmpdir(), "pare-parq-"));
    try {
      const whole = await train(options(30));
      const store = checkpointFolder(folder);
      await train({ ...options(17), checkpoint: { every: 17, store } });
      const resumed = await train({ ...options(30), checkpoint: { every: 30, store } });
      expect(resumed.log).toHaveLength(13);
      expect(trained(resumed.params).rawBytes()).toEqual(trained(whole.params).rawBytes());
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("refuses what cannot be quantized", async () => {
    const fail = (groups: QuantGroup[], o: Partial<ParqOptions> = {}) =>
      expect(Promise.resolve().then(() => train(options(2, groups, o)))).rejects;
    await fail([{ ...matrix, bits: 5 as 1 }]).toThrow("bits must be 0 (ternary) or 1-4, not 5");
    await fail([matrix], { annealStart: 60 }).toThrow("annealEnd is 60, annealStart 60");
    await fail([matrix], { steepness: -1 }).toThrow("the steepness of annealing must be above 0, not -1");
    await fail([{ ...matrix, bits: 4, levels: "lsbq-optimal" }]).toThrow(
      "optimal LSBQ exists for ternary, 1 and 2 bits only",
    );
    await fail([matrix, { match: () => false, bits: 1 }]).toThrow("quantized group 1 is empty");
    await fail([{ match: () => false, bits: 1 }]).toThrow("quantized group 0 is empty");
    await fail([matrix, { match: () => true, bits: 1 }]).toThrow(
      'the parameter "w.values" is listed in quantized groups 0 and 1',
    );
    await fail([{ ...matrix, per: 12 }]).toThrow('blocks of 12 do not divide the last dimension of "w.values" [8, 32]');
    await fail([matrix], { quantPeriod: 0 }).toThrow("quantPeriod must be a whole number from 1, not 0");
    await fail([matrix], { warmUp: -1 }).toThrow("warmUp must be a whole number from 0, not -1");
    await fail([matrix], { prox: "soft" as "hard" }).toThrow('prox is "parq", "hard" or "binary-relax", not "soft"');
    const broken = options(2);
    (broken.params.w.values as HostTensor).set(3, NaN);
    await expect(train(broken)).rejects.toThrow('"w.values" holds NaN at entry 3; only finite weights are quantized');
  });
});

describe("packing", () => {
  it.each([
    [0, "lsbq", "ternary"],
    [1, "lsbq", "binary"],
    [2, "uniform", "mid2"],
    [3, "uniform", "mid3"],
    [4, "uniform", "mid4"],
    [2, "lsbq", "codebook"],
    [4, "lsbq", "codebook"],
  ] as const)("%d bits of %s levels become %s, with the same numbers", async (bits, levels, form) => {
    for (const per of ["channel", "tensor", 16] as const) {
      const group: QuantGroup = { ...matrix, bits, levels, per };
      const { params } = await train(options(5, [group], { prox: "hard" }));
      const { w, bias } = packQuantized<Dense | HostTensor>(params, [group]);
      expect(bias).toBe(params.bias);
      expect(w instanceof BlockWeight ? w.format : (w as CodebookWeight).kind).toBe(form);
      const { dense, product } = await evaluate(w as BlockWeight, new Rng(1).normalTensor([3, 32]));
      expectClose(dense.toArray(), trained(params).toArray(), 1e-6);
      expect(product.shape).toEqual([3, 8]);
    }
  });

  it("refuses weights that are not on levels yet", async () => {
    const { params } = await train(options(3));
    expect(() => packQuantized<Dense | HostTensor>(params, [matrix])).toThrow(
      /^part 0 of 8 of the matrix holds \d\d different values, not at most 4: it is not quantized yet$/,
    );
  });
});

describe("aggregate proximal steps", () => {
  const reg = piecewiseAffine([0, 1], [1]);

  async function follow(rule: optim.Optimizer, target: number[], rates: number[]): Promise<number[][]> {
    const w = { w: HostTensor.from(target.map(() => 0)) };
    await using loop = await compileLoop(
      (s, t, r) => {
        const params = s.params as unknown as { w: Tensor };
        const g = grad(mul(sum(square(sub(params.w, t))), 0.5), params);
        const next = rule.update(g, s.state as never, params, r);
        return { state: { params: next.params, state: next.state }, result: r };
      },
      { params: w, state: rule.init(w) },
      [HostTensor.from(target), HostTensor.from(1)],
      { threads: 1 },
    );
    const seen: number[][] = [];
    for (const rate of rates) {
      await loop.run(HostTensor.from(target), HostTensor.from(rate));
      seen.push(((await loop.state()).params as typeof w).w.toArray());
    }
    return seen;
  }

  it("weigh the regularizer with all rates so far; plain ones with the last", async () => {
    // u: 0.5 * 2 = 1, then 1 + 0.25 * (2 - w).
    const [[first], [second]] = (await follow(aprox(reg, 0.6), [2], [0.5, 0.25])) as [[number], [number]];
    expect(first).toBeCloseTo(1 - 0.5 * 0.6, 6);
    expect(second).toBeCloseTo(1 + 0.25 * (2 - 0.7) - 0.75 * 0.6, 6);
    const [[one], [two]] = (await follow(proxSgd(reg, 0.6), [2], [0.5, 0.25])) as [[number], [number]];
    expect(one).toBeCloseTo(0.7, 6);
    expect(two).toBeCloseTo(0.7 + 0.25 * 1.3 - 0.25 * 0.6, 6);
  });

  it("FISTA reaches the minimum, which is known here", async () => {
    const target = [0.3, 0.9, 1.4, 3, -0.9, -3];
    const end = (await follow(fista(reg, 0.5), target, Array(60).fill(0.7))).at(-1)!;
    expectClose(end, [0, 0.4, 0.9, 1, -0.4, -1], 1e-4);
  });
});
