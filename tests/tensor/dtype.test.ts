import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  byteLength,
  type DType,
  dtypeFromOnnx,
  dtypeOfArray,
  dtypes,
  fromBfloat,
  fromHalf,
  isDType,
  isFloat,
  isInteger,
  storageLength,
  toBfloat,
  toHalf,
} from "../../src/tensor/index.ts";

const PATTERNS = 2 ** 16;

/** Value of a binary floating-point pattern, by its definition. */
function valueOf(pattern: number, exponentBits: number, fractionBits: number): number {
  const sign = pattern >> (exponentBits + fractionBits) ? -1 : 1;
  const exponent = (pattern >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (pattern & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  if (exponent === 2 ** exponentBits - 1) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

describe.each([
  { name: "half", exponent: 5, fraction: 10, decode: fromHalf, encode: toHalf },
  { name: "bfloat", exponent: 8, fraction: 7, decode: fromBfloat, encode: toBfloat },
])("$name precision", ({ exponent, fraction, decode, encode }) => {
  /** All finite non-negative values, ascending, with the power of two behind the largest standing for infinity. */
  const ladder: number[] = [];
  const infinity = ((2 ** exponent - 1) << fraction) >>> 0;
  for (let pattern = 0; pattern < infinity; pattern++) ladder.push(valueOf(pattern, exponent, fraction));
  ladder.push(2 ** (2 ** (exponent - 1)));

  /** The nearest rung, ties to the even pattern, by bisection. */
  function nearest(value: number): number {
    const magnitude = Math.abs(value);
    let [low, high] = [0, infinity];
    if (magnitude >= ladder[infinity]!) low = infinity;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (ladder[middle]! <= magnitude) low = middle;
      else high = middle;
    }
    const [below, above] = [magnitude - ladder[low]!, ladder[high]! - magnitude];
    const pattern = low === infinity ? infinity : below < above || (below === above && low % 2 === 0) ? low : high;
    return pattern + (value < 0 || Object.is(value, -0) ? 2 ** 15 : 0);
  }

  test("every pattern decodes to its value and comes back", () => {
    for (let pattern = 0; pattern < PATTERNS; pattern++) {
      const value = valueOf(pattern, exponent, fraction);
      if (!Object.is(decode(pattern), value)) throw new Error(`pattern ${pattern} decodes to ${decode(pattern)}`);
      if (Number.isNaN(value)) expect(decode(encode(value))).toBeNaN();
      else if (encode(value) !== pattern) throw new Error(`${value} encodes to ${encode(value)}, not ${pattern}`);
    }
  });

  test("halfway between neighbours, and a hair beside it, rounding is to nearest even", () => {
    for (let pattern = 0; pattern < infinity; pattern++) {
      const middle = (ladder[pattern]! + ladder[pattern + 1]!) / 2;
      for (const value of [middle, middle * (1 - 2 ** -40), middle * (1 + 2 ** -40), -middle]) {
        if (encode(value) !== nearest(value))
          throw new Error(`${value} encodes to ${encode(value)}, not ${nearest(value)}`);
      }
    }
  });

  test("any number goes to the nearest", () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true }), (value) => {
        expect(encode(value)).toBe(nearest(value));
      }),
      { seed: 1, numRuns: 2000 },
    );
    fc.assert(
      fc.property(fc.double({ noNaN: true, min: -70000, max: 70000 }), (value) => {
        expect(encode(value)).toBe(nearest(value));
      }),
      { seed: 2, numRuns: 2000 },
    );
  });
});

describe("element types", () => {
  test("have the ONNX format's numbers", () => {
    const numbers: Record<DType, number> = {
      f32: 1,
      u8: 2,
      i8: 3,
      u16: 4,
      i16: 5,
      i32: 6,
      i64: 7,
      bool: 9,
      f16: 10,
      f64: 11,
      u32: 12,
      u64: 13,
      bf16: 16,
      u4: 21,
      i4: 22,
      u2: 25,
      i2: 26,
    };
    for (const [name, onnx] of Object.entries(numbers)) {
      expect(dtypes[name as DType].onnx).toBe(onnx);
      expect(dtypeFromOnnx(onnx)).toBe(name);
    }
    expect(dtypeFromOnnx(8)).toBeUndefined();
  });

  test("are floats, integers or neither", () => {
    expect((Object.keys(dtypes) as DType[]).filter(isFloat)).toEqual(["f32", "f16", "f64", "bf16"]);
    expect(isInteger("bool")).toBe(false);
    expect(isInteger("u2")).toBe(true);
    expect(isDType("f32")).toBe(true);
    expect(isDType("toString")).toBe(false);
  });

  test("below a byte are packed", () => {
    expect([1, 2, 3].map((n) => byteLength("i4", n))).toEqual([1, 1, 2]);
    expect([1, 4, 5].map((n) => byteLength("u2", n))).toEqual([1, 1, 2]);
    expect(storageLength("u4", 5)).toBe(3);
    expect(storageLength("f64", 5)).toBe(5);
    expect(byteLength("f64", 5)).toBe(40);
  });

  test("are read off typed arrays", () => {
    expect(dtypeOfArray(new Float64Array(1))).toBe("f64");
    expect(dtypeOfArray(new Uint8ClampedArray(1))).toBe("u8");
    expect(() => dtypeOfArray(new DataView(new ArrayBuffer(1)))).toThrow("no element type for DataView");
  });
});
