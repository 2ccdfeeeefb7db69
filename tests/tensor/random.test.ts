import { beforeAll, describe, expect, test } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import {
  add,
  argMax,
  bernoulli,
  dropout,
  foldIn,
  grad,
  gumbel,
  HostTensor,
  input,
  normal,
  randomKey,
  spec,
  splitKey,
  sum,
  type Tensor,
  uniform,
} from "../../src/tensor/index.ts";
import { expectClose, hostOf, wave } from "../support/numbers.ts";
import { run, runOn } from "../support/run.ts";
import {
  chiSquareExcess,
  correlation,
  KS_LIMIT,
  kolmogorovSmirnov,
  meanOf,
  normalCdf,
  varianceOf,
} from "../support/statistics.ts";

const COUNT = 1 << 15;
/** Draws of one program, which takes the key as its input. */
let draw: (key: HostTensor) => Promise<Record<"u" | "wide" | "n" | "g", HostTensor>>;

beforeAll(async () => {
  const program = await compile(
    (key) => ({
      u: uniform(key, [COUNT]),
      wide: uniform(key, [COUNT], { dtype: "f64" }),
      n: normal(key, [COUNT]),
      g: gumbel(key, [COUNT]),
    }),
    [randomKey(0)],
    { threads: 1, names: ["key"] },
  );
  draw = program;
  return () => program.dispose();
});

/** The generator written out in 64-bit arithmetic: number `i` of a key's sequence. */
function hash(key: HostTensor, i: number): bigint {
  const cut = (v: bigint): bigint => BigInt.asUintN(64, v);
  const [start, step] = key.data as BigUint64Array;
  let z = cut(start! + BigInt(i) * step!);
  z = cut((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = cut((z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 32n);
}

describe("uniform", () => {
  test("is the hash of key and place, bit for bit", async () => {
    const key = randomKey(42);
    const { u, wide } = await draw(key);
    for (const i of [0, 1, 2, 1000, COUNT / 2 - 1]) {
      const h = hash(key, i);
      expect(u.at(i)).toBe(Number(h >> 40n) * 2 ** -24);
      expect(u.at(i + COUNT / 2)).toBe(Number((h & 0xffffffffn) >> 8n) * 2 ** -24);
      expect(wide.at(i)).toBe(Number(h >> 11n) * 2 ** -53);
    }
  });

  test("is uniform from 0 to below 1 for any key", async () => {
    for (const seed of [0, 1, 2, 123456789, -5]) {
      const { u, wide } = await draw(randomKey(seed));
      for (const sample of [u.toArray(), wide.toArray()]) {
        expect(Math.min(...sample)).toBeGreaterThanOrEqual(0);
        expect(Math.max(...sample)).toBeLessThan(1);
        expect(kolmogorovSmirnov(sample, (x) => x)).toBeLessThan(KS_LIMIT);
        expect(Math.abs(meanOf(sample) - 0.5) * Math.sqrt(12 * COUNT)).toBeLessThan(4);
        expect(varianceOf(sample)).toBeCloseTo(1 / 12, 2);
      }
    }
  });

  test("neighbours in place, in halves and in seed are independent", async () => {
    const [a, b] = [(await draw(randomKey(1000))).u.toArray(), (await draw(randomKey(1001))).u.toArray()];
    const half = COUNT / 2;
    expect(Math.abs(correlation(a, b))).toBeLessThan(4);
    expect(Math.abs(correlation(a.slice(0, half), a.slice(half)))).toBeLessThan(4);
    for (const lag of [1, 2, 3, 64, 1024])
      expect(Math.abs(correlation(a.slice(lag), a.slice(0, -lag)))).toBeLessThan(4);
    // Pairs fill the unit square evenly.
    for (const other of [b, [...a.slice(1), a[0]!], [...a.slice(half), ...a.slice(0, half)]]) {
      const cells = new Array<number>(32 * 32).fill(0);
      for (const [i, x] of a.entries()) cells[Math.floor(x * 32) * 32 + Math.floor(other[i]! * 32)]!++;
      expect(Math.abs(chiSquareExcess(cells))).toBeLessThan(4);
    }
  });

  test("every bit is fair", async () => {
    const words = (await draw(randomKey(77))).u.toArray().map((u) => u * 2 ** 24);
    for (let bit = 0; bit < 24; bit++) {
      const ones = words.filter((w) => (w >>> bit) & 1).length;
      expect((Math.abs(ones - COUNT / 2) * 2) / Math.sqrt(COUNT), `bit ${bit}`).toBeLessThan(4);
    }
  });

  test("streams of many keys share no number", async () => {
    const seen = new Set<number>();
    for (let seed = 0; seed < 8; seed++) for (const v of (await draw(randomKey(seed))).wide.toArray()) seen.add(v);
    expect(seen.size).toBe(8 * COUNT);
  });

  test("gives the same numbers again, on any number of threads and in WebAssembly", async () => {
    const key = randomKey(3);
    const once = (await draw(key)).u;
    expect(await draw(key).then(({ u }) => u.data)).toEqual(once.data);
    expect((await runOn({ threads: 2 }, (k) => uniform(k, [COUNT]), key))[0]!.data).toEqual(once.data);
    expect((await runOn({ device: "wasm" }, (k) => uniform(k, [COUNT]), key))[0]!.data).toEqual(once.data);
  });

  test("comes in odd, named and narrow forms", async () => {
    const [odd, half] = await run((k) => [uniform(k, [3, 5]), uniform(k, [4001], { dtype: "f16" })], randomKey(1));
    expect(new Set(odd!.toArray()).size).toBe(15);
    expect(half!.dtype).toBe("f16");
    expect(Math.max(...half!.toArray())).toBeLessThan(1);
    expect(kolmogorovSmirnov(half!.toArray(), (x) => x)).toBeLessThan(KS_LIMIT);
    const program = await compile(
      (k, x) => uniform(k, x.shape, { sources: [x] }),
      [spec("u64", [2]), spec("f32", ["n", 3])],
    );
    expect((await program(randomKey(1), HostTensor.zeros("f32", [5, 3]))).shape).toEqual([5, 3]);
    await program.dispose();
  });

  test("refuses what is no key and no fraction", () => {
    const key = input("key", { dtype: "u64", shape: [2] });
    expect(() => uniform(HostTensor.from([1, 2]), [3])).toThrow(
      /a random key is u64 \[2\], as randomKey\(seed\) makes it, not f32 \[2\]/,
    );
    expect(() => normal(input("k", { dtype: "u64", shape: [3] }), [3])).toThrow(/not u64 \[3\]/);
    expect(() => uniform(key, [3], { dtype: "i32" })).toThrow(/floating-point numbers, not i32/);
    expect(() => normal(key, [3], { dtype: "i32" })).toThrow(/floating-point, not i32/);
    expect(() => randomKey(0.5)).toThrow(/whole number below 2\^53, not 0.5/);
  });
});

describe("normal", () => {
  test("is standard normal, with independent halves and neighbours", async () => {
    for (const seed of [0, 9, 100]) {
      const sample = (await draw(randomKey(seed))).n.toArray();
      expect(kolmogorovSmirnov(sample, normalCdf)).toBeLessThan(KS_LIMIT);
      expect(Math.abs(meanOf(sample)) * Math.sqrt(COUNT)).toBeLessThan(4);
      expect(Math.abs(varianceOf(sample) - 1) * Math.sqrt(COUNT / 2)).toBeLessThan(4);
      expect(Math.abs(meanOf(sample.map((x) => x ** 4)) - 3) * Math.sqrt(COUNT / 96)).toBeLessThan(4);
      const half = COUNT / 2;
      expect(Math.abs(correlation(sample.slice(0, half), sample.slice(half)))).toBeLessThan(4);
      expect(
        Math.abs(
          correlation(
            sample.slice(0, half).map((x) => x * x),
            sample.slice(half).map((x) => x * x),
          ),
        ),
      ).toBeLessThan(4);
      expect(Math.abs(correlation(sample.slice(1), sample.slice(0, -1)))).toBeLessThan(4);
    }
  });

  test("comes in odd lengths and other precisions", async () => {
    const [odd, wide, half] = await run(
      (k) => [normal(k, [1501]), normal(k, [1500], { dtype: "f64" }), normal(k, [1500], { dtype: "f16" })],
      randomKey(5),
    );
    for (const t of [odd!, wide!, half!]) expect(kolmogorovSmirnov(t.toArray(), normalCdf)).toBeLessThan(KS_LIMIT);
    expect(wide!.dtype).toBe("f64");
    expectClose(half!.toArray(), wide!.toArray(), 2e-3);
  });
});

describe("gumbel", () => {
  test("follows its distribution", async () => {
    const sample = (await draw(randomKey(4))).g.toArray();
    expect(kolmogorovSmirnov(sample, (x) => Math.exp(-Math.exp(-x)))).toBeLessThan(KS_LIMIT);
    expect(sample.every(Number.isFinite)).toBe(true);
    const [half] = await run((k) => gumbel(k, [4000], { dtype: "f16" }), randomKey(4));
    expect(half!.toArray().every(Number.isFinite)).toBe(true);
  });

  test("samples a softmax by its largest sum", async () => {
    const logits = HostTensor.from([0, 1, 2, -1]);
    const [picks] = await run((k, l) => argMax(add(gumbel(k, [20000, 4]), l)), randomKey(8), logits);
    const total = [0, 1, 2, -1].reduce((s, v) => s + Math.exp(v), 0);
    logits.toArray().forEach((v, i) => {
      const p = Math.exp(v) / total;
      const share = picks!.toArray().filter((c) => c === i).length / 20000;
      expect(Math.abs(share - p) / Math.sqrt((p * (1 - p)) / 20000)).toBeLessThan(4);
    });
  });
});

describe("bernoulli", () => {
  test("is true as often as asked, for one probability or a tensor of them", async () => {
    const p = HostTensor.from([0.1, 0.5, 0.99, 0]);
    const [one, many, never, always] = await run(
      (k, p) => [bernoulli(k, 0.3, [20000]), bernoulli(k, p, [10000, 4]), bernoulli(k, 0, [50]), bernoulli(k, 1, [50])],
      randomKey(6),
      p,
    );
    const off = (share: number, p: number, n: number): number => Math.abs(share - p) / Math.sqrt((p * (1 - p)) / n);
    expect(one!.dtype).toBe("bool");
    expect(off(meanOf(one!.toArray()), 0.3, 20000)).toBeLessThan(4);
    [0.1, 0.5, 0.99].forEach((want, column) => {
      const drawn = many!.toArray().filter((_, i) => i % 4 === column);
      expect(off(meanOf(drawn), want, 10000)).toBeLessThan(4);
    });
    expect(many!.toArray().some((v, i) => i % 4 === 3 && v === 1)).toBe(false);
    expect(meanOf(never!.toArray())).toBe(0);
    expect(meanOf(always!.toArray())).toBe(1);
  });

  test("refuses what is no probability", () => {
    expect(() => bernoulli(randomKey(0), 1.5, [2])).toThrow(/a probability lies between 0 and 1, not at 1.5/);
    expect(() => bernoulli(randomKey(0), NaN, [2])).toThrow(/not at NaN/);
  });
});

describe("dropout", () => {
  const x = hostOf([64, 65], (i) => 1 + Math.abs(wave(i)), "f32");

  test("zeroes the rate and scales the rest; its gradient passes where it did", async () => {
    const [y, g] = await run(
      (x, k) => {
        const y = dropout(x, 0.25, k);
        return [y, grad(sum(y), x)];
      },
      x,
      randomKey(2),
    );
    const dropped = meanOf(y!.toArray().map((v) => (v === 0 ? 1 : 0)));
    expect(Math.abs(dropped - 0.25) / Math.sqrt((0.25 * 0.75) / x.size)).toBeLessThan(4);
    y!.toArray().forEach((v, i) => {
      const scale = v === 0 ? 0 : 1 / 0.75;
      expect(v).toBeCloseTo(x.at(i) * scale, 5);
      expect(g!.at(i)).toBeCloseTo(scale, 6);
    });
  });

  test("takes a fresh pattern from each key, in the same program", async () => {
    const program = await compile((x, k) => dropout(x, 0.5, k), [x, randomKey(0)]);
    const [a, again, b] = [
      await program(x, randomKey(0)),
      await program(x, randomKey(0)),
      await program(x, randomKey(1)),
    ];
    expect(again.data).toEqual(a.data);
    const both = a.toArray().filter((v, i) => v === 0 && b.at(i) === 0).length;
    expect(Math.abs(both / x.size - 0.25) / Math.sqrt((0.25 * 0.75) / x.size)).toBeLessThan(4);
    await program.dispose();
  });

  test("returns its input at rate 0, takes named dimensions, and refuses other rates", async () => {
    const t = input("x", { dtype: "f32", shape: ["batch", 7] });
    const key = input("key", { dtype: "u64", shape: [2] });
    expect(dropout(t, 0, key)).toBe(t);
    expect(dropout(t, 0.1, key).shape).toEqual(["batch", 7]);
    expect(() => dropout(t, 1, key)).toThrow(/at least 0 and below 1, not 1/);
    expect(() => dropout(t, -0.1, key)).toThrow(/not -0.1/);
    const program = await compile((x, k) => dropout(x, 0.5, k), [spec("f64", ["batch", 7]), spec("u64", [2])]);
    const y = await program(
      hostOf([3, 7], () => 1),
      randomKey(1),
    );
    expect(new Set(y.toArray())).toEqual(new Set([0, 2]));
    await program.dispose();
  });
});

describe("derived keys", () => {
  const fold = (key: Tensor, data: Tensor): Tensor => foldIn(key, data);

  test("differ from each other and from their parent, whatever is folded in", async () => {
    const program = await compile(fold, [randomKey(0), HostTensor.from([0n]).reshape([])]);
    const keys = new Set<string>();
    for (let seed = 0; seed < 4; seed++) {
      keys.add(String(randomKey(seed).data));
      for (let data = -50; data < 50; data++) {
        const key = await program(
          randomKey(seed),
          hostOf([], () => data, "i64"),
        );
        expect((key.data as BigUint64Array)[1]! & 1n).toBe(1n);
        keys.add(String(key.data));
      }
    }
    expect(keys.size).toBe(4 * 101);
    await program.dispose();
  });

  test("are the same by number, by tensor and by splitting", async () => {
    const [a, b, c] = await run(
      (k, d) => [foldIn(k, 2), foldIn(k, d), splitKey(k, 4)[2]!],
      randomKey(9),
      hostOf([], () => 2, "i32"),
    );
    expect(b!.data).toEqual(a!.data);
    expect(c!.data).toEqual(a!.data);
  });

  test("give independent numbers", async () => {
    const [a, b, c] = await run(
      (k) => [...splitKey(k, 2).map((s) => uniform(s, [COUNT])), uniform(k, [COUNT])],
      randomKey(12),
    );
    for (const [x, y] of [
      [a, b],
      [a, c],
      [b, c],
    ] as const)
      expect(Math.abs(correlation(x!.toArray(), y!.toArray()))).toBeLessThan(4);
  });

  test("refuse fractions and empty splits", () => {
    expect(() => foldIn(randomKey(0), HostTensor.from([0.5]))).toThrow(/derived with a whole number, not with f32/);
    expect(() => splitKey(randomKey(0), 0)).toThrow(/one or more keys, not 0/);
  });
});
