import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  add,
  applyOp,
  batchNorm,
  findOp,
  grad,
  groupNorm,
  HostTensor,
  input,
  instanceNorm,
  layerNorm,
  lpNormalize,
  mul,
  op,
  rmsNorm,
  spec,
  sum,
  type Tensor,
} from "../../src/tensor/index.ts";
import { differences, expectClose, f32, f64, noise, product } from "../support/differences.ts";
import { run, runOn } from "../support/run.ts";

const squareLoss = (y: Tensor, r: Tensor): Tensor => sum(mul(r, mul(y, y)));
const weigh = (y: ArrayLike<number>, r: Float64Array): number => r.reduce((s, w, i) => s + w * y[i]! ** 2, 0);

/** Every set of entries of `x` that `key` gives one name, with mean 0 (if asked for) and variance or mean square 1. */
function normalizeBy(x: Float64Array, key: (i: number) => number, epsilon: number, centred = true): Float64Array {
  const sets = new Map<number, number[]>();
  x.forEach((_, i) => {
    sets.set(key(i), [...(sets.get(key(i)) ?? []), i]);
  });
  const y = new Float64Array(x.length);
  for (const members of sets.values()) {
    const mean = centred ? members.reduce((s, i) => s + x[i]!, 0) / members.length : 0;
    const spread = members.reduce((s, i) => s + (x[i]! - mean) ** 2, 0) / members.length;
    for (const i of members) y[i] = (x[i]! - mean) / Math.sqrt(spread + epsilon);
  }
  return y;
}

const rowCase = fc
  .record({
    shape: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
    axis: fc.nat(2),
    epsilon: fc.constantFrom(1e-3, 0.1),
    seed: fc.nat(1000),
  })
  .map((c) => ({ ...c, axis: Math.min(c.axis, c.shape.length - 1) }));

describe.each([
  { name: "layerNorm", centred: true },
  { name: "rmsNorm", centred: false },
])("$name", ({ centred }) => {
  const apply = (
    x: Tensor,
    scale: Tensor | null,
    bias: Tensor | null,
    options: { axis?: number; epsilon: number },
  ): Tensor => (centred ? layerNorm(x, scale, bias, options) : rmsNorm(x, scale, options));

  it("gives the plain formula, and its gradients are finite differences of it", async () => {
    await fc.assert(
      fc.asyncProperty(rowCase, fc.constantFrom("f32", "f64"), async ({ shape, axis, epsilon, seed }, dtype) => {
        const row = shape.slice(axis);
        const size = product(row);
        const [x, scale, bias, r] = [
          noise(product(shape), seed),
          noise(size, seed + 1),
          noise(size, seed + 2),
          noise(product(shape), seed + 3),
        ];
        const forward = (x: Float64Array, scale: Float64Array, bias: Float64Array): Float64Array =>
          normalizeBy(x, (i) => Math.floor(i / size), epsilon, centred).map(
            (v, i) => v * scale[i % size]! + (centred ? bias[i % size]! : 0),
          );
        const host = dtype === "f32" ? f32 : f64;
        const [y, dx, dScale, dBias] = await run(
          (x, scale, bias, r) => {
            const y = apply(x!, scale!, bias!, { axis: axis - shape.length, epsilon });
            return [y, ...grad(squareLoss(y, r!), [x!, scale!, bias!])];
          },
          host(x, shape),
          host(scale, row),
          host(bias, row),
          host(r, shape),
        );
        const tolerance = dtype === "f32" ? 1e-3 : 1e-5;
        expectClose(y, forward(x, scale, bias), tolerance);
        expectClose(
          dx,
          differences((t) => weigh(forward(t, scale, bias), r), x),
          tolerance,
        );
        expectClose(
          dScale,
          differences((t) => weigh(forward(x, t, bias), r), scale),
          tolerance,
        );
        expectClose(
          dBias,
          differences((t) => weigh(forward(x, scale, t), r), bias),
          tolerance,
        );
      }),
      { seed: 531, numRuns: 250 },
    );
  });

  it("has gradients of gradients, through the kernel's statistics too", async () => {
    const [x, scale, r, u] = [noise(12, 1), noise(4, 2), noise(12, 3), noise(12, 4)] as const;
    const slope = (x: Float64Array): number => {
      const value = (x: Float64Array): number =>
        weigh(
          normalizeBy(x, (i) => Math.floor(i / 4), 0.1, centred).map((v, i) => v * scale[i % 4]!),
          r,
        );
      return differences(value, x, 1e-4).reduce((s, d, i) => s + d * u[i]!, 0);
    };
    for (const host of [f32, f64]) {
      const [ddx] = await run(
        (x, scale, r, u) => {
          const dx = grad(squareLoss(apply(x!, scale!, null, { epsilon: 0.1 }), r!), x!);
          return grad(sum(mul(dx, u!)), x!);
        },
        host(x, [3, 4]),
        host(scale, [4]),
        host(r, [3, 4]),
        host(u, [3, 4]),
      );
      expectClose(ddx, differences(slope, x, 1e-4), 1e-3);
    }
  });

  it("works without scale and bias, and on rows of unknown number", async () => {
    const x = noise(8, 5);
    const want = normalizeBy(x, (i) => Math.floor(i / 4), 1e-5, centred);
    const [y] = await run((x) => apply(x!, null, null, { epsilon: 1e-5 }), f32(x, [2, 4]));
    expectClose(y, want);
    const named = apply(input("x", spec("f32", ["rows", "dim"])), null, null, { epsilon: 1e-5 });
    expect(named.shape).toEqual(["rows", "dim"]);
  });

  it("computes half precision in single precision", async () => {
    const x = noise(8, 5);
    const half = HostTensor.from(Float64Array.from(x), { shape: [2, 4] }).cast("f16");
    const [y, dx] = await run((x) => {
      const y = apply(x!, null, null, { epsilon: 1e-5 });
      return [y, grad(sum(mul(y, mul(y, y))), x!)];
    }, half);
    expect([y!.dtype, dx!.dtype]).toEqual(["f16", "f16"]);
    const forward = (x: Float64Array): Float64Array => normalizeBy(x, (i) => Math.floor(i / 4), 1e-5, centred);
    expectClose(y, forward(x), 2e-3);
    expectClose(
      dx,
      differences((x) => forward(x).reduce((s, v) => s + v ** 3, 0), x),
      1e-2,
    );
  });

  it("says what does not fit", () => {
    const x = input("x", spec("f32", [2, 3, 4]));
    expect(() => apply(x, input("s", spec("f32", [3])), null, { epsilon: 1e-5 })).toThrow(
      "its scale and bias must be [4], the axes that it normalises, not [3]",
    );
    expect(() => apply(x, input("s", spec("f64", [4])), null, { epsilon: 1e-5 })).toThrow("f32 and f64");
    expect(() => apply(x, null, null, { axis: 3, epsilon: 1e-5 })).toThrow(
      "axis 3 is outside of a tensor with 3 dimensions",
    );
    expect(() => apply(input("i", spec("i32", [4])), null, null, { epsilon: 1e-5 })).toThrow("not i32");
  });
});

describe("the statistics of LayerNormalization", () => {
  it("are results that gradients flow through", async () => {
    const [x, a, b] = [noise(6, 1), noise(2, 2), noise(2, 3)];
    const value = (x: Float64Array): number => {
      let total = 0;
      for (let row = 0; row < 2; row++) {
        const line = x.slice(3 * row, 3 * row + 3);
        const mean = line.reduce((s, v) => s + v, 0) / 3;
        const variance = line.reduce((s, v) => s + (v - mean) ** 2, 0) / 3;
        total += a[row]! * mean + b[row]! / Math.sqrt(variance + 1e-5);
      }
      return total;
    };
    const [dx] = await run(
      (x, ones, a, b) => {
        const [, mean, inverse] = applyOp("LayerNormalization", [x!, ones!], {}, 3);
        return grad(add(sum(mul(mean!, a!)), sum(mul(inverse!, b!))), x!);
      },
      f32(x, [2, 3]),
      f32([1, 1, 1], [3]),
      f32(a, [2, 1]),
      f32(b, [2, 1]),
    );
    expectClose(dx, differences(value, x), 1e-3);
    const stash = () =>
      op("LayerNormalization", [input("x", spec("f32", [2])), input("s", spec("f32", [2]))], { stash_type: 16 });
    expect(stash).toThrow("its statistics are kept in f32 (stash_type 1), not in type 16");
  });
});

const imageCase = fc.record({
  batch: fc.integer({ min: 1, max: 3 }),
  groups: fc.integer({ min: 1, max: 2 }),
  size: fc.integer({ min: 1, max: 2 }),
  spatial: fc.array(fc.integer({ min: 2, max: 3 }), { minLength: 1, maxLength: 2 }),
  epsilon: fc.constantFrom(1e-3, 0.1),
  seed: fc.nat(1000),
});

/** Which set of entries is normalised together, from the indices of example, group and channel. */
const kinds = {
  groupNorm: (n: number, g: number, _c: number, groups: number) => n * groups + g,
  instanceNorm: (n: number, _g: number, c: number, _groups: number, channels: number) => n * channels + c,
  batchNorm: (_n: number, _g: number, c: number) => c,
};

describe.each(["groupNorm", "instanceNorm", "batchNorm"] as const)("%s", (kind) => {
  const apply = (x: Tensor, groups: number, scale: Tensor | null, bias: Tensor | null, epsilon: number): Tensor =>
    kind === "groupNorm"
      ? groupNorm(x, groups, scale, bias, { epsilon })
      : kind === "instanceNorm"
        ? instanceNorm(x, scale, bias, { epsilon })
        : batchNorm(x, scale, bias, { epsilon }).y;

  it("gives the plain formula, and its gradients are finite differences of it", async () => {
    await fc.assert(
      fc.asyncProperty(imageCase, async ({ batch, groups, size, spatial, epsilon, seed }) => {
        const channels = groups * size;
        const shape = [batch, channels, ...spatial];
        const [x, scale, bias, r] = [
          noise(product(shape), seed),
          noise(channels, seed + 1),
          noise(channels, seed + 2),
          noise(product(shape), seed + 3),
        ];
        const channelOf = (i: number): number => Math.floor(i / product(spatial)) % channels;
        const key = (i: number): number =>
          kinds[kind](
            Math.floor(i / product(spatial) / channels),
            Math.floor(channelOf(i) / size),
            channelOf(i),
            groups,
            channels,
          );
        const forward = (x: Float64Array, scale: Float64Array, bias: Float64Array): Float64Array =>
          normalizeBy(x, key, epsilon).map((v, i) => v * scale[channelOf(i)]! + bias[channelOf(i)]!);
        const [y, dx, dScale, dBias, bare] = await run(
          (x, scale, bias, r) => {
            const y = apply(x!, groups, scale!, bias!, epsilon);
            return [y, ...grad(squareLoss(y, r!), [x!, scale!, bias!]), apply(x!, groups, null, null, epsilon)];
          },
          f32(x, shape),
          f32(scale, [channels]),
          f32(bias, [channels]),
          f32(r, shape),
        );
        expectClose(y, forward(x, scale, bias), 1e-3);
        expectClose(
          dx,
          differences((t) => weigh(forward(t, scale, bias), r), x),
          1e-3,
        );
        expectClose(
          dScale,
          differences((t) => weigh(forward(x, t, bias), r), scale),
          1e-3,
        );
        expectClose(
          dBias,
          differences((t) => weigh(forward(x, scale, t), r), bias),
          1e-3,
        );
        expectClose(bare, normalizeBy(x, key, epsilon), 1e-3);
      }),
      { seed: 532, numRuns: 250 },
    );
  });

  it("says what does not fit", () => {
    const x = input("x", spec("f32", [2, 6, 4]));
    if (kind !== "batchNorm")
      expect(() => apply(x, 2, input("s", spec("f32", [4])), null, 1e-5)).toThrow(
        "its input 1 must be [6], one number per channel, not [4]",
      );
    if (kind === "groupNorm") {
      expect(() => apply(x, 4, null, null, 1e-5)).toThrow("its 6 channels do not split into 4 groups");
      expect(() => apply(x, 0, null, null, 1e-5)).toThrow("its 6 channels do not split into 0 groups");
    }
    expect(() => apply(input("x", spec("i32", [2, 6])), 2, null, null, 1e-5)).toThrow("i32");
  });

  it("follows a batch without a number", () => {
    expect(apply(input("x", spec("f32", ["n", 4, "h", 3])), 2, null, null, 1e-5).shape).toEqual(["n", 4, "h", 3]);
  });
});

describe("batchNorm", () => {
  it("returns the statistics of the batch, which can be used again", async () => {
    const x = noise(2 * 3 * 4, 1);
    const of = (c: number): number[] => Array.from(x).filter((_, i) => Math.floor(i / 4) % 3 === c);
    const means = [0, 1, 2].map((c) => of(c).reduce((s, v) => s + v, 0) / 8);
    const variances = [0, 1, 2].map((c) => of(c).reduce((s, v) => s + (v - means[c]!) ** 2, 0) / 8);
    const [y, mean, variance, again] = await run(
      (x) => {
        const { y, mean, variance } = batchNorm(x!);
        return [y, mean, variance, batchNorm(x!, null, null, { statistics: { mean, variance } }).y];
      },
      f32(x, [2, 3, 4]),
    );
    expectClose(mean, means);
    expectClose(variance, variances);
    expect(mean!.shape).toEqual([3]);
    expectClose(again, y!.toArray());
  });

  it("differentiates the form with given statistics in all its inputs", async () => {
    const parts = [noise(12, 1), noise(3, 2), noise(3, 3), noise(3, 4), noise(3, 5).map((v) => v + 1.5)];
    const r = noise(12, 6);
    const value = (p: Float64Array[]): number =>
      weigh(
        p[0]!.map((v, i) => {
          const c = Math.floor(i / 2) % 3;
          return ((v - p[3]![c]!) / Math.sqrt(p[4]![c]! + 1e-5)) * p[1]![c]! + p[2]![c]!;
        }),
        r,
      );
    const given = await run(
      (r, x, scale, bias, mean, variance) => {
        const { y } = batchNorm(x!, scale, bias, { statistics: { mean: mean!, variance: variance! } });
        return grad(squareLoss(y, r!), [x!, scale!, bias!, mean!, variance!]);
      },
      f64(r, [2, 3, 2]),
      f64(parts[0]!, [2, 3, 2]),
      ...parts.slice(1).map((p) => f64(p, [3])),
    );
    given.forEach((g, k) => {
      expectClose(
        g,
        differences((t) => value(parts.map((p, i) => (i === k ? t : p))), parts[k]!),
        1e-6,
      );
    });
    const training = () =>
      op(
        "BatchNormalization",
        [0, 1, 2, 3, 4].map((i) => input(`${i}`, spec("f32", i ? [3] : [2, 3]))),
        { training_mode: 1 },
      );
    expect(training).toThrow("it works with given statistics only");
  });
});

describe("lpNormalize", () => {
  it("gives lines of length 1, and its gradient is the finite difference", async () => {
    for (const p of [1, 2] as const) {
      for (const axis of [0, 1, -1]) {
        const shape = [2, 3, 2];
        const [x, r] = [noise(12, 1), noise(12, 2)];
        const strides = [6, 2, 1];
        const stride = strides.at(axis)!;
        const length = shape.at(axis)!;
        const forward = (x: Float64Array): Float64Array =>
          x.map((v, i) => {
            const first = i - (Math.floor(i / stride) % length) * stride;
            let total = 0;
            for (let k = 0; k < length; k++) total += Math.abs(x[first + k * stride]!) ** p;
            return v / total ** (1 / p);
          });
        const [y, dx] = await run(
          (x, r) => {
            const y = lpNormalize(x!, axis, p);
            return [y, grad(squareLoss(y, r!), x!)];
          },
          f64(x, shape),
          f64(r, shape),
        );
        expectClose(y, forward(x), 1e-10);
        expectClose(
          dx,
          differences((t) => weigh(forward(t), r), x),
          1e-6,
        );
      }
    }
    const x = input("x", spec("f32", [2, 3]));
    expect(() => op("LpNormalization", [x], { p: 3 })).toThrow("its p must be 1 or 2, not 3");
    expect(() => lpNormalize(x, 2)).toThrow("axis 2 is outside");
  });
});

describe("portable forms", () => {
  it("compute the same as the kernels", async () => {
    const [x, scale, bias] = [noise(2 * 4 * 6, 1), noise(4, 2), noise(4, 3)];
    const row = noise(6, 4);
    const cases: [string, readonly (readonly number[])[], Record<string, number>, number][] = [
      ["LayerNormalization", [[6], [6]], { axis: -1, epsilon: 0.01 }, 3],
      ["LayerNormalization", [[6]], { axis: 2 }, 1],
      ["SimplifiedLayerNormalization", [[6]], { epsilon: 0.01 }, 2],
      ["GroupNormalization", [[4], [4]], { num_groups: 2, epsilon: 0.01 }, 1],
      ["InstanceNormalization", [[4], [4]], { epsilon: 0.01 }, 1],
      ["LpNormalization", [], { p: 1 }, 1],
    ];
    for (const [name, shapes, attrs, count] of cases) {
      const params = shapes.map(([n], i) => f32(n === 6 ? row : i === 0 ? scale : bias, [n!]));
      const results = await run(
        (x, ...params) => {
          const inputs = [x!, ...params];
          return [...applyOp(name, inputs, attrs, count), ...findOp(name)!.expand!(inputs, attrs, count)];
        },
        f32(x, [2, 4, 6]),
        ...params,
      );
      expect(results.length).toBe(2 * count);
      for (let i = 0; i < count; i++) expectClose(results[i], results[count + i]!.toArray());
    }
    const [kernel] = await run((x) => rmsNorm(x!), f32(x, [8, 6]));
    const [wasm] = await runOn({ device: "wasm" }, (x) => rmsNorm(x!), f32(x, [8, 6]));
    expectClose(wasm, kernel!.toArray());
  });
});
