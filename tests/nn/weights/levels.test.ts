import { describe, expect, it } from "vitest";
import {
  type BlockFormat,
  blockFormats,
  CodebookWeight,
  distinctLevels,
  exactBlocks,
  roundToBlocks,
  toCodebook,
} from "../../../src/nn/index.ts";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";
import { expectClose } from "../../support/numbers.ts";
import { run } from "../../support/run.ts";
import { evaluate, expectWeight, normal } from "./support.ts";

/** A matrix whose sets (equal parts) each hold `levels` random numbers. */
function fewValues(rows: number, columns: number, levels: number, sets: number): HostTensor {
  const rng = new Rng(levels * sets);
  const tables = Array.from({ length: sets }, () => Array.from({ length: levels }, () => Math.fround(rng.normal())));
  const width = (rows * columns) / sets;
  return HostTensor.from(
    Float32Array.from({ length: rows * columns }, (_, i) => tables[Math.floor(i / width)]![i % levels]!),
    { shape: [rows, columns] },
  );
}

describe("CodebookWeight", () => {
  it.each([
    [2, 1],
    [3, 4],
    [4, 1],
    [4, 8],
    [8, 4],
    [16, 4],
  ])("holds %d levels in %d sets exactly", async (levels, sets) => {
    const matrix = fewValues(4, 42, levels, sets);
    const weight = toCodebook(matrix, { levels, sets });
    const codeBytes = { 2: 6, 3: 9, 4: 11, 8: 16, 16: 21 }[levels]!;
    expect([weight.kind, weight.shape, weight.bytes]).toEqual(["codebook", [4, 42], 4 * codeBytes + 4 * levels * sets]);
    await expectWeight(weight, matrix.toArray());
  });

  it("repeats the last level of a set that has fewer", () => {
    const weight = toCodebook(
      HostTensor.from([
        [3, 1, 1, 3],
        [5, 5, 5, 5],
      ]),
      { levels: 3, sets: 2 },
    );
    expect((weight.levels as HostTensor).toArray()).toEqual([1, 3, 3, 5, 5, 5]);
    expect(distinctLevels(HostTensor.from([[3, 1, 1, 3]]), { levels: 4, sets: 1 })).toEqual([[1, 3]]);
  });

  it("refuses parts that do not belong together", () => {
    const zeros = (dtype: "u8" | "f32" | "i32", ...shape: number[]): HostTensor => HostTensor.zeros(dtype, shape);
    const make = (codes: HostTensor, levels: HostTensor) => () => new CodebookWeight({ codes, levels }, 10);
    expect(make(zeros("u8", 4, 3), zeros("i32", 1, 4))).toThrow("the levels of a codebook must be f32 or f16, not i32");
    expect(make(zeros("u8", 4, 3), zeros("f32", 1, 5))).toThrow("are [sets, 2 or 3 or 4 or 8 or 16], not [1, 5]");
    expect(make(zeros("u8", 4, 3), zeros("f32", 3, 4))).toThrow(
      "3 sets of levels do not share out 4 rows of 10 entries",
    );
    expect(make(zeros("u8", 4, 3), zeros("f32", 12, 4))).toThrow("12 sets of levels do not share out 4 rows");
    expect(make(zeros("f32", 4, 3), zeros("f32", 4, 4))).toThrow("the codes of a codebook must be u8, not f32");
    expect(make(zeros("u8", 4, 4), zeros("f32", 4, 4))).toThrow(
      "the codes of this codebook must be [4, 3], not [4, 4]",
    );
    const matrix = HostTensor.from([[1, 2, 3]]);
    expect(() => toCodebook(matrix, { levels: 2, sets: 1 })).toThrow(
      "part 0 of 1 of the matrix holds 3 different values, not at most 2: it is not quantized yet",
    );
    expect(() => toCodebook(matrix, { levels: 5, sets: 1 })).toThrow("a codebook has 2, 3, 4, 8, 16 levels, not 5");
  });
});

describe("exactBlocks", () => {
  const formats = Object.keys(blockFormats).filter((f) => f !== "int8") as BlockFormat[];

  it.each(formats)("finds codes and scales of a matrix on a grid of %s again", async (format) => {
    const { levels, step, zero } = blockFormats[format];
    // The code that lies alone in its sign says which codes the others have.
    const matrix = HostTensor.from(
      Float32Array.from(
        { length: 3 * 40 },
        (_, i) => (step * (i % levels) - zero) * Math.fround(0.1 + Math.floor(i / 40)),
      ),
      { shape: [3, 40] },
    );
    const weight = exactBlocks(matrix, { format, block: "channel", exact: true });
    expect([weight.format, weight.block]).toEqual([format, 48]);
    const { dense } = await evaluate(weight, normal(1, 3, 40));
    expectClose(dense.toArray(), matrix.toArray(), 1e-5);
  });

  it("takes rows of zeros, and rows that leave small multiples out", async () => {
    const matrix = HostTensor.from([Array(16).fill(0), Array.from({ length: 16 }, (_, i) => (i % 2 ? 0.9 : -0.3))]);
    const [dense] = await run(() => exactBlocks(matrix, { format: "mid2", block: 16 }).dense(), HostTensor.from(0));
    expectClose(dense!.toArray(), matrix.toArray(), 1e-6);
  });

  it("refuses a matrix that lies on no such grid, naming the block", () => {
    const matrix = HostTensor.from([Array(32).fill(1), Array.from({ length: 32 }, (_, i) => (i < 16 ? 1 : 1 + i))]);
    expect(() => exactBlocks(matrix, { format: "mid2", block: 16 })).toThrow(
      "block 1 of row 1 does not lie on a grid of mid2: its entries are no multiples of one scale that 4 codes reach",
    );
  });
});

describe("mid-rise blocks", () => {
  it("round to odd multiples, up to the largest magnitude", async () => {
    const matrix = HostTensor.from([[3, 0.1, -0.1, -3, 1.9, 2.1, -1.9, -2.1, 0, 0, 0, 0, 0, 0, 0, 0]]);
    const [dense] = await run(() => roundToBlocks(matrix, { format: "mid2", block: 16 }).dense(), HostTensor.from(0));
    expect(dense!.toArray()).toEqual([3, 1, -1, -3, 1, 3, -1, -3, ...Array(8).fill(1)]);
  });
});
