import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Rng, type RngState } from "../../src/tensor/index.ts";
import {
  chiSquareExcess,
  correlation,
  KS_LIMIT,
  kolmogorovSmirnov,
  meanOf,
  normalCdf,
  varianceOf,
} from "../support/statistics.ts";

const many = <T>(count: number, draw: () => T): T[] => Array.from({ length: count }, draw);
const COUNT = 20000;

/** xoshiro128** as its authors define it, in arbitrary precision. */
function reference({ state }: RngState, count: number): number[] {
  const cut = (v: bigint): bigint => BigInt.asUintN(32, v);
  const turn = (v: bigint, by: bigint): bigint => cut((v << by) | (v >> (32n - by)));
  const s = state.map(BigInt);
  return many(count, () => {
    const result = cut(turn(cut(s[1]! * 5n), 7n) * 9n);
    const shifted = cut(s[1]! << 9n);
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= shifted;
    s[3] = turn(s[3]!, 11n);
    return Number(result);
  });
}

describe("the generator", () => {
  test("is xoshiro128**", () => {
    const rng = new Rng(5);
    const expected = reference(rng.toJSON(), 200);
    expect(many(200, () => rng.next())).toEqual(expected);
    // What the reference implementation gives from the state [1, 2, 3, 4].
    const small = Rng.fromJSON({ root: [1, 2, 3, 4], state: [1, 2, 3, 4], spare: null });
    expect([small.next(), small.next(), small.next()]).toEqual([11520, 0, 5927040]);
  });

  test("gives uniform, normal and whole numbers of the right distribution", () => {
    const rng = new Rng(1);
    expect(
      kolmogorovSmirnov(
        many(COUNT, () => rng.uniform()),
        (x) => x,
      ),
    ).toBeLessThan(KS_LIMIT);
    const scaled = many(COUNT, () => rng.uniform(-2, 3));
    expect(kolmogorovSmirnov(scaled, (x) => (x + 2) / 5)).toBeLessThan(KS_LIMIT);
    const bell = many(COUNT, () => rng.normal());
    expect(kolmogorovSmirnov(bell, normalCdf)).toBeLessThan(KS_LIMIT);
    expect(Math.abs(correlation(bell.slice(1), bell.slice(0, -1)))).toBeLessThan(4);
    const moved = many(COUNT, () => rng.normal(3, 0.5));
    expect(meanOf(moved)).toBeCloseTo(3, 1);
    expect(varianceOf(moved)).toBeCloseTo(0.25, 1);
    const counts = new Array<number>(100).fill(0);
    for (const i of rng.integers(COUNT, 100)) counts[i]!++;
    expect(Math.abs(chiSquareExcess(counts))).toBeLessThan(4);
  });

  test("draws whole numbers below any bound", () => {
    const rng = new Rng(2);
    fc.assert(
      fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (bound) => {
        const drawn = rng.integer(bound);
        expect(Number.isSafeInteger(drawn) && drawn >= 0 && drawn < bound).toBe(true);
      }),
      { numRuns: 200, seed: 1 },
    );
    const wide = many(COUNT, () => rng.integer(2 ** 40) / 2 ** 40);
    expect(kolmogorovSmirnov(wide, (x) => x)).toBeLessThan(KS_LIMIT);
    expect(() => rng.integer(0)).toThrow(/needs a bound from 1 to 2\^53, not 0/);
    expect(() => rng.integer(1.5)).toThrow(/not 1.5/);
  });

  test("depends on every seed, negative and large ones included", () => {
    const firsts = new Set<number>();
    const seeds = [0, 1, 2, -1, -2, 2 ** 32, 2 ** 32 + 1, 2 ** 40, -(2 ** 40), Number.MAX_SAFE_INTEGER];
    for (const seed of seeds) firsts.add(new Rng(seed).uniform());
    expect(firsts.size).toBe(seeds.length);
    const [a, b] = [new Rng(10), new Rng(11)];
    expect(
      Math.abs(
        correlation(
          many(COUNT, () => a.uniform()),
          many(COUNT, () => b.uniform()),
        ),
      ),
    ).toBeLessThan(4);
    expect(() => new Rng(0.5)).toThrow(/whole number below 2\^53, not 0.5/);
  });
});

describe("shuffling and choosing", () => {
  test("every order of three is as likely as another", () => {
    const rng = new Rng(3);
    const counts = new Map<string, number>();
    for (let i = 0; i < 12000; i++) {
      const order = rng.permutation(3).join();
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(6);
    expect(Math.abs(chiSquareExcess([...counts.values()]))).toBeLessThan(4);
  });

  test("shuffle keeps the items, of typed arrays too", () => {
    const rng = new Rng(4);
    const items = rng.shuffle(Int32Array.from({ length: 50 }, (_, i) => i));
    expect([...items].sort((a, b) => a - b)).toEqual(many(50, () => 0).map((_, i) => i));
    expect([...items]).not.toEqual([...items].sort((a, b) => a - b));
  });

  test("choice follows its weights, and never picks a weight of 0", () => {
    const rng = new Rng(5);
    const picked = many(COUNT, () => rng.choice(["a", "b", "c", "d"], [0, 1, 3, 0]));
    const share = picked.filter((p) => p === "b").length / COUNT;
    expect(Math.abs(share - 0.25) / Math.sqrt((0.25 * 0.75) / COUNT)).toBeLessThan(4);
    expect(picked.some((p) => p === "a" || p === "d")).toBe(false);
    expect(new Set(many(200, () => rng.choice([1, 2, 3])))).toEqual(new Set([1, 2, 3]));
    expect(() => rng.choice([])).toThrow(/nothing to choose from/);
    expect(() => rng.choice([1, 2], [1])).toThrow(/1 weights were given for 2 items/);
    expect(() => rng.choice([1, 2], [1, -1])).toThrow(/weight 1 is -1/);
    expect(() => rng.choice([1, 2], [0, 0])).toThrow(/all weights are 0/);
  });

  test("sample draws different items", () => {
    const rng = new Rng(6);
    for (let count = 0; count <= 6; count++) {
      const drawn = rng.sample([1, 2, 3, 4, 5, 6], count);
      expect(new Set(drawn).size).toBe(count);
    }
    expect(() => rng.sample([1], 2)).toThrow(/2 different items cannot be drawn from 1/);
  });
});

describe("forks", () => {
  test("depend on seed and name, not on what was drawn", () => {
    const [a, b] = [new Rng(7), new Rng(7)];
    many(13, () => b.normal());
    expect(a.fork("weights").next()).toBe(b.fork("weights").next());
    const firsts = new Set(["weights", "weight", "data", "", 0, 1, "é"].map((name) => a.fork(name).uniform()));
    expect(firsts.size).toBe(7);
    expect(a.fork("x").fork("y").next()).not.toBe(a.fork("y").fork("x").next());
    const [x, y] = [a.fork("x"), a.fork("y")];
    expect(
      Math.abs(
        correlation(
          many(COUNT, () => x.uniform()),
          many(COUNT, () => y.uniform()),
        ),
      ),
    ).toBeLessThan(4);
  });
});

describe("state", () => {
  test("survives JSON at any point, forks and half-used pairs included", () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.array(fc.constantFrom("uniform", "normal", "integer"), { maxLength: 9 }),
        (seed, calls) => {
          const rng = new Rng(seed);
          for (const call of calls) call === "integer" ? rng.integer(10) : rng[call as "uniform" | "normal"]();
          const copy = Rng.fromJSON(JSON.parse(JSON.stringify(rng)));
          expect(many(5, () => copy.normal())).toEqual(many(5, () => rng.normal()));
          expect(copy.fork("a").next()).toBe(rng.fork("a").next());
        },
      ),
      { numRuns: 50, seed: 2 },
    );
  });

  test.each([
    ["nothing", null],
    ["a short state", { root: [1, 2, 3, 4], state: [1, 2, 3], spare: null }],
    ["zeros", { root: [1, 2, 3, 4], state: [0, 0, 0, 0], spare: null }],
    ["large words", { root: [1, 2, 3, 4], state: [1, 2, 3, 2 ** 32], spare: null }],
    ["no spare", { root: [1, 2, 3, 4], state: [1, 2, 3, 4] }],
  ])("is refused when it is %s", (_what, state) => {
    expect(() => Rng.fromJSON(state)).toThrow(/not the state of a random generator/);
  });
});

describe("tensors and keys", () => {
  test("are filled in the asked element type", () => {
    const rng = new Rng(8);
    const weights = rng.normalTensor([100, 200], { std: 0.02 });
    expect(weights.dtype).toBe("f32");
    expect(weights.shape).toEqual([100, 200]);
    expect(kolmogorovSmirnov(weights.toArray(), (x) => normalCdf(x / 0.02))).toBeLessThan(KS_LIMIT);
    const half = rng.uniformTensor([4000], { low: -1, high: 1, dtype: "f16" });
    expect(half.dtype).toBe("f16");
    expect(kolmogorovSmirnov(half.toArray(), (x) => (x + 1) / 2)).toBeLessThan(KS_LIMIT);
    expect(rng.uniformTensor([2], { dtype: "f64" }).dtype).toBe("f64");
  });

  test("keys for graphs differ from call to call and repeat with the seed", () => {
    const [a, b] = [new Rng(9), new Rng(9)];
    const first = a.key();
    expect(first.dtype).toBe("u64");
    expect(first.shape).toEqual([2]);
    expect(b.key().data).toEqual(first.data);
    expect(a.key().data).not.toEqual(first.data);
  });
});
