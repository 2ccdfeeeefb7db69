import { describe, expect, it } from "vitest";
import { LANES, Workspace } from "../../../src/methods/weights/merge/kernels.ts";
import { fromBfloat, fromHalf, Rng } from "../../../src/tensor/index.ts";

const formats = [
  { dtype: "bf16", decode: fromBfloat, largest: 0x7f7f },
  { dtype: "f16", decode: fromHalf, largest: 0x7bff },
] as const;

function roundedTo(type: "bf16" | "f16", values: readonly number[]): { fits: boolean; bits: number[] } {
  const workspace = new Workspace(16 * values.length + 512);
  const from = workspace.doubles(values.length);
  const to = workspace.bare(Uint16Array, values.length);
  from.set(values);
  return { fits: workspace.round(from, type, to, values.length), bits: [...to.subarray(0, values.length)] };
}

describe("rounding to a type of 16 bits", () => {
  it.each(formats)("gives every $dtype number back", ({ dtype, decode, largest }) => {
    const all = Array.from({ length: 2 * (largest + 1) }, (_, i) => (i <= largest ? i : 0x8000 + i - largest - 1));
    expect(roundedTo(dtype, all.map(decode))).toEqual({ fits: true, bits: all });
  });

  it.each(formats)(
    "goes to the nearest $dtype number, from the middle to the even one",
    ({ dtype, decode, largest }) => {
      const rng = new Rng(3);
      // The smallest normal numbers and those around them, the largest, and some of all.
      const normal = dtype === "bf16" ? 0x80 : 0x400;
      const lower = [0, 1, 2, normal - 1, normal, normal + 1, largest - 1, ...rng.integers(500, largest)];
      for (const bits of lower) {
        const [low, high] = [decode(bits), decode(bits + 1)];
        const middle = low + (high - low) / 2;
        const tiny = (high - low) * 2 ** -40;
        const even = bits % 2 === 0 ? bits : bits + 1;
        const values = [middle, middle - tiny, middle + tiny, low + tiny, high - tiny];
        const expected = [even, bits, bits + 1, bits, bits + 1];
        expect(roundedTo(dtype, values)).toEqual({ fits: true, bits: expected });
        const signed = expected.map((it) => it | 0x8000);
        expect(
          roundedTo(
            dtype,
            values.map((value) => -value),
          ).bits,
        ).toEqual(signed);
      }
    },
  );

  it.each(formats)("tells of what $dtype cannot hold", ({ dtype, decode, largest }) => {
    const top = decode(largest);
    const beyond = top + (top - decode(largest - 1)) / 2;
    expect(roundedTo(dtype, [1, beyond * (1 - 2 ** -50), -top]).fits).toBe(true);
    for (const bad of [beyond, -beyond, 1e200, Infinity, -Infinity, NaN])
      expect(roundedTo(dtype, [1, bad, 2]).fits).toBe(false);
  });
});

it("rounds to single precision, and tells of what that cannot hold", () => {
  const workspace = new Workspace(1024);
  const from = workspace.doubles(3);
  const to = workspace.floats(3);
  from.set([1 + 2 ** -24, -0, 0.1]);
  expect(workspace.round(from, "f32", to, 3)).toBe(true);
  expect([...to.subarray(0, 3)]).toEqual([1, -0, Math.fround(0.1)]);
  const beyond = (2 - 2 ** -24) * 2 ** 127;
  from[1] = beyond * (1 - 2 ** -50);
  expect(workspace.round(from, "f32", to, 3)).toBe(true);
  for (const bad of [beyond, -1e39, NaN, -Infinity]) {
    from[2] = bad;
    expect(workspace.round(from, "f32", to, 3)).toBe(false);
  }
});

describe("numbers of 16 bits", () => {
  const all = Uint16Array.from({ length: 2 ** 16 }, (_, i) => i);
  const widened = (type: "bf16" | "f16"): Float32Array => {
    const workspace = new Workspace(2 ** 20);
    const from = workspace.bare(Uint16Array, all.length);
    const to = workspace.floats(all.length);
    from.set(all);
    workspace.widen(type, from, to, all.length);
    return to;
  };

  it.each(formats)("of $dtype become what they are in single precision, all of them", ({ dtype, decode }) => {
    const ours = widened(dtype);
    const wrong = all.filter((bits) => !Object.is(ours[bits], decode(bits)));
    expect([...wrong]).toEqual([]);
  });
});

it("measures and adds up what lies in a workspace, whatever the number of entries", () => {
  const rng = new Rng(8);
  for (const count of [1, 2, 7, 8, 9, 100, 1023]) {
    const workspace = new Workspace(60 * count + 4096);
    // Zeros among the differences, of both signs.
    const drawn = () => Array.from({ length: count }, () => Math.round(rng.normal(0, 2)) / 4);
    const [from, to, other] = [drawn(), drawn(), drawn()].map((values) => {
      const array = workspace.floats(count);
      array.set(values);
      return array;
    }) as [Float32Array, Float32Array, Float32Array];
    const [first, second] = [workspace.doubles(count), workspace.doubles(count)];
    const sums = workspace.doubles(LANES * 12);
    const at = (i: number): Float64Array => sums.subarray(LANES * i);
    workspace.square(from, count, at(0));
    workspace.update(from, to, first, count, at(1));
    workspace.update(from, other, second, count, at(7));
    workspace.compare(first, second, count, at(4));
    workspace.change(from, second, count, at(10));
    expect([...first.subarray(0, count)]).toEqual(Array.from(to.subarray(0, count), (v, i) => v - from[i]!));
    const total = (f: (i: number) => number): number =>
      Array.from({ length: count }, (_, i) => f(i)).reduce((a, b) => a + b, 0);
    // All are multiples of 1/16, so that sums are exact in any order.
    const expected = [
      total((i) => from[i]! ** 2),
      total((i) => first[i]! ** 2),
      total((i) => to[i]! ** 2),
      total((i) => from[i]! * to[i]!),
      total((i) => first[i]! * second[i]!),
      total((i) => Number(first[i]! * second[i]! !== 0)),
      total((i) => Number(first[i]! * second[i]! < 0)),
      total((i) => second[i]! ** 2),
      total((i) => other[i]! ** 2),
      total((i) => from[i]! * other[i]!),
      total((i) => (second[i]! - from[i]!) ** 2),
      total((i) => from[i]! ** 2),
    ];
    expect(
      expected.map((_, i) =>
        at(i)
          .slice(0, LANES)
          .reduce((a, b) => a + b),
      ),
    ).toEqual(expected);
    const sum = workspace.doubles(count);
    workspace.subtractScaled(sum, 0.5, first, count);
    workspace.subtractScaled(sum, -2, second, count);
    workspace.subtractFrom(from, sum, count);
    expect([...sum.subarray(0, count)]).toEqual(
      Array.from(from.subarray(0, count), (v, i) => v - (0 - 0.5 * first[i]! + 2 * second[i]!)),
    );
  }
});
