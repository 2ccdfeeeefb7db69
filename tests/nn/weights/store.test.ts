import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  BlockWeight,
  Dense,
  fromPackQuantized,
  HalfWeight,
  LowRank,
  packQuantizedConfig,
  restoreWeights,
  roundToBlocks,
  SumWeight,
  storeWeights,
  TransformedWeight,
  toCodebook,
  toPackQuantized,
  toSparse,
  toSparse24,
  type Weight,
} from "../../../src/nn/index.ts";
import { flattenTree, HostTensor, input, isHostTensor, spec } from "../../../src/tensor/index.ts";
import { normal } from "./support.ts";

const sparse = normal(1, 4, 32);
for (let i = 0; i < sparse.size; i++) if (i % 4 > 1) sparse.set(i, 0);

/** Eight different numbers in each half of a row. */
const fewValues = HostTensor.from(
  Float32Array.from({ length: 128 }, (_, i) => ((i * 5) % 8) ** 2 + Math.floor(i / 16)),
  { shape: [4, 32] },
);

const weights: Record<string, Weight | HostTensor> = {
  norm: normal(2, 32),
  dense: new Dense(normal(3, 4, 32)),
  blocks: roundToBlocks(normal(4, 4, 40), { format: "int3", block: 16, symmetric: false, exact: true }),
  ternary: roundToBlocks(normal(5, 4, 40), { format: "ternary", block: "channel", scales: "f16" }),
  codebook: toCodebook(fewValues, { levels: 8, sets: 8 }),
  half: new HalfWeight(normal(6, 4, 32).cast("bf16")),
  sparse24: toSparse24(sparse),
  bitmap: toSparse(sparse),
  rows: toSparse(
    HostTensor.from(
      Float32Array.from({ length: 128 }, (_, i) => (i === 7 ? 1 : 0)),
      { shape: [4, 32] },
    ),
  ),
  adapted: new TransformedWeight(
    new SumWeight([
      { weight: roundToBlocks(normal(7, 4, 32), { format: "int4", block: 32 }) },
      { weight: new LowRank(new Dense(normal(8, 4, 2)), new HalfWeight(normal(9, 2, 32).cast("f16"))), scale: 0.25 },
    ]),
    { hadamard: 16, scales: normal(10, 32) },
  ),
};

describe("storeWeights and restoreWeights", () => {
  it("bring every representation back through JSON, bit for bit", () => {
    const { tensors, description } = storeWeights(weights);
    expect(Object.keys(description)).not.toContain("dense");
    expect(tensors).toHaveProperty(["adapted.inner.1.up"]);
    const restored = restoreWeights(JSON.parse(JSON.stringify(description)), tensors);
    expect(Object.keys(restored).sort()).toEqual(Object.keys(weights).sort());
    const again = storeWeights(restored);
    expect(again.description).toEqual(description);
    expect(Object.keys(again.tensors).sort()).toEqual(Object.keys(tensors).sort());
    for (const [name, tensor] of Object.entries(tensors)) expect(again.tensors[name]).toBe(tensor);
    for (const [name, weight] of Object.entries(weights)) {
      const back = restored[name]!;
      if (!(weight instanceof HostTensor) && name !== "dense") expect(back).toBeInstanceOf(weight.constructor);
      const leaves = (w: unknown) => Object.values(flattenTree({ w }, isHostTensor)).map((t) => t.rawBytes());
      expect(leaves(back)).toEqual(leaves(weight));
    }
  });

  it("refuse what is damaged", () => {
    const { tensors, description } = storeWeights(weights);
    type Loose = Record<string, { [key: string]: unknown; attributes: Record<string, unknown> } | number>;
    const damaged =
      (change: (copy: Loose & Record<"half" | "blocks" | "bitmap", Exclude<Loose[string], number>>) => void) => () => {
        const copy = JSON.parse(JSON.stringify(description));
        change(copy);
        return restoreWeights(copy, tensors);
      };
    expect(() => restoreWeights([], tensors)).toThrow("the description of weights must be a record by name");
    expect(damaged((d) => (d.dense = 1))).toThrow('the description of "dense" needs its kind, attributes and children');
    expect(damaged((d) => (d.half.kind = "toString"))).toThrow(
      '"half" is of kind "toString"; known are dense, affine-input, blocks',
    );
    expect(damaged((d) => (d.half.children = []))).toThrow('the description of "half" lacks its part "values"');
    expect(damaged((d) => (d.half.children = ["nothing"]))).toThrow('the file lacks the tensor "half.nothing"');
    expect(damaged((d) => (d.blocks.attributes.block = "16"))).toThrow(
      'the attribute "block" of "blocks" must be a whole number, not "16"',
    );
    expect(damaged((d) => (d.blocks.attributes.block = 32))).toThrow(
      "the codes of this block weight must be [4, 2, 12]",
    );
    expect(damaged((d) => (d.bitmap.attributes.shape = null))).toThrow("must be a list of numbers, not null");
    const symbolic = new Dense(input("w", spec("f32", [2, 2])));
    expect(() => storeWeights({ w: symbolic })).toThrow('"w" is symbolic; only host tensors can be stored');
    expect(() => storeWeights({ a: weights.half!, "a.values": weights.norm! })).toThrow(
      'two tensors would be stored as "a.values"',
    );
  });
});

describe("pack-quantized tensors of compressed-tensors", () => {
  it("lie as the convention says", () => {
    // Row r holds codes r, r + 1, ...; value = code - 8 (symmetric).
    const matrix = HostTensor.from(
      Float32Array.from({ length: 64 }, (_, i) => ((i + (i >> 5)) % 16) - 8),
      { shape: [2, 32] },
    );
    const codes = Uint8Array.from(matrix.toArray(), (v) => v + 8);
    const packed = toPackQuantized(
      new BlockWeight(
        {
          codes: HostTensor.from(
            Uint8Array.from({ length: 32 }, (_, i) => codes[2 * i]! | (codes[2 * i + 1]! << 4)),
            { shape: [2, 2, 8] },
          ),
          scales: HostTensor.from([
            [1, 1],
            [1, 1],
          ]),
          // Zero points 1 and 2 of the first row, 3 and 4 of the second.
          zeroPoints: HostTensor.from(Uint8Array.of(0x21, 0x43), { shape: [2, 1] }),
        },
        { format: "int4", block: 16, columns: 32 },
      ),
    );
    expect(packed.weight_packed.shape).toEqual([2, 4]);
    expect(packed.weight_packed.at(0)).toBe(0x76543210);
    expect(packed.weight_packed.at(1)).toBe(0xfedcba98 | 0);
    expect(packed.weight_packed.at(4)).toBe(0x87654321 | 0);
    // Down the columns: the first group's are 1 and 3, the second's 2 and 4.
    expect(packed.weight_zero_point!.shape).toEqual([1, 2]);
    expect(packed.weight_zero_point!.toArray()).toEqual([0x31, 0x42]);
    expect(packed.weight_shape.toArray()).toEqual([2, 32]);
  });

  it("come back bit for bit", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("int4" as const, "int8" as const),
        fc.boolean(),
        fc.integer({ min: 1, max: 11 }),
        fc.constantFrom([64, 32], [48, 16], [50, "channel"], [96, 48]),
        (format, symmetric, rows, [columns, block]) => {
          const weight = roundToBlocks(normal(rows, rows, columns as number), {
            format,
            block: block as number | "channel",
            symmetric,
          });
          const back = fromPackQuantized(toPackQuantized(weight), format === "int4" ? 4 : 8);
          expect(back.layout).toEqual(weight.layout);
          for (const part of ["codes", "scales", "zeroPoints"] as const) expect(back[part]).toEqual(weight[part]);
        },
      ),
      { numRuns: 20, seed: 1 },
    );
  });

  it("are described for those who read them", () => {
    const config = (block: number | "channel") =>
      packQuantizedConfig(roundToBlocks(normal(1, 4, 64), { format: "int4", block }));
    expect(config(32)).toMatchObject({
      quant_method: "compressed-tensors",
      format: "pack-quantized",
      config_groups: { group_0: { weights: { num_bits: 4, symmetric: true, strategy: "group", group_size: 32 } } },
    });
    expect(config("channel")).toMatchObject({
      config_groups: { group_0: { weights: { strategy: "channel", group_size: null } } },
    });
  });

  it("refuse what the convention has no place for", () => {
    const three = roundToBlocks(normal(1, 4, 64), { format: "int3", block: 32 });
    expect(() => toPackQuantized(three)).toThrow("pack-quantized files hold int4 and int8 blocks, not int3");
    const uneven = roundToBlocks(normal(1, 4, 40), { format: "int4", block: 32 });
    expect(() => toPackQuantized(uneven)).toThrow("rows of 40 entries must consist of whole blocks, not of 32");
    const packed = toPackQuantized(roundToBlocks(normal(1, 4, 64), { format: "int4", block: 32 }));
    expect(() => fromPackQuantized(packed, 3)).toThrow("are read with 4 or 8 bits, not 3");
    expect(() => fromPackQuantized(packed, 8)).toThrow("must be i32 [4, 16], not i32 [4, 8]");
    expect(() => fromPackQuantized({ ...packed, weight_scale: normal(1, 3, 2) }, 4)).toThrow(
      "weight_scale [3, 2] does not go with a matrix [4, 64]",
    );
    expect(() => fromPackQuantized({ ...packed, weight_zero_point: packed.weight_packed }, 4)).toThrow(
      "weight_zero_point must be i32 [1, 2], not i32 [4, 8]",
    );
  });
});
