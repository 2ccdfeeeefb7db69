import { describe, expect, it } from "vitest";
import { optim } from "../../src/nn/index.ts";
import { compileLoop } from "../../src/runtime/index.ts";
import {
  ArgumentError,
  abs,
  greater,
  HostTensor,
  matmul,
  mul,
  Rng,
  sign,
  sub,
  transpose,
  where,
  zerosLike,
} from "../../src/tensor/index.ts";
import { run } from "../support/run.ts";

type Values = Record<string, number[]>;

/** Parameters after `steps` updates with random gradients, by the rule and by the oracle, which sees the same gradients. */
async function follow(rule: optim.Optimizer, shapes: Record<string, number[]>, steps: number, rate = 0.1) {
  const rng = new Rng(5);
  const start = Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, rng.normalTensor(shape)]));
  const grads = Array.from({ length: steps }, () =>
    Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, rng.normalTensor(shape)])),
  );
  await using loop = await compileLoop(
    (s, g, r) => {
      const next = rule.update(g, s.state as never, s.params, r);
      return { state: { params: next.params, state: next.state }, result: r };
    },
    { params: start, state: rule.init(start) },
    [start, HostTensor.from(rate)],
    { threads: 1 },
  );
  for (const g of grads) await loop.run(g as never, HostTensor.from(rate));
  const end = await loop.state();
  const plain = (named: Record<string, HostTensor>): Values =>
    Object.fromEntries(Object.entries(named).map(([name, t]) => [name, t.toArray()]));
  return { start: plain(start), grads: grads.map(plain), end: plain(end.params), state: end.state };
}

function near(got: Values, want: Values, digits = 5): void {
  for (const [name, values] of Object.entries(want))
    for (const [i, v] of values.entries()) expect(got[name]![i], `${name}[${i}]`).toBeCloseTo(v, digits);
}

const shapes = { w: [3, 4], b: [4] };

describe("optimizers follow their formulas", () => {
  it("sgd", async () => {
    const { start, grads, end } = await follow(optim.sgd({ weightDecay: 0.01 }), shapes, 3);
    for (const g of grads)
      for (const name of ["w", "b"]) start[name] = start[name]!.map((p, i) => p - 0.1 * (g[name]![i]! + 0.01 * p));
    near(end, start);
  });

  it.each([false, true])("sgd with momentum, nesterov %s", async (nesterov) => {
    const { start, grads, end } = await follow(optim.sgd({ momentum: 0.9, nesterov }), shapes, 4);
    const velocity: Values = { w: Array(12).fill(0), b: Array(4).fill(0) };
    for (const g of grads) {
      for (const name of ["w", "b"]) {
        velocity[name] = velocity[name]!.map((v, i) => 0.9 * v + g[name]![i]!);
        start[name] = start[name]!.map(
          (p, i) => p - 0.1 * (nesterov ? g[name]![i]! + 0.9 * velocity[name]![i]! : velocity[name]![i]!),
        );
      }
    }
    near(end, start);
  });

  it("adamw, with decay on matrices only", async () => {
    const { start, grads, end } = await follow(
      optim.adamw({ beta1: 0.8, beta2: 0.95, weightDecay: 0.2, epsilon: 1e-3 }),
      shapes,
      5,
    );
    for (const name of ["w", "b"]) {
      const [m, v] = [Array<number>(start[name]!.length).fill(0), Array<number>(start[name]!.length).fill(0)];
      grads.forEach((g, t) => {
        start[name] = start[name]!.map((p, i) => {
          m[i] = 0.8 * m[i]! + 0.2 * g[name]![i]!;
          v[i] = 0.95 * v[i]! + 0.05 * g[name]![i]! ** 2;
          const [mHat, vHat] = [m[i]! / (1 - 0.8 ** (t + 1)), v[i]! / (1 - 0.95 ** (t + 1))];
          return p * (name === "w" ? 1 - 0.1 * 0.2 : 1) - (0.1 * mHat) / (Math.sqrt(vHat) + 1e-3);
        });
      });
    }
    near(end, start);
  });

  it("adafactor, whose memory of a matrix is a row and a column", async () => {
    const { start, grads, end, state } = await follow(optim.adafactor(), shapes, 3);
    expect((state as { rows: Record<string, HostTensor> }).rows.w!.shape).toEqual([3]);
    expect((state as { columns: Record<string, HostTensor> }).columns.w!.shape).toEqual([4]);
    const [rows, columns, full] = [Array<number>(3).fill(0), Array<number>(4).fill(0), Array<number>(4).fill(0)];
    grads.forEach((g, t) => {
      const keep = 1 - (t + 1) ** -0.8;
      const squared = g.w!.map((x) => x * x + 1e-30);
      for (let i = 0; i < 3; i++)
        rows[i] = keep * rows[i]! + (1 - keep) * (squared.slice(4 * i, 4 * i + 4).reduce((a, b) => a + b) / 4);
      for (let j = 0; j < 4; j++)
        columns[j] = keep * columns[j]! + (1 - keep) * ((squared[j]! + squared[4 + j]! + squared[8 + j]!) / 3);
      for (let j = 0; j < 4; j++) full[j] = keep * full[j]! + (1 - keep) * (g.b![j]! ** 2 + 1e-30);
      const average = (rows[0]! + rows[1]! + rows[2]!) / 3;
      const updates: Values = {
        w: g.w!.map((x, i) => x / Math.sqrt((rows[Math.floor(i / 4)]! * columns[i % 4]!) / average)),
        b: g.b!.map((x, j) => x / Math.sqrt(full[j]!)),
      };
      for (const name of ["w", "b"]) {
        const u = updates[name]!;
        const rms = Math.sqrt(u.reduce((a, x) => a + x * x, 0) / u.length);
        start[name] = start[name]!.map((p, i) => p - (0.1 * u[i]!) / Math.max(1, rms));
      }
    });
    near(end, start, 4);
  });

  it("clipGlobalNorm scales all gradients by one factor", async () => {
    const { start, grads, end } = await follow(optim.clipGlobalNorm(0.5, optim.sgd()), shapes, 2);
    for (const g of grads) {
      const norm = Math.sqrt([...g.w!, ...g.b!].reduce((a, x) => a + x * x, 0));
      for (const name of ["w", "b"])
        start[name] = start[name]!.map((p, i) => p - 0.1 * g[name]![i]! * Math.min(1, 0.5 / norm));
    }
    near(end, start);
  });

  it("proximal maps act behind the step; soft thresholding leaves exact zeros", async () => {
    const soft: Parameters<typeof optim.proximal>[0] = (p, name, rate) =>
      name === "b" ? null : where(greater(abs(p), mul(rate, 5)), sub(p, mul(sign(p), mul(rate, 5))), zerosLike(p));
    const { start, grads, end } = await follow(optim.proximal(soft, optim.sgd()), shapes, 1);
    const stepped = start.w!.map((p, i) => p - 0.1 * grads[0]!.w![i]!);
    near(end, {
      w: stepped.map((p) => Math.sign(p) * Math.max(0, Math.abs(p) - 0.5)),
      b: start.b!.map((p, i) => p - 0.1 * grads[0]!.b![i]!),
    });
    expect(end.w!.filter((p) => p === 0)).toHaveLength(stepped.filter((p) => Math.abs(p) <= 0.5).length);
  });

  it("movingAverage averages what the inner rule makes", async () => {
    const { start, grads, state } = await follow(optim.movingAverage(0.7, optim.sgd()), { b: [4] }, 3);
    let [p, average] = [start.b!, start.b!];
    for (const g of grads) {
      p = p.map((x, i) => x - 0.1 * g.b![i]!);
      average = average.map((a, i) => 0.7 * a + 0.3 * p[i]!);
    }
    near({ b: (state as { average: Record<string, HostTensor> }).average.b!.toArray() }, { b: average });
  });

  it("groups give each parameter its rule and rate", async () => {
    const rule = optim.groups([
      { match: (name) => name === "b", optimizer: optim.sgd(), rate: 0.5 },
      { match: (_name, shape) => shape.length === 2, optimizer: optim.sgd({ momentum: 0.9 }) },
    ]);
    const { start, grads, end } = await follow(rule, shapes, 1);
    near(end, {
      b: start.b!.map((p, i) => p - 0.05 * grads[0]!.b![i]!),
      w: start.w!.map((p, i) => p - 0.1 * grads[0]!.w![i]!),
    });
    expect(() => optim.groups([]).init({ b: HostTensor.zeros("f32", [1]) })).toThrow(
      new ArgumentError('the parameter "b" belongs to no group of the optimizer'),
    );
  });
});

describe("muon", () => {
  it.each([
    [8, 8],
    [5, 12],
    [12, 5],
  ])("orthogonalises %i x %i: singular values near 1, directions kept", async (rows, columns) => {
    const x = new Rng(2).normalTensor([rows, columns]);
    const [q, gram, turned] = await run((t) => {
      const y = optim.orthogonalize(t);
      return [
        y,
        rows <= columns ? matmul(y, transpose(y)) : matmul(transpose(y), y),
        rows <= columns ? matmul(y, transpose(t)) : matmul(transpose(y), t),
      ];
    }, x);
    const n = Math.min(rows, columns);
    expect(q!.shape).toEqual([rows, columns]);
    // Eigenvalues of the Gram matrix are squares of singular values: their mean and extremes through trace and Gershgorin.
    const trace = Array.from({ length: n }, (_, i) => gram!.at(i * n + i)).reduce((a, b) => a + b) / n;
    expect(trace).toBeGreaterThan(0.5);
    expect(trace).toBeLessThan(1.3);
    // U V^T X^T = U S U^T is symmetric.
    for (let i = 0; i < n; i++)
      for (let j = 0; j < i; j++) expect(turned!.at(i * n + j)).toBeCloseTo(turned!.at(j * n + i), 3);
  });

  it("sends matrices through orthogonalisation and the rest through AdamW", async () => {
    const { start, end } = await follow(optim.muon(), { "layer.w": [4, 4], "embed.w": [4, 4], b: [4] }, 1);
    const moved = (name: string): number[] => start[name]!.map((p, i) => p - end[name]![i]!);
    // AdamW's first step is rate * sign(g): 0.1 times the smaller rate of the others.
    for (const name of ["embed.w", "b"]) for (const d of moved(name)) expect(Math.abs(d)).toBeLessThan(0.0125);
    const size = Math.sqrt(moved("layer.w").reduce((a, d) => a + d * d, 0) / 4);
    expect(size).toBeGreaterThan(0.07);
    expect(size).toBeLessThan(0.13);
  });
});

describe("masked", () => {
  it("keeps masked entries and their moments as they were, and trains the others as ever", async () => {
    const mask = HostTensor.from([true, false, false, true]);
    const rule = optim.masked({ a: mask }, optim.adamw({ weightDecay: 0.5, decays: () => true }));
    const shapes = { a: [4], b: [3] };
    const masked = await follow(rule, shapes, 3);
    const plain = await follow(optim.adamw({ weightDecay: 0.5, decays: () => true }), shapes, 3);
    expect(masked.end.b).toEqual(plain.end.b);
    expect([masked.end.a![0], masked.end.a![3]]).toEqual([plain.end.a![0], plain.end.a![3]]);
    expect(masked.end.a!.slice(1, 3)).toEqual(masked.start.a!.slice(1, 3));
    const moments = masked.state.m as Record<string, HostTensor>;
    expect(moments.a!.toArray().map((m) => m === 0)).toEqual([false, true, true, false]);
  });

  it("refuses masks that do not fit", () => {
    const start = { a: HostTensor.zeros("f32", [2]) };
    expect(() => optim.masked({ b: HostTensor.zeros("bool", [2]) }, optim.sgd()).init(start)).toThrow(
      'there is a mask for "b", which is not among the parameters that are trained',
    );
    expect(() => optim.masked({ a: HostTensor.zeros("f32", [2]) }, optim.sgd()).init(start)).toThrow(
      'the mask of "a" is f32 [2]; it must be bool [2]',
    );
  });
});

describe("schedules", () => {
  it("go through their marks", () => {
    const wsd = optim.warmUpStableDecay(1, 100, { warmUpSteps: 10, decaySteps: 20 });
    expect([0, 4, 9, 50, 80, 90, 99].map((s) => Number(wsd(s).toFixed(3)))).toEqual([0.1, 0.5, 1, 1, 1, 0.5, 0.05]);
    const cosine = optim.cosine(2, 100, 1);
    expect([cosine(0), cosine(50), cosine(100), cosine(500)]).toEqual([2, 1.5, 1, 1]);
    expect(optim.warmUp(4, optim.constantRate(8))(0)).toBe(2);
    expect(optim.warmUp(4, optim.constantRate(8))(9)).toBe(8);
    expect(optim.linearDecay(1, 10)(5)).toBe(0.5);
  });

  it("refuse lengths that cannot be meant", () => {
    expect(() => optim.cosine(1, 0)).toThrow("a schedule needs a positive number of steps, not 0");
    expect(() => optim.warmUpStableDecay(1, 10, { warmUpSteps: 8, decaySteps: 5 })).toThrow(
      "warm-up (8) and decay (5) together are longer than the 10 steps",
    );
  });
});
