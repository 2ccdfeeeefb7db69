import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gguf as parseWithHuggingFace } from "@huggingface/gguf";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { MemorySink, memorySource } from "../../src/formats/bytes.ts";
import { dequantize } from "../../src/formats/gguf/dequantize.ts";
import { openGguf, saveGguf } from "../../src/formats/gguf/gguf.node.ts";
import { GgufFile } from "../../src/formats/gguf/gguf.ts";
import type { Metadata, MetadataValue } from "../../src/formats/gguf/metadata.ts";
import { quantize } from "../../src/formats/gguf/quantize.ts";
import { ggmlTypes } from "../../src/formats/gguf/types.ts";
import { type PendingGgufTensor, writeGguf } from "../../src/formats/gguf/write.ts";
import { type DType, HostTensor, toHalf } from "../../src/tensor/index.ts";
import { halves, twins } from "./gguf-twin.ts";
import { concat, expectRefused, flipped, le, orRefused, random, spliced } from "./malformed.ts";

const open = (bytes: Uint8Array, limits = {}): Promise<GgufFile> =>
  GgufFile.open(memorySource(bytes, "x.gguf"), limits);

async function encode(metadata: Metadata, tensors: readonly PendingGgufTensor[]): Promise<Uint8Array> {
  const sink = new MemorySink();
  await writeGguf(sink, metadata, tensors);
  return sink.bytes();
}

const pending = (name: string, type: string, tensor: HostTensor): PendingGgufTensor => ({
  name,
  type,
  shape: tensor.shape,
  load: () => tensor,
});

// ------------------------------------------------------------------------------- files laid out by hand

const string = (text: string): Uint8Array =>
  concat([le(new TextEncoder().encode(text).length, 8), new TextEncoder().encode(text)]);
const key = (name: string, type: number, value: Uint8Array): Uint8Array => concat([string(name), le(type, 4), value]);
const tensor = (name: string, dims: readonly (number | bigint)[], type: number, offset: number | bigint): Uint8Array =>
  concat([string(name), le(dims.length, 4), ...dims.map((d) => le(d, 8)), le(type, 4), le(offset, 8)]);

interface Raw {
  magic?: string;
  version?: number;
  tensors?: Uint8Array[];
  keys?: Uint8Array[];
  tensorCount?: number | bigint;
  keyCount?: number | bigint;
  /** Bytes after the header, which is padded to 32. */
  data?: number;
}

function raw({
  magic = "GGUF",
  version = 3,
  tensors = [],
  keys = [],
  tensorCount,
  keyCount,
  data = 0,
}: Raw): Uint8Array {
  const header = concat([
    new TextEncoder().encode(magic),
    le(version, 4),
    le(tensorCount ?? tensors.length, 8),
    le(keyCount ?? keys.length, 8),
    ...keys,
    ...tensors,
  ]);
  return concat([header, new Uint8Array(((32 - (header.length % 32)) % 32) + data)]);
}

const normal = (count: number, seed: number): Float32Array => {
  const next = random(seed);
  return Float32Array.from(
    { length: count },
    () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  );
};

/** Root of the mean squared error of an encoding, over the root mean square of what was encoded. */
function encodingError(type: string, x: Float32Array): number {
  const decoded = new Float32Array(x.length);
  dequantize(type, quantize(type, x), decoded);
  const squares = (of: (i: number) => number): number => x.reduce((sum, _, i) => sum + of(i) ** 2, 0);
  return Math.sqrt(squares((i) => x[i]! - decoded[i]!) / squares((i) => x[i]!));
}

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-gguf-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("a GGUF file", () => {
  it.each([2, 3])("of version %i is read as its documentation lays it out", async (version) => {
    const bytes = raw({
      version,
      keys: [
        key("general.architecture", 8, string("llama")),
        key("a.u8", 0, le(200, 1)),
        key("a.i8", 1, le(-3, 1)),
        key("a.u16", 2, le(60000, 2)),
        key("a.i16", 3, le(-300, 2)),
        key("a.u32", 4, le(4e9, 4)),
        key("a.i32", 5, le(-70000, 4)),
        key("a.f32", 6, new Uint8Array(new Float32Array([0.5]).buffer)),
        key("a.bool", 7, le(1, 1)),
        key("a.u64", 10, le(2n ** 63n, 8)),
        key("a.i64", 11, le(-(2n ** 60n), 8)),
        key("a.f64", 12, new Uint8Array(new Float64Array([0.1]).buffer)),
        key("a.list", 9, concat([le(8, 4), le(2, 8), string("x"), string("ÿ")])),
        key("a.numbers", 9, concat([le(5, 4), le(2, 8), le(-1, 4), le(7, 4)])),
        key("a.nested", 9, concat([le(9, 4), le(1, 8), le(0, 4), le(3, 8), le(0x030201, 4).subarray(0, 3)])),
      ],
      tensors: [tensor("t", [3, 2], 0, 0), tensor("q", [32], 2, 32)],
      data: 64,
    });
    new DataView(bytes.buffer).setFloat32(bytes.length - 64 + 12, 1.5, true);
    bytes.set([...le(toHalf(2), 2), 0x1f], bytes.length - 32);
    const file = await open(bytes);
    expect(file.version).toBe(version);
    expect(Object.fromEntries(Array.from(file.metadata, ([name, { value }]) => [name, value]))).toEqual({
      "general.architecture": "llama",
      "a.u8": 200,
      "a.i8": -3,
      "a.u16": 60000,
      "a.i16": -300,
      "a.u32": 4e9,
      "a.i32": -70000,
      "a.f32": 0.5,
      "a.bool": true,
      "a.u64": 2n ** 63n,
      "a.i64": -(2n ** 60n),
      "a.f64": 0.1,
      "a.list": ["x", "ÿ"],
      "a.numbers": new Int32Array([-1, 7]),
      "a.nested": [{ type: "array", of: "u8", value: new Uint8Array([1, 2, 3]) }],
    });
    // Dimensions are stored innermost first.
    expect((await file.read("t")).shape).toEqual([2, 3]);
    expect((await file.read("t")).toArray()).toEqual([0, 0, 0, 1.5, 0, 0]);
    const q = await file.read("q");
    expect([q.dtype, q.at(0), q.at(16), q.at(1)]).toEqual(["f32", 2 * 7, 2 * -7, 2 * -8]);
  });

  it("gives back every kind of metadata and plain tensor it was written with", async () => {
    const text = fc.string({ unit: "grapheme", maxLength: 10 });
    const value: fc.Arbitrary<MetadataValue> = fc.oneof(
      text.map((v): MetadataValue => ({ type: "string", value: v })),
      fc.boolean().map((v): MetadataValue => ({ type: "bool", value: v })),
      fc.integer({ min: 0, max: 2 ** 32 - 1 }).map((v): MetadataValue => ({ type: "u32", value: v })),
      fc.integer().map((v): MetadataValue => ({ type: "i32", value: v })),
      fc.float({ noNaN: true }).map((v): MetadataValue => ({ type: "f32", value: v })),
      fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map((v): MetadataValue => ({ type: "i64", value: v })),
      fc.array(text).map((v): MetadataValue => ({ type: "array", of: "string", value: v })),
      fc.float32Array().map((v): MetadataValue => ({ type: "array", of: "f32", value: v })),
      fc.uint16Array().map((v): MetadataValue => ({ type: "array", of: "u16", value: v })),
      fc.array(fc.int32Array()).map(
        (v): MetadataValue => ({
          type: "array",
          of: "array",
          value: v.map((inner) => ({ type: "array", of: "i32", value: inner }) as const),
        }),
      ),
    );
    const plain: [string, DType][] = [
      ["F32", "f32"],
      ["F16", "f16"],
      ["BF16", "bf16"],
      ["F64", "f64"],
      ["I8", "i8"],
      ["I16", "i16"],
      ["I32", "i32"],
      ["I64", "i64"],
    ];
    const tensors = fc.array(
      fc.record({ type: fc.constantFrom(...plain), shape: fc.array(fc.nat(4), { maxLength: 4 }), seed: fc.nat(90) }),
      { maxLength: 5 },
    );
    const key = fc.stringMatching(/^[a-z_]{1,8}\.[a-z_]{1,8}$/);
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(key, value),
        tensors,
        fc.constantFrom(8, 32, 256),
        async (dictionary, list, alignment) => {
          const metadata = new Map(Object.entries(dictionary)).set("general.alignment", {
            type: "u32",
            value: alignment,
          });
          const hosts = list.map(({ type: [type, dtype], shape, seed }, i) => {
            const t = HostTensor.zeros(dtype, shape);
            for (let j = 0; j < t.size; j++) t.set(j, (seed + j) % 100);
            return { name: `t${i}`, type, t };
          });
          const bytes = await encode(
            metadata,
            hosts.map(({ name, type, t }) => pending(name, type, t)),
          );
          expect(bytes.length % alignment).toBe(0);
          const file = await open(bytes);
          expect(file.metadata).toEqual(metadata);
          for (const { name, t } of hosts) {
            const found = await file.read(name);
            expect([found.dtype, found.shape, found.rawBytes()]).toEqual([t.dtype, t.shape, t.rawBytes()]);
          }
        },
      ),
      { seed: 1, numRuns: 60 },
    );
  });

  it("is understood by Hugging Face's parser", async () => {
    const path = join(folder, "parity.gguf");
    const metadata = new Map<string, MetadataValue>([
      ["general.architecture", { type: "string", value: "llama" }],
      ["llama.block_count", { type: "u32", value: 3 }],
      ["llama.rope.freq_base", { type: "f32", value: 10000 }],
      ["tokenizer.ggml.tokens", { type: "array", of: "string", value: ["a", "▁b"] }],
    ]);
    await saveGguf(path, metadata, [
      pending("blk.0.attn_q.weight", "Q4_K", HostTensor.zeros("f32", [2, 256])),
      pending("output_norm.weight", "F32", HostTensor.zeros("f32", [5])),
    ]);
    const theirs = await parseWithHuggingFace(path, { allowLocalFile: true });
    expect(theirs.metadata).toMatchObject({
      version: 3,
      "general.architecture": "llama",
      "llama.block_count": 3,
      "llama.rope.freq_base": 10000,
      "tokenizer.ggml.tokens": ["a", "▁b"],
    });
    expect(theirs.tensorInfos.map(({ name, shape, dtype, offset }) => [name, shape, dtype, offset])).toEqual([
      ["blk.0.attn_q.weight", [256n, 2n], 12, 0n],
      ["output_norm.weight", [5n], 0, 288n],
    ]);
  });

  it("is saved over itself, with its blocks as they are", async () => {
    const path = join(folder, "self.gguf");
    const x = HostTensor.from(normal(512, 1), { shape: [2, 256] });
    await saveGguf(path, new Map(), [pending("t", "Q6_K", x)]);
    await using file = await openGguf(path);
    const encoded = await file.readEncoded("t");
    await saveGguf(path, file.metadata, [
      { name: "t", type: "Q6_K", shape: [2, 256], load: () => file.readEncoded("t") },
    ]);
    await using again = await openGguf(path);
    expect(await again.readEncoded("t")).toEqual(encoded);
    expect(await again.read("t", [1, 2])).toEqual(
      new HostTensor("f32", [1, 256], (await again.read("t")).data.slice(256) as Float32Array),
    );
    expect(await again.readEncoded("t", [1, 2])).toEqual(encoded.slice(210));
  });

  it("is decoded in pieces that meet", async () => {
    const rows = 70;
    const { bytes } = ggmlTypes.get("Q8_0")!;
    const blocks = new Uint8Array(rows * 2048 * bytes).map((_, i) => i % 50);
    const tensor = { name: "t", type: "Q8_0", shape: [rows, 2 ** 16], load: () => blocks };
    const file = await open(await encode(new Map(), [tensor]));
    const whole = await file.read("t");
    for (const row of [0, 60, 61, 62, rows - 1]) {
      const alone = await file.read("t", [row, row + 1]);
      const same = alone.data.every((x, i) => x === whole.data[row * 2 ** 16 + i]);
      expect([row, same]).toEqual([row, true]);
    }
    expect(whole.at(whole.size - 1)).toBeCloseTo(twins["Q8_0"]!(blocks.subarray(-bytes), 31), 4);
  });

  it("lists types it has no decoder for, and refuses to read them", async () => {
    const file = await open(raw({ tensors: [tensor("q", [256], 16, 0)], data: 96 }));
    expect(file.tensors.get("q")).toMatchObject({ type: "IQ2_XXS", dtype: undefined, bytes: 66 });
    expect(await file.readEncoded("q")).toHaveLength(66);
    await expect(file.read("q")).rejects.toThrow('"q" is IQ2_XXS, which pare has no decoder for');
    await expect(file.read("r")).rejects.toThrow('no tensor is called "r"');
  });

  it("has no parts of blocks to give", async () => {
    const file = await open(await encode(new Map(), [pending("v", "Q8_0", HostTensor.zeros("f32", [64]))]));
    expect((await file.read("v", [32, 64])).shape).toEqual([32]);
    await expect(file.read("v", [0, 8])).rejects.toThrow('8 elements from 0 of "v" are not whole Q8_0 blocks of 32');
  });
});

describe("writing a GGUF file", () => {
  const one = HostTensor.zeros("f32", [2, 32]);
  it.each<[string, Metadata, PendingGgufTensor[], string]>([
    [
      "rows that are not whole blocks",
      new Map(),
      [pending("t", "Q4_K", one)],
      '"t": rows of 32 are not whole Q4_K blocks of 256',
    ],
    ["an unknown type", new Map(), [pending("t", "Q9", one)], '"t": GGUF has no element type called Q9'],
    ["a type without an encoder", new Map(), [pending("t", "IQ4_NL", one)], '"t": pare has no encoder for IQ4_NL'],
    ["a long name", new Map(), [pending("t".repeat(64), "F32", one)], "llama.cpp takes names of at most 63 bytes"],
    [
      "a name twice",
      new Map(),
      [pending("t", "F32", one), pending("t", "F32", one)],
      'two tensors would be called "t"',
    ],
    [
      "five dimensions",
      new Map(),
      [pending("t", "F32", HostTensor.zeros("f32", [1, 1, 1, 1, 1]))],
      "at most 4 dimensions, not 5",
    ],
    [
      "another shape than announced",
      new Map(),
      [{ ...pending("t", "F32", one), shape: [32, 2] }],
      '"t" was announced as [32, 2] but came as [2, 32]',
    ],
    [
      "too few encoded bytes",
      new Map(),
      [{ ...pending("t", "Q8_0", one), load: () => new Uint8Array(67) }],
      '"t": Q8_0 [2, 32] takes 68 bytes, but 67 came',
    ],
    [
      "packed integers",
      new Map(),
      [pending("t", "F32", HostTensor.zeros("u4", [2, 32]))],
      '"t": cast packed u4 to a whole type first',
    ],
    [
      "numbers that are not finite",
      new Map(),
      [pending("t", "Q8_0", HostTensor.from(new Float32Array(32).fill(NaN)))],
      "Q8_0 cannot hold NaN, which is number 0",
    ],
    ["an alignment of 24", new Map([["general.alignment", { type: "u32", value: 24 }]]), [], "must be a power of two"],
    ["a key with a space", new Map([["a b", { type: "u32", value: 1 }]]), [], '"a b" is not an ASCII metadata key'],
    [
      "a fraction for an integer",
      new Map([["a", { type: "u32", value: 1.5 }]]),
      [],
      'the metadata "a" cannot be 1.5, which is no u32',
    ],
    ["a number out of range", new Map([["a", { type: "u8", value: 256 }]]), [], 'the metadata "a" cannot be 256'],
    [
      "an array of another class",
      new Map([["a", { type: "array", of: "i32", value: new Float32Array(1) }]]),
      [],
      "array of i32, which is kept in Int32Array",
    ],
    ["half a surrogate pair", new Map([["a", { type: "string", value: "\udc00" }]]), [], "half a surrogate pair"],
  ])("refuses %s", async (_, metadata, tensors, reason) => {
    await expect(encode(metadata, tensors)).rejects.toThrow(reason);
  });

  it("converts halves and doubles on the way", async () => {
    const x = HostTensor.from(normal(256, 3));
    const direct = await encode(new Map(), [pending("t", "Q4_0", x.cast("f16").cast("f32"))]);
    expect(await encode(new Map(), [pending("t", "Q4_0", x.cast("f16"))])).toEqual(direct);
    const file = await open(await encode(new Map(), [pending("t", "BF16", x.cast("f64"))]));
    expect((await file.read("t")).data).toEqual(x.cast("bf16").data);
  });
});

describe("block formats", () => {
  it.each(Object.keys(twins))("%s is decoded as its definition says", (type) => {
    const { block, bytes } = ggmlTypes.get(type)!;
    const next = random(7);
    const count = 20;
    const blocks = Uint8Array.from({ length: count * bytes }, () => Math.floor(256 * next()));
    for (let b = 0; b < count; b++) {
      for (const at of halves[type]!) blocks.set(le(toHalf(next() - 0.5), 2), b * bytes + at);
    }
    const decoded = new Float32Array(count * block + 1);
    dequantize(type, blocks, decoded, 1);
    const expected = Array.from({ length: count * block }, (_, i) =>
      twins[type]!(blocks.subarray(Math.floor(i / block) * bytes), i % block),
    );
    expect(Math.max(...expected.map((value, i) => Math.abs(decoded[i + 1]! - value)))).toBeLessThan(1e-4);
  });

  // Errors of llama.cpp's own encoders on normal numbers, measured once: none may be worse here.
  it.each([
    ["Q8_0", 0.00536],
    ["Q4_0", 0.08596],
    ["Q4_K", 0.07129],
    ["Q5_K", 0.0361],
    ["Q6_K", 0.01772],
  ])("%s encodes normal numbers with a relative error below %d", (type, bound) => {
    expect(encodingError(type, normal(2 ** 16, 5))).toBeLessThan(bound);
  });

  it("Q2_K encodes normal numbers better than groups between their extremes", () => {
    const x = normal(2 ** 16, 5);
    let [error, total] = [0, 0];
    for (let o = 0; o < x.length; o += 16) {
      const group = x.subarray(o, o + 16);
      const [low, high] = [Math.min(...group), Math.max(...group)];
      for (const value of group) {
        const q = Math.round((3 * (value - low)) / (high - low));
        error += (value - low - (q * (high - low)) / 3) ** 2;
        total += value * value;
      }
    }
    expect(encodingError("Q2_K", x)).toBeLessThan(0.97 * Math.sqrt(error / total));
  });

  it.each(["Q8_0", "Q2_K", "Q4_0", "Q4_K", "Q5_K", "Q6_K"])(
    "%s keeps zeroes, constants and extremes in order",
    (type) => {
      const roundTrip = (x: Float32Array): Float32Array => {
        const decoded = new Float32Array(x.length);
        dequantize(type, quantize(type, x), decoded);
        return decoded;
      };
      expect(roundTrip(new Float32Array(256)).every((y) => y === 0)).toBe(true);
      for (const constant of [3, -3, 1e-4]) {
        for (const y of roundTrip(new Float32Array(256).fill(constant))) {
          expect(Math.abs(y / constant - 1)).toBeLessThan(type === "Q4_0" ? 0.13 : 0.02);
        }
      }
      // Below the least half float there is nothing but zero, and no NaN.
      expect(roundTrip(new Float32Array(256).fill(1e-12)).every((y) => y === 0)).toBe(true);
      const spike = new Float32Array(256);
      spike[77] = -1000;
      const back = roundTrip(spike);
      expect(Math.abs(back[77]! + 1000)).toBeLessThan(10);
      expect(back.every((y, i) => i === 77 || Math.abs(y) < 1)).toBe(true);
      expect(() => quantize(type, new Float32Array(256).fill(1e30))).toThrow("beyond half precision");
      expect(() => quantize(type, new Float32Array(256).fill(Infinity))).toThrow(`${type} cannot hold Infinity`);
      expect(() => quantize(type, new Float32Array(31))).toThrow(`31 numbers are not whole ${type} blocks`);
    },
  );

  it("without a decoder or encoder are refused by name", () => {
    expect(() => dequantize("IQ1_S", new Uint8Array(50), new Float32Array(256))).toThrow("no decoder for IQ1_S");
    expect(() => quantize("Q3_K", new Float32Array(256))).toThrow("no encoder for Q3_K");
    expect(() => dequantize("Q8_0", new Uint8Array(33), new Float32Array(32))).toThrow("33 bytes of Q8_0 do not fill");
    expect(() => dequantize("Q8_0", new Uint8Array(34), new Float32Array(32), 1)).toThrow(
      "do not fill elements from 1 of 32",
    );
  });
});

describe("a malformed GGUF file", () => {
  const u32 = (name: string, value: number): Uint8Array => key(name, 4, le(value, 4));
  const list = (type: number, count: number | bigint, ...items: Uint8Array[]): Uint8Array =>
    key("a.list", 9, concat([le(type, 4), le(count, 8), ...items]));
  const nested = (depth: number): Uint8Array =>
    key(
      "a.list",
      9,
      concat([...Array.from({ length: depth - 1 }, () => concat([le(9, 4), le(1, 8)])), le(0, 4), le(0, 8)]),
    );

  it.each<[string, Uint8Array, RegExp]>([
    ["nothing at all", new Uint8Array(0), /0 bytes are too few/],
    ["another magic", raw({ magic: "GGML" }), /does not begin with "GGUF"/],
    ["version 1", raw({ version: 1 }), /version 1 is not one of 2 and 3/],
    ["version 4", raw({ version: 4 }), /version 4 is not one of/],
    ["a big-endian version", raw({ version: 0x03000000 }), /it is of a big-endian machine/],
    ["2^64-1 tensors", raw({ tensorCount: 2n ** 64n - 1n }), /number 18446744073709551615 at offset 8 is too large/],
    ["2^53 keys", raw({ keyCount: 2n ** 53n }), /too large to be true/],
    [
      "more tensors than allowed",
      raw({ tensorCount: 200_001 }),
      /number of tensors is 200001, over the limit of 200000/,
    ],
    ["more keys than allowed", raw({ keyCount: 100_001 }), /over the limit of 100000; raise limits.keys/],
    ["more keys than it holds", raw({ keyCount: 100 }), /lie beyond its \d+ bytes|text|type/],
    ["a key twice", raw({ keys: [u32("a.b", 1), u32("a.b", 2)] }), /metadata "a.b" is there twice/],
    ["a key that is not UTF-8", raw({ keys: [concat([le(2, 8), le(0xfffe, 2), le(4, 4), le(1, 4)])] }), /not UTF-8/],
    ["a text that is not UTF-8", raw({ keys: [key("a.b", 8, concat([le(2, 8), le(0xc0c0, 2)]))] }), /not UTF-8/],
    ["a text of 2^63 bytes", raw({ keys: [key("a.b", 8, le(2n ** 63n, 8))] }), /too large to be true/],
    [
      "a text that is longer than allowed",
      raw({ keys: [key("a.b", 8, le(10_000_001, 8))] }),
      /over the limit of 10000000/,
    ],
    [
      "a text that is longer than the file",
      raw({ keys: [key("a.b", 8, le(1000, 8))] }),
      /1000 bytes at offset \d+ lie beyond/,
    ],
    ["an unknown value type", raw({ keys: [key("a.b", 13, le(0, 4))] }), /"a.b" has the unknown type 13/],
    ["a bool of 2", raw({ keys: [key("a.b", 7, le(2, 1))] }), /"a.b" is bool but holds bytes other than 0 and 1/],
    ["an unknown array type", raw({ keys: [list(13, 0)] }), /"a.list" has the unknown type 13/],
    [
      "an array that is longer than allowed",
      raw({ keys: [list(0, 4_000_001)] }),
      /length of "a.list" is 4000001, over the limit/,
    ],
    [
      "an array of numbers beyond the file",
      raw({ keys: [list(12, 4_000_000)] }),
      /32000000 bytes at offset \d+ lie beyond/,
    ],
    [
      "an array of texts beyond the file",
      raw({ keys: [list(8, 4_000_000)] }),
      /claims 4000000 entries, more than the file can hold/,
    ],
    ["an array of arrays beyond the file", raw({ keys: [list(9, 4_000_000)] }), /claims 4000000 entries/],
    ["five arrays within each other", raw({ keys: [nested(5)] }), /nesting of "a.list" is 5, over the limit of 4/],
    ["an alignment of 0", raw({ keys: [u32("general.alignment", 0)] }), /alignment of 0 is not a power of two/],
    ["an alignment of 3", raw({ keys: [u32("general.alignment", 3)] }), /alignment of 3 is not a power of two/],
    [
      "an alignment of 2^31",
      raw({ keys: [u32("general.alignment", 2 ** 31)] }),
      /alignment is 2147483648, over the limit of 4096/,
    ],
    [
      "an alignment of another type",
      raw({ keys: [key("general.alignment", 5, le(32, 4))] }),
      /general.alignment is of type i32, not u32/,
    ],
    ["an alignment as text", raw({ keys: [key("general.alignment", 8, string("32"))] }), /is of type string, not u32/],
    [
      "an unknown element type",
      raw({ tensors: [tensor("t", [1], 4, 0)], data: 32 }),
      /"t" has the unknown element type 4/,
    ],
    [
      "five dimensions",
      raw({ tensors: [tensor("t", [1, 1, 1, 1, 1], 0, 0)], data: 32 }),
      /rank of "t" is 5, over the limit of 4/,
    ],
    ["2^32 dimensions", raw({ tensors: [concat([string("t"), le(2 ** 32 - 1, 4)])] }), /rank of "t" is 4294967295/],
    [
      "a dimension past 2^32",
      raw({ tensors: [tensor("t", [2n ** 33n], 0, 0)] }),
      /dimension of "t" is 8589934592, over the limit/,
    ],
    ["a negative dimension", raw({ tensors: [tensor("t", [-1], 0, 0)] }), /too large to be true/],
    [
      "a product past 2^53",
      raw({ tensors: [tensor("t", [2 ** 32, 2 ** 32], 0, 0)] }),
      /more elements than can be counted/,
    ],
    [
      "a product that wraps to zero",
      raw({ tensors: [tensor("t", [2 ** 32, 2 ** 32, 1], 24, 0)] }),
      /more elements than can be counted/,
    ],
    [
      "a row that is not whole blocks",
      raw({ tensors: [tensor("t", [33, 2], 2, 0)], data: 64 }),
      /rows of 33, which are not whole Q4_0 blocks of 32/,
    ],
    [
      "a vector without dimensions of a block type",
      raw({ tensors: [tensor("t", [], 2, 0)], data: 32 }),
      /rows of 1, which are not whole Q4_0/,
    ],
    [
      "a tensor twice",
      raw({ tensors: [tensor("t", [8], 0, 0), tensor("t", [8], 0, 32)], data: 64 }),
      /two tensors are called "t"/,
    ],
    [
      "overlapping tensors",
      raw({ tensors: [tensor("t", [16], 0, 0), tensor("u", [8], 0, 32)], data: 96 }),
      /"u" at \d+ overlaps/,
    ],
    [
      "two tensors in one place",
      raw({ tensors: [tensor("t", [8], 0, 0), tensor("u", [8], 0, 0)], data: 64 }),
      /"u" at \d+ overlaps/,
    ],
    [
      "a hole",
      raw({ tensors: [tensor("t", [8], 0, 0), tensor("u", [8], 0, 64)], data: 96 }),
      /"u" is at \d+ where \d+ was expected/,
    ],
    [
      "a hole at the beginning",
      raw({ tensors: [tensor("t", [8], 0, 32)], data: 64 }),
      /"t" is at \d+ where \d+ was expected/,
    ],
    ["an offset off the alignment", raw({ tensors: [tensor("t", [8], 0, 8)], data: 64 }), /"t" is at \d+ where/],
    [
      "an offset of 2^64-32",
      raw({ tensors: [tensor("t", [8], 0, 2n ** 64n - 32n)], data: 32 }),
      /too large to be true/,
    ],
    ["an offset beyond the file", raw({ tensors: [tensor("t", [8], 0, 2 ** 40)], data: 32 }), /"t" is at \d+ where/],
    [
      "data beyond the file",
      raw({ tensors: [tensor("t", [64], 0, 0)], data: 32 }),
      /tensors end at \d+, but the file at \d+; it is cut short/,
    ],
    ["bytes after the end", raw({ tensors: [tensor("t", [8], 0, 0)], data: 64 }), /32 bytes follow the last tensor/],
    ["bytes and no tensors", raw({ data: 64 }), /\d+ bytes follow the last tensor/],
  ])("is refused: %s", (_, bytes, reason) => expectRefused(open(bytes), reason));

  it("is accepted at its limits and refused one past them", async () => {
    const two = raw({
      keys: [u32("a.b", 1), u32("a.c", 1)],
      tensors: [tensor("t", [8], 0, 0), tensor("u", [8], 0, 32)],
      data: 64,
    });
    const texts = raw({ keys: [list(8, 2, string("abc"), string(""))] });
    for (const [bytes, key, limit] of [
      [two, "keys", 2],
      [two, "tensors", 2],
      [two, "keyBytes", 3],
      [two, "nameBytes", 1],
      [two, "rank", 1],
      [two, "dimension", 8],
      [texts, "arrayLength", 2],
      [texts, "stringBytes", 3],
      [raw({ keys: [nested(3)] }), "nesting", 3],
      [raw({ keys: [u32("general.alignment", 32)] }), "alignment", 32],
    ] as const) {
      expect(await open(bytes, { [key]: limit })).toBeInstanceOf(GgufFile);
      await expectRefused(
        open(bytes, { [key]: limit - 1 }),
        new RegExp(`over the limit of ${limit - 1}; raise limits.${key}`),
      );
    }
  });

  it("with a header of megabytes is read in parts, up to a limit", async () => {
    const long = concat([le(9_000_000, 8), new Uint8Array(9_000_000).fill(0x78)]);
    const bytes = raw({
      keys: [key("a.a", 8, long), key("a.b", 8, long), u32("a.c", 7)],
      tensors: [tensor("t", [8], 0, 0)],
      data: 32,
    });
    expect((await open(bytes)).metadata.get("a.c")).toEqual({ type: "u32", value: 7 });
    await expectRefused(
      open(bytes, { headerBytes: 17_000_000 }),
      /length of its header is \d+, over the limit of 17000000/,
    );
  });

  it("is refused at every length short of its own", async () => {
    const metadata = new Map<string, MetadataValue>([
      ["a.text", { type: "string", value: "hello" }],
      ["a.list", { type: "array", of: "string", value: ["x", "y"] }],
    ]);
    const bytes = await encode(metadata, [
      pending("t", "Q8_0", HostTensor.zeros("f32", [2, 32])),
      pending("u", "F32", HostTensor.zeros("f32", [8])),
    ]);
    for (let length = 0; length < bytes.length; length++) await expectRefused(open(bytes.subarray(0, length)), /./);
  });

  it("is refused or gives tensors that fit its header, whatever byte is changed", async () => {
    const metadata = new Map<string, MetadataValue>([
      ["general.alignment", { type: "u32", value: 32 }],
      ["a.text", { type: "string", value: "hello" }],
      ["a.list", { type: "array", of: "f32", value: new Float32Array(3) }],
    ]);
    const bytes = await encode(metadata, [
      pending("layer.0", "Q4_0", HostTensor.zeros("f32", [2, 32])),
      pending("layer.1", "F16", HostTensor.zeros("f32", [3, 2])),
    ]);
    for (const copy of [...flipped(bytes, 3000, 1), ...spliced(bytes, 1000, 2)]) {
      const file = await orRefused(() => open(copy));
      for (const info of file?.tensors.values() ?? []) {
        const found = await orRefused(() => file!.read(info.name));
        if (found) expect(found.shape).toEqual(info.shape);
      }
    }
  });

  it("on the disk is refused as in memory, and its handle closed", async () => {
    const path = join(folder, "bad.gguf");
    await saveGguf(path, new Map(), []);
    expect((await readFile(path)).length).toBe(32);
    await using file = await openGguf(path);
    expect(file.tensors.size).toBe(0);
    await expectRefused(openGguf(fileURLToPath(import.meta.url)), /does not begin with "GGUF"/);
  });
});
