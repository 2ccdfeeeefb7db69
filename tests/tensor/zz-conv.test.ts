import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import { conv, convTranspose, grad, input, mul, op, spec, sum, type Tensor } from "../../src/tensor/index.ts";
import { differences, expectClose, f32, noise, product } from "../support/differences.ts";
import { run } from "../support/run.ts";

/** A convolution between `big` and `small`, as both directions see it; lists have one entry per spatial axis. */
interface Case {
  batch: number;
  groups: number;
  /** Channels of one group, of `big` and of `small`. */
  inner: number;
  outer: number;
  kernel: number[];
  strides: number[];
  dilations: number[];
  before: number[];
  behind: number[];
  big: number[];
  small: number[];
}

const shapes = (c: Case): { big: number[]; w: number[]; small: number[] } => ({
  big: [c.batch, c.groups * c.inner, ...c.big],
  w: [c.groups * c.outer, c.inner, ...c.kernel],
  small: [c.batch, c.groups * c.outer, ...c.small],
});

function positions(shape: readonly number[]): number[][] {
  return shape.reduce<number[][]>((all, n) => all.flatMap((p) => Array.from({ length: n }, (_, i) => [...p, i])), [[]]);
}

const flat = (at: readonly number[], shape: readonly number[]): number =>
  at.reduce((sum, i, k) => sum * shape[k]! + i, 0);

/** The terms of the sum that ties the three tensors together, as flat indices `[big, w, small]`. */
function terms(c: Case): [number, number, number][] {
  const shape = shapes(c);
  const found: [number, number, number][] = [];
  for (let n = 0; n < c.batch; n++)
    for (let g = 0; g < c.groups; g++)
      for (let o = 0; o < c.outer; o++)
        for (let i = 0; i < c.inner; i++)
          for (const p of positions(c.small))
            for (const k of positions(c.kernel)) {
              const at = p.map((v, a) => v * c.strides[a]! + k[a]! * c.dilations[a]! - c.before[a]!);
              if (at.some((v, a) => v < 0 || v >= c.big[a]!)) continue;
              found.push([
                flat([n, g * c.inner + i, ...at], shape.big),
                flat([g * c.outer + o, i, ...k], shape.w),
                flat([n, g * c.outer + o, ...p], shape.small),
              ]);
            }
  return found;
}

/** `into[t[target]] += a[t[first]] * b[t[second]]` over all terms. */
function contract(
  all: readonly [number, number, number][],
  target: 0 | 1 | 2,
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  size: number,
): Float64Array {
  const [first, second] = target === 0 ? [1, 2] : target === 1 ? [0, 2] : [0, 1];
  const result = new Float64Array(size);
  for (const t of all) result[t[target]]! += a[t[first!]!]! * b[t[second!]!]!;
  return result;
}

const axis = fc.record({
  kernel: fc.integer({ min: 1, max: 3 }),
  stride: fc.integer({ min: 1, max: 3 }),
  dilation: fc.integer({ min: 1, max: 2 }),
  before: fc.integer({ min: 0, max: 3 }),
  behind: fc.integer({ min: 0, max: 3 }),
  windows: fc.integer({ min: 1, max: 3 }),
  /** Entries behind the last window, too few for another. */
  rest: fc.integer({ min: 0, max: 2 }),
});

const convCase: fc.Arbitrary<Case> = fc
  .record({
    batch: fc.integer({ min: 1, max: 2 }),
    groups: fc.integer({ min: 1, max: 2 }),
    inner: fc.integer({ min: 1, max: 3 }),
    outer: fc.integer({ min: 1, max: 3 }),
    axes: fc.array(axis, { minLength: 1, maxLength: 3 }),
  })
  .map(({ axes, ...rest }) => {
    const extent = axes.map((a) => a.dilation * (a.kernel - 1) + 1);
    const big = axes.map((a, i) =>
      Math.max(1, (a.windows - 1) * a.stride + extent[i]! - a.before - a.behind + Math.min(a.rest, a.stride - 1)),
    );
    return {
      ...rest,
      kernel: axes.map((a) => a.kernel),
      strides: axes.map((a) => a.stride),
      dilations: axes.map((a) => a.dilation),
      before: axes.map((a) => a.before),
      behind: axes.map((a) => a.behind),
      big,
      small: axes.map((a, i) => Math.floor((big[i]! + a.before + a.behind - extent[i]!) / a.stride) + 1),
    };
  });

/** Its only window lies in the padding, so that every gradient is zero. */
const unseen: Case = {
  batch: 1,
  groups: 1,
  inner: 1,
  outer: 1,
  kernel: [1],
  strides: [3],
  dilations: [1],
  before: [2],
  behind: [0],
  big: [1],
  small: [1],
};

const options = (c: Case) => ({
  stride: c.strides,
  dilation: c.dilations,
  padding: c.before.map((b, i) => [b, c.behind[i]!] as const),
  groups: c.groups,
});

/** Entries that a transposed convolution adds so that its result has the length of `big`; undefined where it cannot. */
function outputPadding(c: Case): number[] | undefined {
  const extra = c.big.map(
    (n, i) =>
      n - ((c.small[i]! - 1) * c.strides[i]! + c.dilations[i]! * (c.kernel[i]! - 1) + 1 - c.before[i]! - c.behind[i]!),
  );
  return extra.every((n, i) => n >= 0 && n < Math.max(c.strides[i]!, c.dilations[i]!)) ? extra : undefined;
}

const squareLoss = (y: Tensor, r: Tensor): Tensor => sum(mul(r, mul(y, y)));

describe("conv", () => {
  it("gives the plain sum, and its gradients are finite differences of it", async () => {
    await fc.assert(
      fc.asyncProperty(convCase, fc.nat(1000), async (c, seed) => {
        const shape = shapes(c);
        const all = terms(c);
        const size = product(shape.small);
        const [x, w, bias, r] = [
          noise(product(shape.big), seed),
          noise(product(shape.w), seed + 1),
          noise(c.groups * c.outer, seed + 2),
          noise(size, seed + 3),
        ];
        const channel = (i: number): number => Math.floor(i / product(c.small)) % bias.length;
        const forward = (x: Float64Array, w: Float64Array, bias: Float64Array): Float64Array =>
          contract(all, 2, x, w, size).map((v, i) => v + bias[channel(i)]!);
        const loss = (x: Float64Array, w: Float64Array, bias: Float64Array): number =>
          forward(x, w, bias).reduce((s, y, i) => s + r[i]! * y * y, 0);
        const [y, dx, dw, db] = await run(
          (x, w, bias, r) => {
            const y = conv(x!, w!, { ...options(c), bias: bias! });
            return [y, ...grad(squareLoss(y, r!), [x!, w!, bias!])];
          },
          f32(x, shape.big),
          f32(w, shape.w),
          f32(bias, [bias.length]),
          f32(r, shape.small),
        );
        expect(y!.shape).toEqual(shape.small);
        expectClose(y, forward(x, w, bias));
        expectClose(
          dx,
          differences((v) => loss(v, w, bias), x),
        );
        expectClose(
          dw,
          differences((v) => loss(x, v, bias), w),
        );
        expectClose(
          db,
          differences((v) => loss(x, w, v), bias),
        );
      }),
      { seed: 57, numRuns: 250, examples: [[unseen, 0]] },
    );
  });

  it("has gradients of gradients", async () => {
    await fc.assert(
      fc.asyncProperty(convCase, fc.nat(1000), async (c, seed) => {
        const shape = shapes(c);
        const all = terms(c);
        const [sx, sw, sy] = [product(shape.big), product(shape.w), product(shape.small)];
        const [x, w, r, u, v] = [sx, sw, sy, sx, sw].map((n, i) => noise(n, seed + i)) as [
          Float64Array,
          Float64Array,
          Float64Array,
          Float64Array,
          Float64Array,
        ];
        // The gradients of sum(r y^2), each weighted, as one number.
        const slope = (x: Float64Array, w: Float64Array): number => {
          const dy = contract(all, 2, x, w, sy).map((y, i) => 2 * r[i]! * y);
          const dx = contract(all, 0, w, dy, sx);
          const dw = contract(all, 1, x, dy, sw);
          return dx.reduce((s, d, i) => s + d * u[i]!, 0) + dw.reduce((s, d, i) => s + d * v[i]!, 0);
        };
        const [gx, gw] = await run(
          (x, w, r, u, v) => {
            const [dx, dw] = grad(squareLoss(conv(x!, w!, options(c)), r!), [x!, w!]);
            return grad(op("Add", [sum(mul(dx!, u!)), sum(mul(dw!, v!))]), [x!, w!]);
          },
          f32(x, shape.big),
          f32(w, shape.w),
          f32(r, shape.small),
          f32(u, shape.big),
          f32(v, shape.w),
        );
        expectClose(
          gx,
          differences((t) => slope(t, w), x),
        );
        expectClose(
          gw,
          differences((t) => slope(x, t), w),
        );
      }),
      { seed: 58, numRuns: 250, examples: [[unseen, 0]] },
    );
  });

  it("takes one number for all axes, and words for padding", async () => {
    const x = f32(noise(2 * 3 * 6 * 5, 1), [2, 3, 6, 5]);
    const w = f32(noise(4 * 3 * 3 * 3, 2), [4, 3, 3, 3]);
    const [same, spelled, causal, mixed] = await run(
      (x, w) => [
        conv(x!, w!, { padding: "same", stride: 2, dilation: 2 }),
        conv(x!, w!, {
          padding: [
            [1, 2],
            [2, 2],
          ],
          stride: 2,
          dilation: 2,
        }),
        conv(x!, w!, { padding: "causal" }),
        conv(x!, w!, { padding: ["causal", 1] }),
      ],
      x,
      w,
    );
    expect(same!.shape).toEqual([2, 4, 3, 3]);
    expect(same!.toArray()).toEqual(spelled!.toArray());
    expect(causal!.shape).toEqual([2, 4, 6, 5]);
    expect(mixed!.shape).toEqual([2, 4, 6, 5]);
    // Nothing behind a position reaches it.
    const past = x.clone();
    for (let i = 0; i < past.size; i++) if (Math.floor(i / 5) % 6 >= 4) past.set(i, 0);
    const [cut] = await run((x, w) => conv(x!, w!, { padding: ["causal", 1] }), past, w);
    const rows = (t: typeof x): number[] => t.toArray().filter((_, i) => Math.floor(i / 5) % 6 < 4);
    expect(rows(cut!)).toEqual(rows(mixed!));
  });

  it("follows names of dimensions, and its gradient works for any batch", async () => {
    const y = conv(input("x", spec("f32", ["batch", 3, "h", "w"])), input("k", spec("f32", [8, 3, 3, 3])), {
      stride: 2,
      padding: 1,
    });
    expect(y.shape).toEqual(["batch", 8, "floor(h+-1/2)+1", "floor(w+-1/2)+1"]);
    for (const [channels, groups] of [
      [3, 1],
      [12, 1],
      [4, 2],
    ] as const) {
      const c: Case = {
        batch: 3,
        groups,
        inner: channels / groups,
        outer: 2,
        kernel: [3, 2],
        strides: [2, 1],
        dilations: [1, 2],
        before: [1, 0],
        behind: [0, 1],
        big: [5, 6],
        small: [2, 5],
      };
      const shape = shapes(c);
      const [x, w] = [noise(product(shape.big), 3), noise(product(shape.w), 4)];
      await using program = await compile(
        (x, w) => grad(sum(conv(x, w, options(c))), [x, w]),
        [spec("f32", ["batch", channels, 5, 6]), spec("f32", shape.w)],
      );
      const [dx, dw] = await program(f32(x, shape.big), f32(w, shape.w));
      const dy = new Float64Array(product(shape.small)).fill(1);
      expectClose(dx, contract(terms(c), 0, w, dy, x.length));
      expectClose(dw, contract(terms(c), 1, x, dy, w.length));
    }
  });

  it("resolves auto_pad as onnxruntime does", async () => {
    for (const auto_pad of ["SAME_UPPER", "SAME_LOWER", "VALID"]) {
      for (const [kernel, stride] of [
        [3, 1],
        [2, 1],
        [3, 2],
        [1, 3],
        [4, 3],
      ] as const) {
        const [x, w] = [noise(7, 1), noise(kernel, 2)];
        const total = auto_pad === "VALID" ? 0 : Math.max(0, (Math.ceil(7 / stride) - 1) * stride + kernel - 7);
        const before = auto_pad === "SAME_LOWER" ? Math.ceil(total / 2) : Math.floor(total / 2);
        const small = auto_pad === "VALID" ? Math.floor((7 - kernel) / stride) + 1 : Math.ceil(7 / stride);
        const all = terms({
          batch: 1,
          groups: 1,
          inner: 1,
          outer: 1,
          kernel: [kernel],
          strides: [stride],
          dilations: [1],
          before: [before],
          behind: [total - before],
          big: [7],
          small: [small],
        });
        const [y, dx, dw] = await run(
          (x, w) => {
            const y = op("Conv", [x!, w!], { auto_pad, strides: [stride] });
            return [y, ...grad(sum(y), [x!, w!])];
          },
          f32(x, [1, 1, 7]),
          f32(w, [1, 1, kernel]),
        );
        const ones = new Float64Array(small).fill(1);
        expectClose(y, contract(all, 2, x, w, small));
        expectClose(dx, contract(all, 0, w, ones, 7));
        expectClose(dw, contract(all, 1, x, ones, kernel));
      }
    }
  });

  it("says what does not fit", () => {
    const x = input("x", spec("f32", [1, 6, 8, 8]));
    const w = input("w", spec("f32", [4, 3, 3, 3]));
    expect(() => conv(x, w)).toThrow("its input has 6 channels, its weight takes 3 (1 groups of 3)");
    expect(() => conv(x, w, { groups: 3 })).toThrow("[4, 3, 3, 3] does not split into 3 groups");
    expect(() => conv(x, w, { groups: 0 })).toThrow("at least one group, not 0");
    expect(() => conv(x, input("w", spec("f32", [4, 6, 9, 3])))).toThrow(
      "its window covers 9 entries, but spatial axis 0 has 8 and padding of 0",
    );
    expect(() => conv(x, input("w", spec("f32", [4, 6, 3])))).toThrow("needs 2 kernel axes behind the first two");
    expect(() => conv(input("x", spec("f32", [6, 8])), w)).toThrow(
      "it takes [batch, channels, ...1 to 3 spatial axes]",
    );
    expect(() => conv(x, w, { groups: 2, bias: input("b", spec("f32", [3])) })).toThrow("its bias must be [4]");
    expect(() => conv(x, w, { groups: 2, stride: [1, 1, 1] })).toThrow("stride lists 3 entries for 2 spatial axes");
    expect(() => conv(x, w, { groups: 2, stride: 0 })).toThrow("its strides must not be below 1");
    expect(() => conv(x, w, { groups: 2, padding: -1 })).toThrow("its pads must not be below 0");
    expect(() => conv(x, input("w", spec("f64", [4, 6, 3, 3])))).toThrow("f32 and f64");
    expect(() => conv(input("x", spec("i32", [1, 6, 8, 8])), input("w", spec("i32", [4, 6, 3, 3])))).toThrow(
      "it takes floating-point numbers, not i32",
    );
    expect(() => op("Conv", [x, w], { group: 2, kernel_shape: [3, 2] })).toThrow(
      "its kernel_shape [3, 2] is not that of",
    );
    expect(() => op("Conv", [x, w], { group: 2, auto_pad: "SAME" })).toThrow('it has no auto_pad "SAME"');
    expect(() => op("Conv", [x, w], { group: 2, auto_pad: "SAME_UPPER", dilations: [2, 2] })).toThrow("give its pads");
    const named = input("x", spec("f32", [1, 6, "h", 8]));
    expect(() => conv(named, w, { groups: 2, padding: "same", stride: 2 })).toThrow('it is "h"');
  });
});

describe("convTranspose", () => {
  it("gives the plain sum, and its gradients are finite differences of it", async () => {
    await fc.assert(
      fc.asyncProperty(convCase, fc.nat(1000), async (c, seed) => {
        const extra = outputPadding(c);
        fc.pre(extra !== undefined);
        const shape = shapes(c);
        const all = terms(c);
        const size = product(shape.big);
        const [x, w, bias, r] = [
          noise(product(shape.small), seed),
          noise(product(shape.w), seed + 1),
          noise(c.groups * c.inner, seed + 2),
          noise(size, seed + 3),
        ];
        const channel = (i: number): number => Math.floor(i / product(c.big)) % bias.length;
        const forward = (x: Float64Array, w: Float64Array, bias: Float64Array): Float64Array =>
          contract(all, 0, w, x, size).map((v, i) => v + bias[channel(i)]!);
        const loss = (x: Float64Array, w: Float64Array, bias: Float64Array): number =>
          forward(x, w, bias).reduce((s, y, i) => s + r[i]! * y * y, 0);
        const [y, dx, dw, db] = await run(
          (x, w, bias, r) => {
            const y = convTranspose(x!, w!, { ...options(c), bias: bias!, outputPadding: extra! });
            return [y, ...grad(squareLoss(y, r!), [x!, w!, bias!])];
          },
          f32(x, shape.small),
          f32(w, shape.w),
          f32(bias, [bias.length]),
          f32(r, shape.big),
        );
        expect(y!.shape).toEqual(shape.big);
        expectClose(y, forward(x, w, bias));
        expectClose(
          dx,
          differences((v) => loss(v, w, bias), x),
        );
        expectClose(
          dw,
          differences((v) => loss(x, v, bias), w),
        );
        expectClose(
          db,
          differences((v) => loss(x, w, v), bias),
        );
      }),
      { seed: 59, numRuns: 250, examples: [[unseen, 0]] },
    );
  });

  it("resolves auto_pad as onnxruntime does", async () => {
    for (const auto_pad of ["SAME_UPPER", "SAME_LOWER"]) {
      for (const [kernel, stride] of [
        [3, 2],
        [2, 2],
        [4, 1],
      ] as const) {
        const [x, w] = [noise(5, 1), noise(kernel, 2)];
        const total = kernel - stride;
        const before = auto_pad === "SAME_LOWER" ? Math.ceil(total / 2) : Math.floor(total / 2);
        const all = terms({
          batch: 1,
          groups: 1,
          inner: 1,
          outer: 1,
          kernel: [kernel],
          strides: [stride],
          dilations: [1],
          before: [before],
          behind: [total - before],
          big: [5 * stride],
          small: [5],
        });
        const [y, dx, dw] = await run(
          (x, w) => {
            const y = op("ConvTranspose", [x!, w!], { auto_pad, strides: [stride] });
            return [y, ...grad(sum(y), [x!, w!])];
          },
          f32(x, [1, 1, 5]),
          f32(w, [1, 1, kernel]),
        );
        const ones = new Float64Array(5 * stride).fill(1);
        expectClose(y, contract(all, 0, w, x, 5 * stride));
        expectClose(dx, contract(all, 2, ones, w, 5));
        expectClose(dw, contract(all, 1, ones, x, kernel));
      }
    }
  });

  it("says what does not fit", () => {
    const x = input("x", spec("f32", [1, 6, 4]));
    expect(() => convTranspose(x, input("w", spec("f32", [4, 2, 3])))).toThrow(
      "its input has 6 channels, its weight takes 4",
    );
    const w = input("w", spec("f32", [6, 2, 3]));
    expect(() => convTranspose(x, w, { stride: 2, outputPadding: 2 })).toThrow("its output_padding [2] must be");
    expect(() => convTranspose(x, w, { padding: 3 })).toThrow("padding leaves 0 entries of spatial axis 0");
    expect(() => convTranspose(x, w, { groups: 4 })).toThrow("does not split into 4 groups");
    expect(() => convTranspose(x, w, { bias: input("b", spec("f32", [6])) })).toThrow("its bias must be [2]");
    expect(() => op("ConvTranspose", [x, w], { auto_pad: "SAME_UPPER", strides: [4] })).toThrow(
      "auto_pad cannot fill strides of 4 from a window of 3",
    );
    expect(() => op("ConvTranspose", [x, w], { output_shape: [9] })).toThrow('it has no attribute "output_shape"');
  });
});
