import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type BlockFormat,
  BlockGrid,
  BlockWeight,
  blockFormats,
  blockGrid,
  roundToBlocks,
} from "../../../src/nn/index.ts";
import { packCodes, unpackCodes, unpackTensor } from "../../../src/nn/weights/block-format.ts";
import { hasZeroPoints } from "../../../src/nn/weights/blocks.ts";
import { compile } from "../../../src/runtime/index.ts";
import { grad, HostTensor, sum } from "../../../src/tensor/index.ts";
import { run } from "../../support/run.ts";
import { evaluate, evaluatePortable, expectWeight, normal, plainProduct, relativeError } from "./support.ts";

const formats = Object.keys(blockFormats) as BlockFormat[];

/** What the matrix is rounded to, entry by entry. */
function rounded(matrix: HostTensor, grid: BlockGrid): number[] {
  return matrix.toArray().map((value, i) => {
    const index = Math.floor(i / grid.columns) * grid.blocks + Math.floor((i % grid.columns) / grid.block);
    return grid.value(grid.code(value, index), index);
  });
}

describe("packed codes", () => {
  it.each(formats)("%s come back, and as small as counted", async (format) => {
    const { levels } = blockFormats[format];
    const perRow = (width: number): number =>
      Math.ceil(format === "ternary" ? width / 5 : (Math.log2(levels) * width) / 8);
    const widths = fc.integer({ min: 1, max: 70 });
    fc.assert(
      fc.property(
        widths,
        fc.array(fc.nat({ max: levels - 1 }), { minLength: 70, maxLength: 210 }),
        (width, entries) => {
          const rows = Math.floor(entries.length / width);
          const codes = Uint8Array.from(entries.slice(0, rows * width));
          const packed = packCodes(format, codes, width);
          expect(packed).toHaveLength(rows * perRow(width));
          expect(unpackCodes(format, packed, width)).toEqual(codes);
        },
      ),
      { numRuns: 30, seed: 1 },
    );
    const codes = Uint8Array.from({ length: 3 * 13 }, (_, i) => (i * 37) % levels);
    const packed = new HostTensor("u8", [3, perRow(13)], packCodes(format, codes, 13));
    const [graph] = await run((t) => unpackTensor(format, t, 13), packed);
    expect(graph!.toArray()).toEqual(Array.from(codes));
  });

  it("lie low bits first", () => {
    expect(packCodes("int4", Uint8Array.of(1, 2, 3), 3)).toEqual(Uint8Array.of(0x21, 0x03));
    expect(packCodes("int3", Uint8Array.of(1, 2, 7), 3)).toEqual(Uint8Array.of(0b11010001, 0b1));
    expect(packCodes("binary", Uint8Array.of(1, 0, 1), 3)).toEqual(Uint8Array.of(5));
    expect(packCodes("ternary", Uint8Array.of(2, 1, 0, 0, 2, 1), 6)).toEqual(Uint8Array.of(2 + 3 + 162, 1));
  });
});

describe("BlockWeight", () => {
  it.each([
    ["int8", 32, true, 5 * (96 + 3 * 4)],
    ["int8", 16, false, 5 * (96 + 6 * 4 + 6)],
    ["int4", 32, true, 5 * (48 + 3 * 4)],
    ["int4", 32, false, 5 * (48 + 3 * 4 + 2)],
    ["int3", 32, true, 5 * (36 + 3 * 4)],
    ["int3", 16, false, 5 * (36 + 6 * 4 + 3)],
    ["int2", 16, true, 5 * (24 + 6 * 4)],
    ["int2", 32, false, 5 * (24 + 3 * 4 + 1)],
    ["ternary", 32, true, 5 * (3 * 7 + 3 * 4)],
    ["binary", 32, true, 5 * (12 + 3 * 4)],
    ["int4", "channel", true, 5 * (48 + 4)],
    ["int3", "channel", false, 5 * (36 + 4 + 1)],
    ["int8", 48, false, 5 * (96 + 2 * 4 + 2)],
  ] as const)(
    "%s in blocks of %s, symmetric %s: dense, rows, products, bytes",
    async (format, block, symmetric, bytes) => {
      // Rows of 90 end within a block.
      const matrix = normal(3, 5, 90);
      const options = { format, block, symmetric } as const;
      const grid = blockGrid(matrix, options);
      const weight = roundToBlocks(matrix, { ...options, exact: true });
      expect([weight.kind, weight.shape, weight.bytes]).toEqual(["blocks", [5, 90], bytes]);
      const values = rounded(matrix, grid);
      await expectWeight(weight, values);
      // Activations in 8 bits cost about a hundredth.
      const x = normal(9, 3, 90);
      const { product } = await evaluate(roundToBlocks(matrix, options), x);
      expect(relativeError(product.toArray(), plainProduct(x, values, 5))).toBeLessThan(0.02);
    },
  );

  it.each(formats)("%s runs in WebAssembly, and with standard operators only", async (format) => {
    const matrix = normal(4, 8, 64);
    const options = { format, block: 32, exact: true } as const;
    const x = normal(5, 2, 64);
    const values = rounded(matrix, blockGrid(matrix, options));
    const weight = roundToBlocks(matrix, options);
    const { dense, product } = await evaluate(weight, x, { device: "wasm" });
    expect(dense.toArray()).toEqual(values);
    const want = plainProduct(x, values, 8);
    expect(relativeError(product.toArray(), want)).toBeLessThan(1e-5);
    expect(relativeError(await evaluatePortable(weight, x), want)).toBeLessThan(1e-5);
  });

  it("runs through the kernel, and sends gradients to its input and its scales", async () => {
    const weight = roundToBlocks(normal(1, 4, 64), { format: "int3", block: 32, exact: true });
    const x = normal(2, 1, 64);
    await using program = await compile((t) => weight.apply(t), [x]);
    expect(program.graph.outputs[0]!.tensor.node.op).toBe("com.microsoft.MatMulNBits");
    await using gradient = await compile(
      (s, t) => grad(sum(new BlockWeight({ codes: weight.codes, scales: s }, weight.layout).apply(t)), [s, t]),
      [weight.scales as HostTensor, x],
    );
    const [ds, dx] = await gradient(weight.scales as HostTensor, x);
    const { dense } = await evaluate(weight, x);
    const columns = Array.from({ length: 64 }, (_, c) => [0, 1, 2, 3].reduce((a, r) => a + dense.at(r * 64 + c), 0));
    expect(relativeError(dx!.toArray(), columns)).toBeLessThan(1e-5);
    const scales = (weight.scales as HostTensor).toArray();
    const want = scales.map((scale, i) => {
      const start = Math.floor(i / 2) * 64 + (i % 2) * 32;
      let total = 0;
      for (let j = 0; j < 32; j++) total += (dense.at(start + j) / scale) * x.at((i % 2) * 32 + j);
      return total;
    });
    expect(relativeError(ds!.toArray(), want)).toBeLessThan(1e-5);
  });

  it("keeps scales in half precision, and codes for the rounded ones", async () => {
    const matrix = normal(6, 3, 32);
    const options = { format: "int4", block: 32, scales: "f16", exact: true } as const;
    const weight = roundToBlocks(matrix, options);
    expect(weight.bytes).toBe(3 * (16 + 2));
    await expectWeight(weight, rounded(matrix, blockGrid(matrix, options)));
  });

  it("refuses parts that do not belong together", () => {
    const codes = HostTensor.zeros("u8", [4, 2, 16]);
    const scales = HostTensor.zeros("f32", [4, 2]);
    const layout = { format: "int4", block: 32, columns: 64 } as const;
    const make =
      (parts: object, changes: object = {}) =>
      () =>
        new BlockWeight({ codes, scales, ...parts }, { ...layout, ...changes });
    expect(make({})).not.toThrow();
    expect(make({}, { columns: 65 })).toThrow("the codes of this block weight must be [4, 3, 16], not [4, 2, 16]");
    expect(make({ scales: codes })).toThrow("the scales of a block weight must be f32 or f16, not u8");
    expect(make({ zeroPoints: codes })).toThrow("the zero points of this block weight must be [4, 1], not [4, 2, 16]");
    expect(make({}, { block: 24 })).toThrow("a block is a multiple of 16 entries, not 24");
    expect(make({}, { format: "int5" })).toThrow('there is no block format "int5"; there are int8, int6, int4, int3');
    const binary = { codes: HostTensor.zeros("u8", [4, 2, 4]), zeroPoints: HostTensor.zeros("u8", [4, 1]) };
    expect(make(binary, { format: "binary" })).toThrow("binary blocks are symmetric: they have no zero points");
  });
});

describe("BlockGrid", () => {
  it("takes the nearest code of every entry, within half a step inside of the range", () => {
    const matrix = normal(11, 4, 64);
    for (const format of formats)
      for (const symmetric of hasZeroPoints(format) ? [true, false] : [true]) {
        const grid = blockGrid(matrix, { format, block: 16, symmetric });
        const { levels } = blockFormats[format];
        grid.encode(matrix.data as Float32Array).forEach((code, i) => {
          const index = Math.floor(i / 16);
          const value = matrix.at(i);
          const distances = Array.from({ length: levels }, (_, c) => Math.abs(grid.value(c, index) - value));
          // Two codes may be equally near.
          expect(distances[code]).toBeCloseTo(Math.min(...distances), 6);
          if (format.startsWith("int"))
            expect(Math.abs(grid.value(code, index) - value)).toBeLessThanOrEqual(
              grid.scales[index]! * (symmetric ? 0.5 : 1) * 1.0001,
            );
        });
      }
  });

  it.each(formats)("%s: blocks of equal entries are exact, zeros and tiny ones included", async (format) => {
    const values = [0, 1.3, -0.7, 1e-40, -3e38 / 300, 0];
    const matrix = HostTensor.from(
      values.flatMap((v) => Array<number>(16).fill(v)),
      { shape: [2, 48] },
    );
    for (const symmetric of hasZeroPoints(format) ? [true, false] : [true]) {
      const weight = roundToBlocks(matrix, { format, block: 16, symmetric });
      const [dense] = await run(() => weight.dense(), HostTensor.from(0));
      expect(dense!.toArray().map((v) => v + 0)).toEqual(matrix.toArray());
    }
  });

  it("ternary and binary grids have the least squared error", () => {
    for (const seed of [1, 2, 3]) {
      const matrix = normal(seed, 1, 16);
      const magnitudes = matrix.toArray().map(Math.abs);
      // For every set of kept entries that a threshold can cut, the best scale is the mean of its magnitudes.
      const sorted = [...magnitudes].sort((a, b) => b - a);
      const errors = sorted.map((_, k) => {
        const mean = sorted.slice(0, k + 1).reduce((a, b) => a + b, 0) / (k + 1);
        return sorted.reduce((a, m, i) => a + (i <= k ? (m - mean) ** 2 : m ** 2), 0);
      });
      for (const [format, want] of [
        ["ternary", Math.min(...errors)],
        ["binary", errors[15]!],
      ] as const) {
        const grid = blockGrid(matrix, { format, block: 16 });
        const error = matrix.toArray().reduce((a, v) => a + (v - grid.value(grid.code(v, 0), 0)) ** 2, 0);
        expect(error).toBeCloseTo(want, 5);
      }
    }
  });

  it("a search never has a greater error", () => {
    const matrix = normal(12, 8, 64);
    for (const format of ["int2", "int3", "int4"] as const)
      for (const symmetric of [true, false]) {
        const error = (search: boolean): number => {
          const grid = blockGrid(matrix, { format, block: 64, symmetric, search });
          return rounded(matrix, grid).reduce((a, v, i) => a + (v - matrix.at(i)) ** 2, 0);
        };
        expect(error(true)).toBeLessThan(error(false));
      }
  });

  it("is used block by block and code by code", async () => {
    const matrix = normal(13, 2, 40);
    const options = { format: "int4", block: 16, symmetric: false } as const;
    const grid = new BlockGrid([2, 40], options);
    const codes = new Uint8Array(80);
    for (let c = 0; c < 40; c++)
      for (let r = 0; r < 2; r++) {
        const b = Math.floor(c / 16);
        if (c % 16 === 0) grid.fit(matrix.data as Float32Array, r, b);
        codes[r * 40 + c] = grid.code(matrix.at(r * 40 + c), r * grid.blocks + b);
      }
    const [mine, whole] = [grid.pack(codes), roundToBlocks(matrix, options)];
    for (const part of ["codes", "scales", "zeroPoints"] as const) expect(mine[part]).toEqual(whole[part]);
  });

  it("refuses what cannot be rounded, naming the place", () => {
    const options = { format: "int4", block: 16 } as const;
    const bad = (value: number): HostTensor => {
      const matrix = normal(1, 3, 40);
      matrix.set(40 + 17, value);
      return matrix;
    };
    expect(() => roundToBlocks(bad(Number.NaN), options)).toThrow(
      "the matrix holds NaN in row 1, column 17; only finite numbers can be rounded",
    );
    expect(() => roundToBlocks(bad(-Infinity), options)).toThrow("-Infinity in row 1, column 17");
    expect(() => roundToBlocks(bad(1e7), { ...options, scales: "f16" })).toThrow("is beyond f16; store scales as f32");
    expect(() => blockGrid(HostTensor.from([1, 2]), options)).toThrow("a weight matrix has two dimensions, not [2]");
    expect(() => blockGrid(bad(0), { ...options, format: "ternary", symmetric: false })).toThrow(
      'ternary blocks are symmetric; leave out "symmetric: false"',
    );
    expect(() => new BlockGrid([2, 16], options).pack(new Uint8Array(31))).toThrow(
      "a matrix [2, 16] has 32 codes, not 31",
    );
  });
});
