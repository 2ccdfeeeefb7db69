import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  grad,
  input,
  ints,
  mul,
  op,
  pixelShuffle,
  pixelUnshuffle,
  type ResizeOptions,
  resize,
  spec,
  sum,
  type Tensor,
} from "../../src/tensor/index.ts";
import { differences, expectClose, f32, f64, noise, product } from "../support/differences.ts";
import { run } from "../support/run.ts";

const squareLoss = (y: Tensor, r: Tensor): Tensor => sum(mul(r, mul(y, y)));

type Mode = "nearest" | "linear" | "cubic";

/** The value at place `at` of a line of numbers, by the textbook's formula for each mode. */
function read(line: readonly number[], at: number, mode: Mode, rounding: string, slope: number): number {
  const last = line.length - 1;
  const pick = (i: number): number => line[Math.min(last, Math.max(0, i))]!;
  if (mode === "nearest") {
    const below = Math.floor(at);
    const rest = at - below;
    if (rounding === "floor") return pick(below);
    if (rounding === "ceil") return pick(rest > 0 ? below + 1 : below);
    return pick(rest < 0.5 || (rest === 0.5 && rounding === "round_prefer_floor") ? below : below + 1);
  }
  const below = Math.floor(at);
  const t = at - below;
  if (mode === "linear") return (1 - t) * pick(below) + t * pick(below + 1);
  const a = slope;
  const near = (d: number): number => (a + 2) * d ** 3 - (a + 3) * d ** 2 + 1;
  const far = (d: number): number => a * d ** 3 - 5 * a * d ** 2 + 8 * a * d - 4 * a;
  return (
    far(1 + t) * pick(below - 1) + near(t) * pick(below) + near(1 - t) * pick(below + 1) + far(2 - t) * pick(below + 2)
  );
}

/**
 * The place in a line of `length` that entry `o` of `result` new ones comes from, rounded to single precision as kernels
 * do, since "nearest" hangs on the last bit.
 */
function place(o: number, length: number, result: number, scale: number, coordinates: string): number {
  const half = Math.fround(Math.fround((o + 0.5) / scale) - 0.5);
  if (coordinates === "align_corners") return result === 1 ? 0 : Math.fround((o * (length - 1)) / (result - 1));
  if (coordinates === "asymmetric") return Math.fround(o / scale);
  if (coordinates === "pytorch_half_pixel") return result > 1 ? half : 0;
  if (coordinates === "half_pixel_symmetric") {
    const offset = (length / 2) * Math.fround(1 - Math.fround(result / Math.fround(scale * length)));
    return Math.fround(offset + (o + 0.5) / scale - 0.5);
  }
  return half;
}

/** Applies `change` to every line along `axis`. */
function alongAxis(
  x: Float64Array,
  shape: readonly number[],
  axis: number,
  change: (line: number[]) => number[],
): { x: Float64Array; shape: number[] } {
  const rest = product(shape.slice(axis + 1));
  const length = shape[axis]!;
  const lead = product(shape.slice(0, axis));
  let result = 0;
  const lines: number[][] = [];
  for (let l = 0; l < lead; l++)
    for (let r = 0; r < rest; r++) {
      const line = change(Array.from({ length }, (_, i) => x[(l * length + i) * rest + r]!));
      result = line.length;
      lines.push(line);
    }
  const y = new Float64Array(lead * result * rest);
  lines.forEach((line, k) => {
    line.forEach((v, i) => {
      y[(Math.floor(k / rest) * result + i) * rest + (k % rest)] = v;
    });
  });
  return { x: y, shape: shape.map((n, i) => (i === axis ? result : n)) };
}

interface Case {
  lengths: number[];
  /** New lengths, or new entries per old one. */
  size?: number[];
  scale?: number[];
  mode: Mode;
  coordinates: NonNullable<ResizeOptions["coordinates"]>;
  rounding: NonNullable<ResizeOptions["rounding"]>;
  cubicSlope: number;
}

/** In single precision, as kernels hold scales. */
const scaleOf = (c: Case, i: number): number =>
  c.scale ? Math.fround(c.scale[i]!) : Math.fround(c.size![i]! / c.lengths[i]!);

const resultOf = (c: Case, i: number): number =>
  c.size ? c.size[i]! : Math.floor(Math.fround(c.lengths[i]! * scaleOf(c, i)));

function resizeOracle(x: Float64Array, c: Case): Float64Array {
  let now = { x, shape: [1, 2, ...c.lengths] };
  if (c.lengths.every((n, i) => n === resultOf(c, i))) return x;
  c.lengths.forEach((length, i) => {
    const [result, scale] = [resultOf(c, i), scaleOf(c, i)];
    now = alongAxis(now.x, now.shape, i + 2, (line) =>
      Array.from({ length: result }, (_, o) =>
        read(line, place(o, length, result, scale, c.coordinates), c.mode, c.rounding, c.cubicSlope),
      ),
    );
  });
  return now.x;
}

const base = fc.record({
  mode: fc.constantFrom<Mode>("nearest", "linear", "cubic"),
  coordinates: fc.constantFrom<Case["coordinates"]>(
    "half_pixel",
    "align_corners",
    "asymmetric",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
  ),
  rounding: fc.constantFrom<Case["rounding"]>("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
  cubicSlope: fc.constantFrom(-0.75, -0.5),
});
const axes = fc.array(
  fc.record({
    length: fc.integer({ min: 1, max: 6 }),
    size: fc.integer({ min: 1, max: 7 }),
    scale: fc.constantFrom(0.5, 1, 1.5, 2, 3, 1.3, 0.7),
  }),
  { minLength: 1, maxLength: 3 },
);
const resizeCase: fc.Arbitrary<Case> = fc
  .tuple(base, axes, fc.boolean())
  .map(([rest, axes, sized]) => ({
    ...rest,
    lengths: axes.map((a) => (sized ? a.length : a.length + 1)),
    ...(sized ? { size: axes.map((a) => a.size) } : { scale: axes.map((a) => a.scale) }),
  }))
  .filter(({ lengths }) => product(lengths) <= 30);

describe("resize", () => {
  it("interpolates as the formulas say, and its gradient is the finite difference", async () => {
    await fc.assert(
      fc.asyncProperty(resizeCase, fc.nat(1000), async (c, seed) => {
        const shape = [1, 2, ...c.lengths];
        const result = [1, 2, ...c.lengths.map((_, i) => resultOf(c, i))];
        const x = noise(product(shape), seed);
        const r = noise(product(result), seed + 1);
        const { lengths: _, ...options } = c;
        const [y, dx] = await run(
          (x, r) => {
            const y = resize(x!, options);
            return [y, grad(squareLoss(y, r!), x!)];
          },
          f32(x, shape),
          f32(r, result),
        );
        expect(y!.shape).toEqual(result);
        expectClose(y, resizeOracle(x, c));
        const loss = (x: Float64Array): number => resizeOracle(x, c).reduce((s, v, i) => s + r[i]! * v * v, 0);
        expectClose(dx, differences(loss, x));
      }),
      { seed: 21, numRuns: 50 },
    );
  });

  it("averages what shrinking merges when asked to", async () => {
    for (const mode of ["linear", "cubic"] as const) {
      for (const exclude_outside of [0, 1]) {
        for (const [length, result] of [
          [8, 3],
          [5, 4],
          [3, 7],
        ] as const) {
          // A filter as wide as the entries it merges, at each place; what reaches over the border sees the last entry.
          const oracle = (x: Float64Array): number[] =>
            Array.from({ length: 4 }, (_, row) => x.slice(row * length, (row + 1) * length)).flatMap((line) =>
              Array.from({ length: result }, (_, o) => {
                const width = Math.max(1, length / result);
                const at = ((o + 0.5) * length) / result - 0.5;
                let [total, weights] = [0, 0];
                for (let i = -30; i < 40; i++) {
                  if (exclude_outside && (i < 0 || i >= length)) continue;
                  const weight = read(
                    [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0],
                    5 + Math.max(-5, Math.min(5, (i - at) / width)),
                    mode,
                    "",
                    -0.75,
                  );
                  total += weight * line[Math.min(length - 1, Math.max(0, i))]!;
                  weights += weight;
                }
                return total / weights;
              }),
            );
          const x = noise(4 * length, 2);
          const r = noise(4 * result, 3);
          const attrs = { mode, antialias: 1, exclude_outside, axes: [3] };
          const [y, dx] = await run(
            (x, r) => {
              const y = op("Resize", [x!, null, null, ints([result])], attrs);
              return [y, grad(squareLoss(y, r!), x!)];
            },
            f32(x, [1, 2, 2, length]),
            f32(r, [1, 2, 2, result]),
          );
          expectClose(y, oracle(x));
          expectClose(
            dx,
            differences((x) => oracle(x).reduce((s, v, i) => s + r[i]! * v * v, 0), x),
          );
        }
      }
    }
  });

  it("differentiates whole copies of entries, twice", async () => {
    for (const spatial of [[3], [2, 3], [2, 1, 2]]) {
      const x = noise(2 * product(spatial), 4);
      const scale = spatial.map((_, i) => i + 1);
      const copies = product(scale);
      const [y, dx] = await run(
        (x) => {
          const y = resize(x!, { scale, mode: "nearest" });
          const dx = grad(sum(mul(y, mul(y, y))), x!);
          return [dx, grad(sum(mul(dx, mul(x!, x!))), x!)];
        },
        f32(x, [1, 2, ...spatial]),
      );
      expectClose(
        y,
        x.map((v) => 3 * copies * v * v),
      );
      expectClose(
        dx,
        x.map((v) => 12 * copies * v ** 3),
      );
    }
  });

  it("follows names of dimensions", () => {
    const x = input("x", spec("f32", ["batch", 3, "h", "w"]));
    expect(resize(x, { scale: 2 }).shape).toEqual(["batch", 3, "2*h", "2*w"]);
    expect(resize(x, { scale: 0.5 }).shape).toEqual(["batch", 3, "floor(h/2)", "floor(w/2)"]);
    expect(resize(x, { size: [8, 9] }).shape).toEqual(["batch", 3, 8, 9]);
    expect(() => resize(x, { scale: 1.25 })).toThrow('a dimension without a number, "h", cannot be scaled by 1.25');
    const y = resize(x, { scale: 2 });
    expect(() => grad(sum(y), x)).toThrow('needs axis 2 in numbers, but it goes from "h" to "2*h"');
  });

  it("says what it cannot do", () => {
    const x = input("x", spec("f32", [1, 3, 4, 4]));
    expect(() => resize(x, {})).toThrow("resize needs either a size or a scale");
    expect(() => resize(x, { size: 2, scale: 2 })).toThrow("resize needs either a size or a scale");
    expect(() => resize(x, { size: [2, 2, 2] })).toThrow("size lists 3 entries for 2 spatial axes");
    expect(() => resize(x, { size: 0 })).toThrow("it cannot give axis 2 the size 0");
    expect(() => resize(x, { scale: 2, mode: "bicubic" as "cubic" })).toThrow(
      'its mode must be one of nearest, linear, cubic, not "bicubic"',
    );
    expect(() => op("Resize", [x, null, null, ints([2])], {})).toThrow("it needs 4 sizes, not 1");
    expect(() => op("Resize", [x], {})).toThrow("it needs either scales or sizes");
    const policy = { keep_aspect_ratio_policy: "not_larger" };
    expect(() => op("Resize", [x, null, null, ints([1, 3, 2, 2])], policy)).toThrow("it cannot keep the aspect ratio");
    const roi = { coordinate_transformation_mode: "tf_crop_and_resize" };
    const cropped = op("Resize", [x, null, null, ints([1, 3, 2, 2])], roi);
    expect(() => grad(sum(cropped), x)).toThrow('no gradient for the coordinates "tf_crop_and_resize"');
  });
});

describe("pixelShuffle", () => {
  const [n, c, b, h, w] = [2, 3, 2, 2, 3];
  /** Where each entry of the large image lies among channels, per the order of the channel axis. */
  const sources = (place: (c: number, i: number, j: number) => number): number[] =>
    Array.from({ length: n * c * h * b * w * b }, (_, k) => {
      const [col, row] = [k % (w * b), Math.floor(k / (w * b)) % (h * b)];
      const [channel, batch] = [Math.floor(k / (w * b * h * b)) % c, Math.floor(k / (w * b * h * b * c))];
      const from = place(channel, row % b, col % b);
      return ((batch * c * b * b + from) * h + Math.floor(row / b)) * w + Math.floor(col / b);
    });
  const crd = sources((channel, i, j) => (channel * b + i) * b + j);
  const dcr = sources((channel, i, j) => (i * b + j) * c + channel);

  it("moves channels to pixels and back", async () => {
    const x = noise(n * c * b * b * h * w, 1);
    const [shuffled, back, deep, wide] = await run(
      (x) => {
        const y = pixelShuffle(x!, b);
        const z = op("DepthToSpace", [x!], { blocksize: b });
        return [y, pixelUnshuffle(y, b), z, op("SpaceToDepth", [z], { blocksize: b })];
      },
      f64(x, [n, c * b * b, h, w]),
    );
    expect(shuffled!.shape).toEqual([n, c, h * b, w * b]);
    expect(shuffled!.toArray()).toEqual(crd.map((k) => x[k]));
    expect(deep!.toArray()).toEqual(dcr.map((k) => x[k]));
    expect(back!.toArray()).toEqual(Array.from(x));
    expect(wide!.toArray()).toEqual(Array.from(x));
  });

  it("hands gradients back to where the entries came from", async () => {
    const x = noise(n * c * b * b * h * w, 1);
    const r = noise(x.length, 2);
    const given = (sources: number[]): Float64Array => {
      const dx = new Float64Array(x.length);
      sources.forEach((k, i) => {
        dx[k] = r[i]!;
      });
      return dx;
    };
    const [crdGrad, dcrGrad, unshuffled, deepened] = await run(
      (x, r) => {
        return [
          grad(sum(mul(pixelShuffle(x!, b), r!)), x!),
          grad(sum(mul(op("DepthToSpace", [x!], { blocksize: b }), r!)), x!),
          grad(sum(mul(pixelUnshuffle(r!, b), x!)), r!),
          grad(sum(mul(op("SpaceToDepth", [r!], { blocksize: b }), x!)), r!),
        ];
      },
      f64(x, [n, c * b * b, h, w]),
      f64(r, [n, c, h * b, w * b]),
    );
    expectClose(crdGrad, given(crd), 0);
    expectClose(dcrGrad, given(dcr), 0);
    expect(unshuffled!.toArray()).toEqual(crd.map((k) => x[k]));
    expect(deepened!.toArray()).toEqual(dcr.map((k) => x[k]));
  });

  it("follows names, and says what does not fit", () => {
    expect(pixelShuffle(input("x", spec("f32", ["n", 12, "h", "w"])), 2).shape).toEqual(["n", 3, "2*h", "2*w"]);
    const x = input("x", spec("f32", [1, 6, 4, 5]));
    expect(() => pixelShuffle(x, 2)).toThrow("its 6 channels do not split into blocks of 2 x 2");
    expect(() => pixelUnshuffle(x, 2)).toThrow("4 x 5 pixels do not split into blocks of 2 x 2");
    expect(() => pixelUnshuffle(x, 0)).toThrow("its blocks must be 1 or more long, not 0");
    expect(() => pixelShuffle(input("x", spec("f32", [4, 2, 2])), 2)).toThrow(
      "it takes [batch, channels, height, width]",
    );
    expect(() => op("DepthToSpace", [x], { blocksize: 1, mode: "RCD" })).toThrow(
      'its mode must be DCR or CRD, not "RCD"',
    );
  });
});
