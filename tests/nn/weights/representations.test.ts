import { describe, expect, it } from "vitest";
import {
  Dense,
  HalfWeight,
  hadamard,
  LowRank,
  roundToBlocks,
  Sparse24,
  SparseWeight,
  SumWeight,
  TransformedWeight,
  toSparse,
  toSparse24,
  type Weight,
} from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { run } from "../../support/run.ts";
import { evaluate, evaluatePortable, expectWeight, normal, plainProduct, relativeError } from "./support.ts";

/** `matrix` with only the entries for which `kept` holds. */
function masked(matrix: HostTensor, kept: (i: number) => boolean): HostTensor {
  const result = matrix.clone();
  for (let i = 0; i < result.size; i++) if (!kept(i)) result.set(i, 0);
  return result;
}

/** Rounds to a multiple of 1/64, so that sums of a few products are exact in single precision. */
const coarse = (matrix: HostTensor): HostTensor =>
  HostTensor.from(
    Float32Array.from(matrix.toArray(), (v) => Math.round(64 * v) / 64),
    { shape: matrix.shape },
  );

/** The matrix product of plain numbers `[n, k]` and `[k, m]`. */
const product = (a: readonly number[], b: readonly number[], n: number, k: number, m: number): number[] =>
  Array.from({ length: n * m }, (_, i) => {
    let total = 0;
    for (let j = 0; j < k; j++) total += a[Math.floor(i / m) * k + j]! * b[j * m + (i % m)]!;
    return total;
  });

/** The transform of neighbours by its definition. */
function plainHadamard(values: readonly number[], size: number): number[] {
  return values.map((_, i) => {
    const start = i - (i % size);
    let total = 0;
    for (let j = 0; j < size; j++) {
      const ones = ((i % size) & j).toString(2).replaceAll("0", "").length;
      total += (ones % 2 === 0 ? 1 : -1) * values[start + j]!;
    }
    return total / Math.sqrt(size);
  });
}

describe("HalfWeight", () => {
  it.each(["f16", "bf16"] as const)("keeps %s", async (dtype) => {
    const values = normal(1, 4, 12).cast(dtype);
    const weight = new HalfWeight(values);
    expect([weight.kind, weight.shape, weight.bytes]).toEqual(["half", [4, 12], 96]);
    await expectWeight(weight, values.toArray());
  });

  it("refuses single precision", () => {
    expect(() => new HalfWeight(normal(1, 2, 2))).toThrow("must be f16 or bf16, not f32");
  });
});

describe("Sparse24", () => {
  // Groups with two, one and no entries.
  const matrix = masked(normal(2, 3, 16), (i) => i % 4 === (i >> 2) % 4 || (i % 4 === 3 && i < 30));

  it.each(["f32", "f16"] as const)("keeps two of four %s values", async (dtype) => {
    const stored = matrix.cast(dtype);
    const weight = toSparse24(stored);
    // Half the values, and two bits for each.
    expect([weight.kind, weight.shape, weight.bytes]).toEqual([
      "sparse24",
      [3, 16],
      24 * (dtype === "f32" ? 4 : 2) + 6,
    ]);
    await expectWeight(weight, stored.toArray());
  });

  it("refuses other patterns", () => {
    const three = matrix.clone();
    three.set(24, 1);
    three.set(25, 1);
    three.set(26, 1);
    expect(() => toSparse24(three)).toThrow(
      "row 1 has 4 entries that are not zero in columns 8 to 11; 2:4 sparsity keeps two",
    );
    expect(() => toSparse24(normal(1, 2, 6))).toThrow("rows of 6 entries do not divide into groups of four");
    expect(() => new Sparse24(normal(1, 2, 8), HostTensor.zeros("u8", [2, 3]))).toThrow("needs places u8 [2, 2]");
  });
});

describe("SparseWeight", () => {
  it.each([
    ["bitmap", "every third", (i: number) => i % 3 === 0, 60 * 4 + 23],
    ["bitmap", "all", () => true, 180 * 4 + 23],
    ["columns", "three, with empty rows", (i: number) => i === 47 || i === 59 || i === 130, 3 * 4 + 3 * 2 + 3 * 4],
    ["columns", "none", () => false, 12],
    ["columns", "the last", (i: number) => i === 179, 4 + 2 + 12],
  ] as const)("%s: keeps %s", async (index, _, kept, bytes) => {
    const matrix = masked(normal(3, 3, 60), kept);
    const weight = toSparse(matrix);
    expect(weight.index).toHaveProperty(index);
    expect([weight.kind, weight.shape, weight.bytes]).toEqual(["sparse", [3, 60], bytes]);
    await expectWeight(weight, matrix.toArray());
  });

  it("refuses an index that does not fit", () => {
    const values = HostTensor.from([1, 2]);
    const bitmap = HostTensor.zeros("u8", [2]);
    expect(() => new SparseWeight([3, 8], values, { bitmap })).toThrow("the bitmap of a matrix [3, 8] must be u8 [3]");
    const columns = HostTensor.from([1], { dtype: "i32" });
    expect(() => new SparseWeight([3, 8], values, { columns, counts: columns })).toThrow(
      "2 values of 3 rows need as many columns, and a count for every row",
    );
  });
});

describe("LowRank and SumWeight", () => {
  const [up, down, base] = [coarse(normal(4, 5, 2)), coarse(normal(5, 2, 32)), coarse(normal(6, 5, 32))];
  const factors = product(up.toArray(), down.toArray(), 5, 2, 32);
  const lowRank = (): LowRank => new LowRank(new Dense(up), new Dense(down));

  it("is the product of its factors", async () => {
    const weight = lowRank();
    expect([weight.kind, weight.shape, weight.rank, weight.bytes]).toEqual(["low-rank", [5, 32], 2, 4 * (10 + 64)]);
    await expectWeight(weight, factors);
  });

  it("is the sum of its terms, an adapter on top of packed blocks among them", async () => {
    const total = new SumWeight([{ weight: new Dense(base) }, { weight: lowRank(), scale: 0.5 }]);
    expect([total.kind, total.bytes]).toEqual(["sum", 4 * (160 + 74)]);
    await expectWeight(
      total,
      base.toArray().map((v, i) => v + 0.5 * factors[i]!),
    );
    const packed = roundToBlocks(base, { format: "int4", block: 32, exact: true });
    const adapted = new SumWeight([{ weight: packed }, { weight: lowRank(), scale: 2 }]);
    const x = normal(8, 2, 32);
    const { dense } = await evaluate(packed, x);
    const want = dense.toArray().map((v, i) => v + 2 * factors[i]!);
    const got = await evaluate(adapted, x);
    expect(relativeError(got.dense.toArray(), want)).toBeLessThan(1e-6);
    expect(relativeError(got.product.toArray(), plainProduct(x, want, 5))).toBeLessThan(1e-5);
  });

  it("refuse parts of other shapes", () => {
    expect(() => new LowRank(new Dense(up), new Dense(base))).toThrow(
      "the factors [5, 2] and [5, 32] of a low-rank weight do not share a rank",
    );
    expect(() => new SumWeight([{ weight: new Dense(up) }, { weight: new Dense(base) }])).toThrow(
      "the terms [5, 2] and [5, 32] of a sum differ in shape",
    );
    expect(() => new SumWeight([])).toThrow("a sum of weights needs a term");
  });
});

describe("TransformedWeight", () => {
  it.each([1, 2, 16, 64, 128, 256])("turns blocks of %i as the definition says, and back", async (size) => {
    const x = normal(size, 2, 256);
    const [turned, back] = await run((t) => [hadamard(t, size), hadamard(hadamard(t, size), size)], x);
    expect(relativeError(turned!.toArray(), plainHadamard(x.toArray(), size))).toBeLessThan(1e-6);
    expect(relativeError(back!.toArray(), x.toArray())).toBeLessThan(1e-6);
  });

  it("scales and turns its input before the kept matrix", async () => {
    const matrix = normal(1, 4, 24);
    const scales = HostTensor.from(Float32Array.from({ length: 24 }, (_, i) => 0.5 + i / 10));
    const turned = plainHadamard(matrix.toArray(), 8);
    for (const [options, values, bytes] of [
      [{ scales }, matrix.toArray().map((v, i) => v * scales.at(i % 24)), 96],
      [{ hadamard: 8 }, turned, 0],
      [{ scales, hadamard: 8 }, turned.map((v, i) => v * scales.at(i % 24)), 96],
    ] as const) {
      const weight: Weight = new TransformedWeight(new Dense(matrix), options);
      expect([weight.kind, weight.shape, weight.bytes]).toEqual(["transformed", [4, 24], 384 + bytes]);
      const x = normal(2, 3, 24);
      const got = await evaluate(weight, x);
      expect(relativeError(got.dense.toArray(), values)).toBeLessThan(1e-6);
      expect(relativeError(got.rows.toArray(), [...values.slice(72), ...values.slice(0, 24)])).toBeLessThan(1e-6);
      expect(relativeError(got.product.toArray(), plainProduct(x, values, 4))).toBeLessThan(1e-5);
    }
  });

  it("refuses what does not fit its input", () => {
    const inner = new Dense(normal(1, 4, 24));
    expect(() => new TransformedWeight(inner, { hadamard: 16 })).toThrow("cannot be turned in blocks of 16");
    expect(() => new TransformedWeight(inner, { scales: normal(1, 4) })).toThrow("must be [24], not [4]");
  });
});

it("every representation runs in WebAssembly, and with standard operators only", async () => {
  const matrix = masked(normal(9, 4, 32), (i) => i % 4 < 2);
  const x = normal(10, 2, 32);
  for (const weight of [
    new HalfWeight(matrix.cast("f16")),
    toSparse24(matrix),
    toSparse(matrix),
    toSparse(masked(matrix, (i) => i === 5)),
    new LowRank(new Dense(normal(1, 4, 2)), new Dense(normal(2, 2, 32))),
    new TransformedWeight(new Dense(matrix), { hadamard: 32 }),
  ]) {
    const [here, there] = [await evaluate(weight, x), await evaluate(weight, x, { device: "wasm" })];
    for (const key of ["product", "rows", "dense"] as const)
      expect(relativeError(there[key].toArray(), here[key].toArray()), weight.kind).toBeLessThan(1e-6);
    expect(relativeError(await evaluatePortable(weight, x), here.product.toArray()), weight.kind).toBeLessThan(1e-6);
  }
}, 60_000);
