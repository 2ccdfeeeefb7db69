import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ArgumentError, arrayFromBytes, type DType, dtypes, HostTensor, isFloat } from "../../src/tensor/index.ts";

const ALL = Object.keys(dtypes) as DType[];

describe("making", () => {
  test("from nested numbers, bigints and booleans", () => {
    const matrix = HostTensor.from([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect([matrix.dtype, matrix.shape, matrix.toArray()]).toEqual(["f32", [2, 3], [1, 2, 3, 4, 5, 6]]);
    expect(HostTensor.from(7).shape).toEqual([]);
    expect(HostTensor.from([[], []]).shape).toEqual([2, 0]);
    expect(HostTensor.from([true, false])).toMatchObject({ dtype: "bool", data: Uint8Array.of(1, 0) });
    expect(HostTensor.from([1, 2], { dtype: "u4" }).data).toEqual(Uint8Array.of(0x21));
    expect(HostTensor.from([1, 2, 3, 4], { shape: [2, 2] }).shape).toEqual([2, 2]);
  });

  test("64-bit integers keep every bit of a bigint", () => {
    const large = HostTensor.from([2n ** 62n + 1n, -(2n ** 63n)]);
    expect(large).toMatchObject({ dtype: "i64", data: BigInt64Array.of(2n ** 62n + 1n, -(2n ** 63n)) });
    expect(HostTensor.from([2n ** 64n - 1n], { dtype: "u64" }).data).toEqual(BigUint64Array.of(2n ** 64n - 1n));
  });

  test("from typed arrays, over the same memory", () => {
    const data = Float32Array.of(1, 2, 3, 4);
    expect(HostTensor.from(data).data).toBe(data);
    expect(HostTensor.from(data, { shape: [2, 2] }).shape).toEqual([2, 2]);
    const pixels = new Uint8ClampedArray([1, 2, 3]);
    const bytes = HostTensor.from(pixels as unknown as Uint8Array);
    pixels[0] = 9;
    expect([bytes.dtype, bytes.toArray()]).toEqual(["u8", [9, 2, 3]]);
  });

  test.each<[string, () => unknown, string]>([
    ["ragged rows", () => HostTensor.from([[1, 2], [3]]), "ragged rows do not form a tensor: 1 entries where 2 were"],
    ["a number beside a row", () => HostTensor.from([1, [2]]), "nested arrays of unequal depth"],
    ["a row beside a number", () => HostTensor.from([[1], 2]), "nested arrays of unequal depth"],
    ["too few values", () => HostTensor.from([1, 2], { shape: [3] }), "2 values do not fill [3]"],
    [
      "too little data",
      () => new HostTensor("f32", [3], new Float32Array(2)),
      "f32 [3] takes 3 stored elements, but 2",
    ],
    [
      "the wrong array",
      () => new HostTensor("f16", [1], new Float32Array(1)),
      "f16 tensor is stored in Uint16Array, not",
    ],
    ["a negative dimension", () => HostTensor.zeros("f32", [-1]), "whole, non-negative dimensions, not [-1]"],
    ["a fractional dimension", () => HostTensor.zeros("f32", [1.5]), "whole, non-negative dimensions, not [1.5]"],
    [
      "item() of many",
      () => HostTensor.zeros("f32", [2]).item(),
      "item() needs one element, this tensor has shape [2]",
    ],
    ["an element beyond the end", () => HostTensor.zeros("u4", [3]).at(3), "no element 3 in a tensor with 3 elements"],
    ["storing before the start", () => HostTensor.zeros("f32", [3]).set(-1, 0), "no element -1 in a tensor with 3"],
    ["NaN as an i64", () => HostTensor.from([NaN], { dtype: "i64" }), "NaN cannot be stored as i64"],
    ["an impossible view", () => HostTensor.zeros("f32", [4]).reshape([3]), "takes 3 stored elements, but 4"],
    [
      "bytes of the wrong length",
      () => arrayFromBytes("f32", new Uint8Array(6), 2),
      "2 f32 elements take 8 bytes, but 6",
    ],
  ])("refuses %s", (_what, make, message) => {
    expect(make).toThrow(message);
  });
});

describe("elements", () => {
  const fits: Record<string, [number, number]> = {
    i4: [-8, 7],
    u4: [0, 15],
    i2: [-2, 1],
    u2: [0, 3],
    i8: [-128, 127],
    u8: [0, 255],
    i16: [-32768, 32767],
    u16: [0, 65535],
    i32: [-(2 ** 31), 2 ** 31 - 1],
    u32: [0, 2 ** 32 - 1],
    i64: [-(2 ** 53) + 1, 2 ** 53 - 1],
    u64: [0, 2 ** 53 - 1],
    bool: [0, 1],
    f16: [-2048, 2048],
    bf16: [-256, 256],
    f32: [-(2 ** 24), 2 ** 24],
    f64: [-(2 ** 53), 2 ** 53],
  };

  test.each(ALL)("%s comes back as it was stored, neighbours untouched", (dtype) => {
    const [min, max] = fits[dtype]!;
    fc.assert(
      fc.property(fc.array(fc.integer({ min, max }), { minLength: 1, maxLength: 9 }), fc.nat(8), (values, i) => {
        const t = HostTensor.from(values, { dtype });
        expect(t.toArray()).toEqual(values);
        const at = i % values.length;
        t.set(at, max);
        expect(t.toArray()).toEqual(values.with(at, max));
      }),
      { seed: 1, numRuns: 60 },
    );
  });

  test("integers are cut and wrap around like typed arrays", () => {
    expect(HostTensor.from([2.9, -2.9, 130], { dtype: "i8" }).toArray()).toEqual([2, -2, -126]);
    expect(HostTensor.from([17, -1], { dtype: "u4" }).toArray()).toEqual([1, 15]);
    expect(HostTensor.from([2.9, -2.9], { dtype: "i64" }).toArray()).toEqual([2, -2]);
    expect(HostTensor.from([0, -0, 0.5, NaN], { dtype: "bool" }).toArray()).toEqual([0, 0, 1, 1]);
  });

  test("casting is the same as storing one by one, between all pairs of types", () => {
    for (const from of ALL) {
      for (const to of ALL) {
        const low = Math.max(fits[from]![0], isFloat(from) || to === "bool" ? -9 : fits[to]![0], -9);
        const values = [0, 1, 2, 3, -1, -2, 7, 9].map((v) => Math.max(low, Math.min(v, fits[from]![1])));
        const source = HostTensor.from(values, { dtype: from, shape: [2, 4] });
        const cast = source.cast(to);
        expect([cast.dtype, cast.shape]).toEqual([to, [2, 4]]);
        expect(cast.toArray()).toEqual(HostTensor.from(source.toArray(), { dtype: to }).toArray());
      }
    }
    expect(
      HostTensor.from([1.5, 1 + 2 ** -11 + 2 ** -30], { dtype: "f64" })
        .cast("f16")
        .toArray(),
    ).toEqual([1.5, 1 + 2 ** -10]);
  });

  test("a view shares memory, a clone does not", () => {
    const t = HostTensor.from([1, 2, 3, 4]);
    t.reshape([2, 2]).set(0, 9);
    t.clone().set(1, 9);
    expect(t.toArray()).toEqual([9, 2, 3, 4]);
    expect(t.cast("f32")).toBe(t);
    expect([t.size, t.bytes, HostTensor.zeros("u2", [5]).bytes]).toEqual([4, 16, 2]);
  });

  test("raw bytes go out as a view and come in aligned or not", () => {
    const t = HostTensor.from([1, -2], { dtype: "f32" });
    const bytes = t.rawBytes();
    expect(bytes.buffer).toBe(t.data.buffer);
    expect(arrayFromBytes("f32", bytes, 2)).toEqual(t.data);
    const shifted = new Uint8Array(9);
    shifted.set(bytes, 1);
    expect(arrayFromBytes("f32", shifted.subarray(1), 2)).toEqual(t.data);
  });

  test("errors are of their kind", () => {
    expect(() => HostTensor.zeros("f32", []).at(1)).toThrow(ArgumentError);
  });
});
