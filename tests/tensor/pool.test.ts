import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  averagePool,
  globalAveragePool,
  globalMaxPool,
  grad,
  input,
  maxPool,
  mul,
  op,
  spec,
  sum,
  type Tensor,
} from "../../src/tensor/index.ts";
import { differences, expectClose, f32, f64, noise, product } from "../support/differences.ts";
import { run } from "../support/run.ts";

interface Case {
  lengths: number[];
  kernel: number[];
  strides: number[];
  dilations: number[];
  before: number[];
  behind: number[];
  ceilMode: boolean;
}

const axis = fc
  .record({
    kernel: fc.integer({ min: 1, max: 3 }),
    stride: fc.integer({ min: 1, max: 4 }),
    dilation: fc.integer({ min: 1, max: 2 }),
    before: fc.nat(2),
    behind: fc.nat(2),
    length: fc.integer({ min: 2, max: 7 }),
  })
  .map((a) => ({ ...a, before: Math.min(a.before, a.kernel - 1), behind: Math.min(a.behind, a.kernel - 1) }))
  .filter((a) => a.length + a.before + a.behind >= a.dilation * (a.kernel - 1) + 1);

const poolCase: fc.Arbitrary<Case> = fc
  .record({ axes: fc.array(axis, { minLength: 1, maxLength: 3 }), ceilMode: fc.boolean() })
  .map(({ axes, ceilMode }) => ({
    ceilMode,
    lengths: axes.map((a) => a.length),
    kernel: axes.map((a) => a.kernel),
    strides: axes.map((a) => a.stride),
    dilations: axes.map((a) => a.dilation),
    before: axes.map((a) => a.before),
    behind: axes.map((a) => a.behind),
  }))
  .filter(({ lengths }) => product(lengths) <= 60);

const positions = (shape: readonly number[]): number[][] =>
  shape.reduce<number[][]>((all, n) => all.flatMap((p) => Array.from({ length: n }, (_, i) => [...p, i])), [[]]);

/** For each window of one image: the entries it sees, and how many it would see were the padding real. */
function windows(c: Case): { sizes: number[]; seen: { inside: number[]; padded: number }[] } {
  const sizes = c.lengths.map((n, i) => {
    // Counted by trying, not by a formula: all windows that fit, and when rounding up one that covers the rest, unless
    // it starts in the padding behind.
    const end = n + c.behind[i]!;
    let [count, covered] = [0, 0];
    for (let start = -c.before[i]!; start < n && covered < end; start += c.strides[i]!) {
      const last = start + c.dilations[i]! * (c.kernel[i]! - 1);
      if (last >= end && !c.ceilMode) break;
      covered = last + 1;
      count++;
    }
    return count;
  });
  const seen = positions(sizes).map((p) => {
    const taps = positions(c.kernel).map((k) =>
      k.map((v, i) => p[i]! * c.strides[i]! - c.before[i]! + v * c.dilations[i]!),
    );
    return {
      inside: taps
        .filter((at) => at.every((v, i) => v >= 0 && v < c.lengths[i]!))
        .map((at) => at.reduce((s, v, i) => s * c.lengths[i]! + v, 0)),
      padded: taps.filter((at) => at.every((v, i) => v < c.lengths[i]! + c.behind[i]!)).length,
    };
  });
  return { sizes, seen };
}

const options = (c: Case) => ({
  stride: c.strides,
  dilation: c.dilations,
  padding: c.before.map((b, i) => [b, c.behind[i]!] as const),
  ceilMode: c.ceilMode,
});

/** Whether one axis gets a window more from rounding up while another would get one that sees only padding. */
function contradicts(c: Case): boolean {
  if (!c.ceilMode) return false;
  const { sizes } = windows(c);
  const whole = windows({ ...c, ceilMode: false }).sizes;
  const unused = sizes.some((n, i) => {
    const end = (n - 1) * c.strides[i]! + c.dilations[i]! * (c.kernel[i]! - 1) + 1;
    return end < c.lengths[i]! + c.before[i]! + c.behind[i]!;
  });
  return unused && sizes.some((n, i) => n > whole[i]!);
}

const squareLoss = (y: Tensor, r: Tensor): Tensor => sum(mul(r, mul(y, y)));

const [N, C] = [2, 2];

/** `pool` on each of the images in `x`, and a loss on the result. */
function oracle(c: Case, pool: (values: number[], padded: number) => number) {
  const { sizes, seen } = windows(c);
  const image = product(c.lengths);
  const forward = (x: Float64Array): Float64Array =>
    Float64Array.from({ length: N * C * seen.length }, (_, i) => {
      const at = Math.floor(i / seen.length) * image;
      const { inside, padded } = seen[i % seen.length]!;
      return pool(
        inside.map((k) => x[at + k]!),
        padded,
      );
    });
  return { shape: [N, C, ...sizes], forward };
}

describe("maxPool", () => {
  it("gives the largest entries, and its gradient is the finite difference", async () => {
    await fc.assert(
      fc.asyncProperty(poolCase, fc.nat(1000), async (c, seed) => {
        if (contradicts(c)) {
          const x = input("x", spec("f32", [N, C, ...c.lengths]));
          expect(() => maxPool(x, c.kernel, options(c))).toThrow("would start in the padding");
          return;
        }
        const { shape, forward } = oracle(c, (values) => Math.max(...values));
        const x = noise(N * C * product(c.lengths), seed);
        const r = noise(product(shape), seed + 1);
        const [y, dx] = await run(
          (x, r) => {
            const y = maxPool(x!, c.kernel, options(c));
            return [y, grad(squareLoss(y, r!), x!)];
          },
          f64(x, [N, C, ...c.lengths]),
          f64(r, shape),
        );
        expect(y!.shape).toEqual(shape);
        expectClose(y, forward(x), 1e-12);
        const loss = (x: Float64Array): number => forward(x).reduce((s, v, i) => s + r[i]! * v * v, 0);
        expectClose(dx, differences(loss, x), 1e-6);
      }),
      { seed: 11, numRuns: 40 },
    );
  });

  it("hands the gradient to the first of equal entries, whatever the order of its indices", async () => {
    for (const storage_order of [0, 1]) {
      const [dx] = await run(
        (x) => {
          const [y] = [op("MaxPool", [x!], { kernel_shape: [2, 2], storage_order })];
          return grad(sum(y!), x!);
        },
        f32(new Float32Array(12).fill(1), [1, 1, 3, 4]),
      );
      expect(dx!.toArray()).toEqual([1, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 0]);
    }
  });

  it("has a gradient of its gradient", async () => {
    const [x, r] = [noise(2 * 6, 1), noise(2 * 3, 2)];
    // The slope of sum(r y^3) in the direction of x^2.
    const slope = (x: Float64Array): number => {
      let total = 0;
      for (let w = 0; w < 6; w++) {
        const [a, b] = [x[2 * w]!, x[2 * w + 1]!];
        total += 3 * r[w]! * Math.max(a, b) ** 4;
      }
      return total;
    };
    const [ddx] = await run(
      (x, r) => {
        const y = maxPool(x!, 2);
        const dx = grad(sum(mul(r!, mul(y, mul(y, y)))), x!);
        return grad(sum(mul(dx, mul(x!, x!))), x!);
      },
      f64(x, [1, 2, 6]),
      f64(r, [1, 2, 3]),
    );
    expectClose(ddx, differences(slope, x), 1e-6);
  });

  it("works on whole numbers", async () => {
    const { HostTensor } = await import("../../src/tensor/index.ts");
    const [y] = await run((x) => maxPool(x!, 2), HostTensor.from(Uint8Array.of(1, 9, 4, 3), { shape: [1, 1, 4] }));
    expect(y!.toArray()).toEqual([9, 4]);
  });
});

describe("averagePool", () => {
  it("gives the means, and its gradient is the finite difference", async () => {
    await fc.assert(
      fc.asyncProperty(poolCase, fc.boolean(), fc.nat(1000), async (c, countPadding, seed) => {
        if (contradicts(c)) {
          const x = input("x", spec("f32", [N, C, ...c.lengths]));
          expect(() => averagePool(x, c.kernel, options(c))).toThrow("would start in the padding");
          return;
        }
        const { shape, forward } = oracle(
          c,
          (values, padded) => values.reduce((a, b) => a + b, 0) / (countPadding ? padded : values.length),
        );
        const x = noise(N * C * product(c.lengths), seed);
        const r = noise(product(shape), seed + 1);
        const [y, dx] = await run(
          (x, r) => {
            const y = averagePool(x!, c.kernel, { ...options(c), countPadding });
            return [y, grad(squareLoss(y, r!), x!)];
          },
          f32(x, [N, C, ...c.lengths]),
          f32(r, shape),
        );
        expect(y!.shape).toEqual(shape);
        expectClose(y, forward(x));
        const loss = (x: Float64Array): number => forward(x).reduce((s, v, i) => s + r[i]! * v * v, 0);
        expectClose(dx, differences(loss, x));
      }),
      { seed: 12, numRuns: 40 },
    );
  });

  it("differentiates windows side by side, twice", async () => {
    const x = noise(2 * 4 * 6, 3);
    const slope = (x: Float64Array): number => {
      // The gradient of sum(y^3) in the direction of x^2.
      let total = 0;
      for (let n = 0; n < 2; n++)
        for (let p = 0; p < 2; p++)
          for (let q = 0; q < 2; q++) {
            const cell = positions([2, 3]).map(([i, j]) => x[n * 24 + (2 * p + i!) * 6 + 3 * q + j!]!);
            const mean = cell.reduce((a, b) => a + b, 0) / 6;
            for (const v of cell) total += (3 * mean * mean * v * v) / 6;
          }
      return total;
    };
    const [dx] = await run(
      (x) => {
        const y = averagePool(x!, [2, 3]);
        return grad(sum(mul(grad(sum(mul(y, mul(y, y))), x!), mul(x!, x!))), x!);
      },
      f32(x, [1, 2, 4, 6]),
    );
    expectClose(dx, differences(slope, x));
  });

  it("resolves auto_pad as onnxruntime does", async () => {
    for (const auto_pad of ["SAME_UPPER", "SAME_LOWER", "VALID"]) {
      for (const [kernel, stride] of [
        [3, 2],
        [2, 1],
        [4, 3],
        [1, 2],
      ] as const) {
        const total = auto_pad === "VALID" ? 0 : Math.max(0, (Math.ceil(7 / stride) - 1) * stride + kernel - 7);
        const before = auto_pad === "SAME_LOWER" ? Math.ceil(total / 2) : Math.floor(total / 2);
        const c = {
          lengths: [7],
          kernel: [kernel],
          strides: [stride],
          dilations: [1],
          before: [before],
          behind: [total - before],
          ceilMode: false,
        };
        const { forward, shape } = oracle(c, (values) => values.reduce((a, b) => a + b, 0) / values.length);
        const x = noise(N * C * 7, 5);
        const [y, dx] = await run(
          (x) => {
            const y = op("AveragePool", [x!], { kernel_shape: [kernel], strides: [stride], auto_pad });
            return [y, grad(sum(mul(y, y)), x!)];
          },
          f32(x, [N, C, 7]),
        );
        expect(y!.shape).toEqual(shape);
        expectClose(y, forward(x));
        expectClose(
          dx,
          differences((x) => forward(x).reduce((s, v) => s + v * v, 0), x),
        );
      }
    }
  });
});

describe("global pooling", () => {
  it("reduces all spatial axes", async () => {
    for (const spatial of [[5], [2, 3], [2, 2, 2]]) {
      const n = product(spatial);
      const x = noise(6 * n, 1);
      const image = (x: Float64Array, i: number): Float64Array => x.slice(i * n, (i + 1) * n);
      const mean = (x: Float64Array): number[] =>
        Array.from({ length: 6 }, (_, i) => image(x, i).reduce((a, b) => a + b, 0) / n);
      const top = (x: Float64Array): number[] => Array.from({ length: 6 }, (_, i) => Math.max(...image(x, i)));
      const [a, da, m, dm] = await run(
        (x) => {
          const [a, m] = [globalAveragePool(x!), globalMaxPool(x!)];
          return [a, grad(sum(mul(a, a)), x!), m, grad(sum(mul(m, m)), x!)];
        },
        f32(x, [2, 3, ...spatial]),
      );
      expect(a!.shape).toEqual([2, 3, ...spatial.map(() => 1)]);
      expectClose(a, mean(x));
      expectClose(m, top(x));
      expectClose(
        da,
        differences((x) => mean(x).reduce((s, v) => s + v * v, 0), x),
      );
      expectClose(
        dm,
        differences((x) => top(x).reduce((s, v) => s + v * v, 0), x),
      );
    }
  });
});

describe("poolings", () => {
  it("say what does not fit", () => {
    const x = input("x", spec("f32", [1, 3, 5, 4]));
    expect(() => maxPool(x, 6)).toThrow("its window covers 6 entries, but spatial axis 0 has 5 and padding of 0");
    expect(() => maxPool(x, 2, { padding: 2 })).toThrow(
      "its padding of 2 on spatial axis 0 is not smaller than its window of 2",
    );
    expect(() => maxPool(input("x", spec("f32", [1, 3, 1])), 2, { padding: 1, dilation: 2 })).toThrow(
      "its dilation of 2 steps over all 1 entries of spatial axis 0",
    );
    expect(() => maxPool(x, [2, 2, 2])).toThrow("kernel lists 3 entries for 2 spatial axes");
    expect(() => maxPool(x, 0)).toThrow("its window [0, 0] is empty");
    expect(() => op("MaxPool", [x], { kernel_shape: [2] })).toThrow("needs one entry for each of 2 spatial axes");
    expect(() => averagePool(input("x", spec("i32", [1, 3, 5])), 2)).toThrow(
      "it takes floating-point numbers, not i32",
    );
    expect(() => globalMaxPool(input("x", spec("f32", [1, 3])))).toThrow("it takes [batch, channels, ...1 to 3");
    const skipping = (auto_pad: string): Tensor =>
      op("AveragePool", [x], { auto_pad, kernel_shape: [1, 1], strides: [3, 3] });
    expect(skipping("VALID").shape).toEqual([1, 3, 2, 2]);
    expect(skipping("NOTSET").shape).toEqual([1, 3, 2, 2]);
    expect(() => skipping("SAME_UPPER")).toThrow("auto_pad does not go with strides of 3 over a window of 1");
    const named = input("x", spec("f32", [1, 3, "h"]));
    expect(maxPool(named, 2, { ceilMode: true }).shape).toEqual([1, 3, "floor(h+-1/2)+1"]);
    expect(() => maxPool(named, 2, { ceilMode: true, padding: 1 })).toThrow('must be a number here, but it is "h"');
  });
});
