import { describe, expect, it } from "vitest";
import {
  binaryRelax,
  inverseSlope,
  nearestLevel,
  onLevelShare,
  optimalShare,
  parqProx,
  piecewiseAffine,
} from "../../../../src/methods/index.ts";
import { HostTensor } from "../../../../src/tensor/index.ts";
import { expectClose } from "../../../support/numbers.ts";
import { run } from "../../../support/run.ts";

const row = (...values: number[]): HostTensor => HostTensor.from([values]);
const grid = (from: number, to: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => from + ((to - from) * i) / (count - 1));

describe("the regularizer", () => {
  const levels = [0, 0.5, 1.25];
  const slopes = [0.2, 0.9];
  const reg = piecewiseAffine(levels, slopes);

  it("is the sum of the largest pieces, infinite beyond the last level", async () => {
    const [inside, outside] = await run((w, v) => [reg.value(w), reg.value(v)], row(0.25, -1), row(0.25, -1.3));
    // 0.2 * 0.25, and 0.2 * 0.5 + 0.9 * 0.5.
    expect(inside!.item()).toBeCloseTo(0.05 + 0.55, 6);
    expect(outside!.item()).toBe(Infinity);
  });

  it("has the prox that a search over all points finds", async () => {
    for (const scale of [0.3, 1, 2.5]) {
      const u = grid(-4, 4, 161);
      const [w] = await run((t) => reg.prox(t, scale), row(...u));
      const psi = (x: number): number =>
        Math.abs(x) > 1.25 ? Infinity : Math.max(0.2 * Math.abs(x), 0.1 + 0.9 * (Math.abs(x) - 0.5));
      const candidates = grid(-1.25, 1.25, 20001);
      u.forEach((x, i) => {
        const cost = (y: number): number => scale * psi(y) + (y - x) ** 2 / 2;
        const best = candidates.reduce((a, b) => (cost(b) < cost(a) ? b : a));
        expect(w!.at(i)).toBeCloseTo(best, 3);
      });
    }
  });

  it("has the prox that the paper's cases say, exactly on levels", async () => {
    // scale 2: a = (0.4, 1.8); flat on [0, 0.4], [0.9, 2.3] and from 3.05.
    const u = [0.39, 0.6, 0.91, 1.5, 2.29, 2.5, 3.06, 9];
    const [w] = await run((t) => reg.prox(t, 2), row(...u, ...u.map((x) => -x)));
    const want = [0, 0.2, 0.5, 0.5, 0.5, 0.7, 1.25, 1.25];
    expectClose(
      w!.toArray().map((x) => x + 0),
      [...want, ...want.map((x) => 0 - x)],
      1e-6,
    );
    expect([w!.at(2), w!.at(3), w!.at(6)]).toEqual([0.5, 0.5, 1.25]);
    expect(onLevelShare(reg, w!)).toBe(12 / 16);
  });

  it("knows where an optimum can be", () => {
    const w = row(0, 0.3, 0.5, -0.5, 0.8, -1.25, 1.25);
    const share = (...gradient: number[]): number => optimalShare(reg, 2, w, row(...gradient), 1e-6);
    expect(share(0.4, -0.4, -1, 1.8, -1.8, 50, -1.8)).toBe(1);
    expect(share(0.5, -0.4, -1, 1.8, -1.8, 50, -1.8)).toBe(6 / 7);
    // None holds: beyond the slopes at each place, or of the wrong sign.
    expect(share(-0.5, 0.4, -0.3, -1, -0.4, -50, -1.7)).toBe(0);
  });

  it("refuses levels and slopes that do not make one", () => {
    expect(() => piecewiseAffine([0.1, 0.2], [1])).toThrow("the levels of a regularizer ascend from 0, as [0.1, 0.2]");
    expect(() => piecewiseAffine([0, 0.2, 0.2], [1, 2])).toThrow("ascend from 0");
    expect(() => piecewiseAffine([0, 1], [1, 2])).toThrow("2 levels need 1 slopes that ascend");
    expect(() => piecewiseAffine([0, 1, 2], [2, 1])).toThrow("3 levels need 2 slopes that ascend");
    expect(() => piecewiseAffine([0, 1], [-1])).toThrow("2 levels need 1 slopes that ascend");
  });
});

describe("PARQ's map", () => {
  const levels = [-1.5, -0.25, 0.5, 2];
  const u = [...grid(-3, 3, 241), -0.875, 0.125, 1.25];

  /** The definition: between neighbours around the centre with the slope, cut off at both. */
  const plain = (x: number, rho: number): number => {
    if (x <= levels[0]!) return levels[0]!;
    if (x >= levels[3]!) return levels[3]!;
    const k = levels.findIndex((q) => q > x);
    const [low, high] = [levels[k - 1]!, levels[k]!];
    const c = (low + high) / 2;
    return Math.min(Math.max(c + rho * (x - c), low), high);
  };

  it.each([1, 1.7, 5, 1e6])("is the ramp between neighbouring levels at slope %d", async (rho) => {
    const [w] = await run((t, q) => parqProx(t, q, 1 / rho), row(...u), row(...levels));
    expectClose(
      w!.toArray(),
      u.map((x) => plain(x, rho)),
      2e-6,
    );
  });

  it("cuts off at slope 1 and is exactly the nearest level at infinity", async () => {
    const [soft, hard, nearest] = await run(
      (t, q) => [parqProx(t, q, 1), parqProx(t, q, 0), nearestLevel(t, q)],
      row(...u),
      row(...levels),
    );
    expectClose(
      soft!.toArray(),
      u.map((x) => Math.min(2, Math.max(-1.5, x))),
      1e-6,
    );
    expect(hard!.toArray()).toEqual(nearest!.toArray());
    expect(new Set(hard!.toArray())).toEqual(new Set(levels));
    // Ties go up, zero among them.
    expect(nearest!.toArray().slice(-3)).toEqual([-0.25, 0.5, 2]);
  });

  it("takes sign(0) as 1, and zeros for levels that collapsed", async () => {
    const [hard, zero] = await run(
      (t, q, o) => [parqProx(t, q, 0), parqProx(t, o, 0)],
      row(0, -0.1, 0.1),
      row(-1, 1),
      row(0, 0),
    );
    expect(hard!.toArray()).toEqual([1, -1, 1]);
    expect(zero!.toArray().map((x) => x + 0)).toEqual([0, 0, 0]);
  });

  it("BinaryRelax moves linearly to the nearest level, and ends on it", async () => {
    const theta = (x: number) => HostTensor.from(x);
    const [start, half, end] = await run(
      (t, q, a, b, c) => [binaryRelax(t, q, a), binaryRelax(t, q, b), binaryRelax(t, q, c)],
      row(0.9, -0.2),
      row(-1.1, 1.1),
      theta(0),
      theta(0.5),
      theta(1),
    );
    expectClose(start!.toArray(), [0.9, -0.2], 1e-6);
    expectClose(half!.toArray(), [1, -0.65], 1e-6);
    expect(end!.toArray()).toEqual([1.1, -1.1].map(Math.fround));
  });
});

describe("the inverse slope", () => {
  const at = async (steps: number[], anneal: Parameters<typeof inverseSlope>[1]): Promise<number[]> =>
    (await run((...ts) => ts.map((t) => inverseSlope(t, anneal)), ...steps.map((s) => HostTensor.from(s)))).map((t) =>
      t.item(),
    );

  it("falls from 1 to 0 along a sigmoid", async () => {
    const values = await at([1, 10, 15, 20, 25, 30, 99], { annealStart: 10, annealEnd: 30, steepness: 8 });
    const s = (x: number): number => 1 / (1 + Math.exp(8 * x));
    const between = (f: number): number => (s(f - 0.5) - s(0.5)) / (s(-0.5) - s(0.5));
    expectClose(values, [1, 1, between(0.25), 0.5, between(0.75), 0, 0], 1e-6);
    expect(values[6]).toBe(0);
  });

  it("stays between 0 and 1 where its centre is moved, also when it is very steep", async () => {
    const values = await at([0, 1, 5, 9, 10], { annealEnd: 10, steepness: 100, center: 0.2 });
    expect(values[0]).toBeCloseTo(1, 5);
    for (const v of values) expect(v >= 0 && v <= 1).toBe(true);
  });

  it("refuses schedules that cannot be", async () => {
    await expect(at([1], { annealStart: 10, annealEnd: 10 })).rejects.toThrow(
      "annealing must end after it starts: annealEnd is 10, annealStart 10",
    );
    await expect(at([1], { annealEnd: 10, steepness: 0 })).rejects.toThrow(
      "steepness of annealing must be above 0, not 0",
    );
    await expect(at([1], { annealEnd: 10, center: 2 })).rejects.toThrow("a share from 0 to 1, not 2");
  });
});
