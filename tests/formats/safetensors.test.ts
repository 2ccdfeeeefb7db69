import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { blobSource, memorySource } from "../../src/formats/bytes.ts";
import { parseJson } from "../../src/formats/json.ts";
import {
  openSafetensors,
  openSafetensorsIndex,
  saveSafetensors,
  saveSafetensorsFolder,
} from "../../src/formats/safetensors.node.ts";
import { SafetensorsFile } from "../../src/formats/safetensors.ts";
import { encodeSafetensors } from "../../src/formats/safetensors-write.ts";
import { pendingFrom, pendingTensors, readTensors } from "../../src/formats/tensor-file.ts";
import { type DType, HostTensor } from "../../src/tensor/index.ts";
import { concat, expectRefused, flipped, le, orRefused, spliced } from "./malformed.ts";

const open = (bytes: Uint8Array, limits = {}): Promise<SafetensorsFile> =>
  SafetensorsFile.open(memorySource(bytes, "x.safetensors"), limits);

/** A file with this header, as text or as a value, and `data` bytes of tensors. */
function raw(header: unknown, data = 0): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  return concat([le(text.length, 8), text, new Uint8Array(data)]);
}

const f32 = (begin: number, end: number, shape: unknown = [(end - begin) / 4]): object => ({
  dtype: "F32",
  shape,
  data_offsets: [begin, end],
});

const dtypes: DType[] = ["f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u64", "u32", "u16", "u8", "bool"];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pare-safetensors-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("a safetensors file", () => {
  it("is read as the format's documentation lays it out", async () => {
    const text = `{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"I8","shape":[],"data_offsets":[8,9]},"__metadata__":{"format":"pt"}}`;
    const numbers = new Uint8Array(new Float32Array([1.5, -2]).buffer);
    const bytes = concat([le(text.length, 8), new TextEncoder().encode(text), numbers, le(-3, 1)]);
    const file = await open(bytes);
    expect([...file.tensors.values()].map(({ name, type, dtype, shape }) => [name, type, dtype, shape])).toEqual([
      ["a", "F32", "f32", [2]],
      ["b", "I8", "i8", []],
    ]);
    expect([...file.metadata]).toEqual([["format", "pt"]]);
    expect((await file.read("a")).toArray()).toEqual([1.5, -2]);
    expect((await file.read("b")).item()).toBe(-3);
  });

  it("gives back every element type, shape, name and metadata it was written with", async () => {
    const tensor = fc
      .record({ dtype: fc.constantFrom(...dtypes), shape: fc.array(fc.nat(4), { maxLength: 4 }), seed: fc.nat() })
      .map(({ dtype, shape, seed }) => {
        const t = HostTensor.zeros(dtype, shape);
        for (let i = 0; i < t.size; i++) t.set(i, (seed + i * 37) % (dtype === "bool" ? 2 : 100));
        return t;
      });
    const text = fc.string({ unit: "grapheme", maxLength: 12 });
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(
          text.filter((name) => name !== "__metadata__"),
          tensor,
          { maxKeys: 6 },
        ),
        fc.dictionary(text, text, { maxKeys: 3 }),
        async (tensors, metadata) => {
          const bytes = await encodeSafetensors(Object.entries(tensors), new Map(Object.entries(metadata)));
          const file = await open(bytes);
          expect(new Map(file.metadata)).toEqual(new Map(Object.entries(metadata)));
          expect(file.tensors.size).toBe(Object.keys(tensors).length);
          for (const [name, expected] of Object.entries(tensors)) {
            const found = await file.read(name);
            expect([found.dtype, found.shape, found.rawBytes()]).toEqual([
              expected.dtype,
              expected.shape,
              expected.rawBytes(),
            ]);
          }
        },
      ),
      { seed: 1, numRuns: 100 },
    );
  });

  it("aligns every tensor, so that reading from memory copies nothing", async () => {
    const bytes = await encodeSafetensors([
      ["odd", HostTensor.zeros("u8", [3])],
      ["wide", HostTensor.zeros("f64", [2])],
    ]);
    const file = await open(bytes);
    expect((await file.read("wide")).data.buffer).toBe(bytes.buffer);
  });

  it("reads some rows without the others", async () => {
    const file = await open(
      await encodeSafetensors([
        [
          "t",
          HostTensor.from([
            [1, 2],
            [3, 4],
            [5, 6],
          ]),
        ],
      ]),
    );
    const rows = await file.read("t", [1, 3]);
    expect([rows.shape, rows.toArray()]).toEqual([
      [2, 2],
      [3, 4, 5, 6],
    ]);
    expect((await file.read("t", [2, 2])).shape).toEqual([0, 2]);
    await expect(file.read("t", [2, 4])).rejects.toThrow('rows 2 to 4 of "t", which has 3');
    await expect(file.read("t", [2, 1])).rejects.toThrow("rows 2 to 1");
    await expect(file.read("u")).rejects.toThrow(
      'x.safetensors: no tensor is called "u"; its 1 tensors begin with "t"',
    );
  });

  it("lists 8-bit floats but does not pretend to read them", async () => {
    const file = await open(raw({ q: { dtype: "F8_E4M3", shape: [4], data_offsets: [0, 4] } }, 4));
    expect(file.tensors.get("q")).toMatchObject({ type: "F8_E4M3", dtype: undefined, bytes: 4 });
    await expect(file.read("q")).rejects.toThrow('"q" is F8_E4M3, which pare has no element type for');
    expect(() => pendingFrom(file)).toThrow('pare cannot read "q"');
  });

  it("is written in the same bytes every time, and refuses what the format cannot hold", async () => {
    const one = HostTensor.from([1]);
    expect(await encodeSafetensors([["a", one]])).toEqual(await encodeSafetensors([["a", one]]));
    await expect(
      encodeSafetensors([
        ["a", one],
        ["a", one],
      ]),
    ).rejects.toThrow('two tensors would be called "a"');
    await expect(encodeSafetensors([["__metadata__", one]])).rejects.toThrow(
      'two tensors would be called "__metadata__"',
    );
    await expect(encodeSafetensors([["\ud800", one]])).rejects.toThrow("half a surrogate pair");
    await expect(encodeSafetensors([["q", HostTensor.zeros("i4", [3])]])).rejects.toThrow(
      '"q": safetensors has no i4; save its packed bytes as u8',
    );
  });

  it("reads a blob as it reads memory", async () => {
    const bytes = await encodeSafetensors([["t", HostTensor.from([1, 2])]]);
    const file = await SafetensorsFile.open(blobSource(new Blob([bytes])));
    expect((await file.read("t")).toArray()).toEqual([1, 2]);
  });
});

describe("a malformed safetensors file", () => {
  it.each<[string, Uint8Array, RegExp]>([
    ["nothing at all", new Uint8Array(0), /0 bytes are too few/],
    ["header length 0", raw(""), /not JSON/],
    ["header length 7, which holds no tensor", raw('{"a":1}'), /"a" is not described by an object/],
    ["header length 2^31", concat([le(2 ** 31, 8), new Uint8Array(64)]), /claims 2147483648 bytes, but 64 follow/],
    ["header length 2^53", concat([le(2n ** 53n, 8), new Uint8Array(64)]), /claims 9007199254740992 bytes/],
    ["header length 2^64-1", concat([le(2n ** 64n - 1n, 8), new Uint8Array(64)]), /claims 18446744073709551615 bytes/],
    ["a list for a header", raw("[]"), /header is not a JSON object/],
    ["half a header", raw('{"a":{"dtype":"F32"'), /not JSON/],
    ["not UTF-8", concat([le(4, 8), new Uint8Array([0x7b, 0xff, 0xfe, 0x7d])]), /not UTF-8/],
    ["a byte order mark", raw("\ufeff{}"), /not JSON/],
    ["deep nesting", raw("[".repeat(100_000)), /nested deeper than 8/],
    [
      "a tensor twice",
      raw(`{"a":${JSON.stringify(f32(0, 4))},"a":${JSON.stringify(f32(0, 4))}}`, 4),
      /"a" is named twice/,
    ],
    [
      "a tensor twice in disguise",
      raw(`{"a":${JSON.stringify(f32(0, 4))},"\\u0061":${JSON.stringify(f32(0, 4))}}`, 4),
      /"a" is named twice/,
    ],
    [
      "a field twice",
      raw('{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}', 4),
      /"dtype" is named twice/,
    ],
    ["half a surrogate pair", raw(`{"\\ud83d":${JSON.stringify(f32(0, 4))}}`, 4), /half a surrogate pair/],
    ["metadata that is a number", raw({ __metadata__: { a: 1 } }), /metadata "a" is not a string/],
    ["metadata that is a list", raw({ __metadata__: ["a"] }), /__metadata__ is not an object/],
    [
      "an unknown element type",
      raw({ a: { dtype: "F33", shape: [1], data_offsets: [0, 4] } }, 4),
      /unknown element type "F33"/,
    ],
    [
      "an element type of JavaScript's",
      raw({ a: { dtype: "constructor", shape: [1], data_offsets: [0, 4] } }, 4),
      /unknown element type/,
    ],
    ["no element type", raw({ a: { shape: [1], data_offsets: [0, 4] } }, 4), /unknown element type undefined/],
    ["a negative dimension", raw({ a: f32(0, 4, [-1]) }, 4), /shape that is not a list of whole numbers/],
    ["a fractional dimension", raw({ a: f32(0, 4, [0.5]) }, 4), /shape that is not a list/],
    ["a dimension as text", raw({ a: f32(0, 4, ["1"]) }, 4), /shape that is not a list/],
    ["a shape that is a number", raw({ a: f32(0, 4, 1) }, 4), /shape that is not a list/],
    ["a product past 2^53", raw({ a: f32(0, 4, [2 ** 31, 2 ** 31, 2 ** 31]) }, 4), /but its offsets span 4/],
    [
      "a product past 2^64 that wraps to 1",
      raw({ a: f32(0, 4, [2 ** 33 + 1, 2 ** 33 - 1]) }, 4),
      /but its offsets span 4/,
    ],
    ["a shape too large for its bytes", raw({ a: f32(0, 4, [2]) }, 4), /takes 8 bytes, but its offsets span 4/],
    ["a shape too small for its bytes", raw({ a: f32(0, 8, [1]) }, 8), /takes 4 bytes, but its offsets span 8/],
    [
      "sub-byte elements that end inside a byte",
      raw({ a: { dtype: "F4", shape: [3], data_offsets: [0, 2] } }, 2),
      /takes 1.5 bytes/,
    ],
    ["one offset", raw({ a: { dtype: "U8", shape: [1], data_offsets: [0] } }, 1), /not two whole numbers/],
    ["a negative offset", raw({ a: { dtype: "U8", shape: [1], data_offsets: [-1, 0] } }, 1), /not two whole numbers/],
    [
      "a fractional offset",
      raw({ a: { dtype: "U8", shape: [1], data_offsets: [0.5, 1.5] } }, 1),
      /not two whole numbers/,
    ],
    [
      "an offset of 1e400",
      raw('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1e400]}}', 1),
      /not two whole numbers/,
    ],
    [
      "reversed offsets",
      raw({ a: { dtype: "U8", shape: [1], data_offsets: [1, 0] } }, 1),
      /ends at 0, before it begins at 1/,
    ],
    ["an end beyond the file", raw({ a: f32(0, 8) }, 4), /it is cut short/],
    [
      "an end far beyond the file",
      raw({ a: { dtype: "U8", shape: [2 ** 40], data_offsets: [0, 2 ** 40] } }, 4),
      /it is cut short/,
    ],
    ["overlapping tensors", raw({ a: f32(0, 8), b: f32(4, 12) }, 12), /"b" at \d+ overlaps/],
    ["two tensors in one place", raw({ a: f32(0, 4), b: f32(0, 4) }, 4), /"b" at \d+ overlaps/],
    ["a hole", raw({ a: f32(0, 4), b: f32(8, 12) }, 12), /belong to no tensor/],
    ["a hole at the beginning", raw({ a: f32(4, 8) }, 8), /belong to no tensor/],
    ["bytes after the end", raw({ a: f32(0, 4) }, 5), /1 bytes follow the last tensor/],
    ["bytes and no tensors", raw({}, 5), /5 bytes follow/],
    [
      "a name that is longer than allowed",
      raw({ [`${"n".repeat(1100)}`]: f32(0, 4) }, 4),
      /over the limit of 1024; raise limits.nameBytes/,
    ],
    [
      "a tensor of nine dimensions",
      raw({ a: f32(0, 4, [1, 1, 1, 1, 1, 1, 1, 1, 1]) }, 4),
      /over the limit of 8; raise limits.rank/,
    ],
  ])("is refused: %s", (_, bytes, reason) => expectRefused(open(bytes), reason));

  it("is refused by its limits, which can be raised", async () => {
    const bytes = raw({ a: f32(0, 4), b: f32(4, 8) }, 8);
    await expectRefused(
      open(bytes, { tensors: 1 }),
      /number of tensors is 2, over the limit of 1; raise limits.tensors/,
    );
    await expectRefused(open(bytes, { headerBytes: 10 }), /length of its header is \d+, over the limit of 10/);
    expect((await open(bytes, { tensors: 2 })).tensors.size).toBe(2);
  });

  it("cannot reach a prototype through a tensor's name", async () => {
    const header = `{"__proto__":${JSON.stringify(f32(0, 4))},"constructor":${JSON.stringify(f32(4, 8))}}`;
    const file = await open(raw(header, 8));
    expect([...file.tensors.keys()]).toEqual(["__proto__", "constructor"]);
    expect((await file.read("__proto__")).toArray()).toEqual([0]);
    await expect(file.read("toString")).rejects.toThrow('no tensor is called "toString"');
    expect(Object.hasOwn(Object.prototype, "dtype")).toBe(false);
  });

  it("is refused when a boolean is neither 0 nor 1", async () => {
    const file = await open(concat([raw({ a: { dtype: "BOOL", shape: [2], data_offsets: [0, 2] } }), le(0x0201, 2)]));
    await expectRefused(file.read("a"), /BOOL but holds bytes other than 0 and 1/);
  });

  it("is refused at every length short of its own", async () => {
    const bytes = await encodeSafetensors([
      ["a", HostTensor.from([1, 2, 3])],
      ["b", HostTensor.from([true])],
    ]);
    for (let length = 0; length < bytes.length; length++) {
      await expectRefused(open(bytes.subarray(0, length)), /./);
    }
  });

  it("is refused or gives tensors that fit its header, whatever byte is changed", async () => {
    const bytes = await encodeSafetensors(
      [
        ["layer.0", HostTensor.zeros("f32", [2, 3])],
        ["layer.1", HostTensor.zeros("bf16", [4])],
        ["mask", HostTensor.zeros("bool", [2])],
      ],
      new Map([["format", "pt"]]),
    );
    for (const copy of [...flipped(bytes, 3000, 1), ...spliced(bytes, 1000, 2)]) {
      const file = await orRefused(() => open(copy));
      for (const info of file?.tensors.values() ?? []) {
        const tensor = await orRefused(() => file!.read(info.name));
        if (tensor) expect(tensor.shape).toEqual(info.shape);
      }
    }
  });

  it("with 100,000 tensors is walked through", async () => {
    const header = Object.fromEntries(
      Array.from({ length: 100_000 }, (_, i) => [`model.layers.${i}.weight`, f32(4 * i, 4 * i + 4)]),
    );
    const text = new TextEncoder().encode(JSON.stringify(header));
    const bytes = new Uint8Array(8 + text.length + 400_000);
    bytes.set(le(text.length, 8));
    bytes.set(text, 8);
    const file = await open(bytes);
    expect(file.tensors.size).toBe(100_000);
    expect((await file.read("model.layers.99999.weight")).toArray()).toEqual([0]);
  });
});

describe("strict JSON", () => {
  it("accepts and refuses what JSON.parse does, but for repeated keys", () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        expect(parseJson(text, "x")).toEqual(JSON.parse(text));
      }),
      { seed: 1, numRuns: 300 },
    );
    for (const text of ["", "{", '{"a"}', '"\\x"', '{"a":1,}', "]", '{"a":"b', "nul"]) {
      expect(() => parseJson(text, "x")).toThrow(/x: it is not JSON/);
    }
    expect(() => parseJson('{"a":{"b":1},"c":[{"a":1},{"a":2}],"a":3}', "x")).toThrow('x: "a" is named twice');
    expect(parseJson('{"a":{"a":["a","a"]},"b":"a"}', "x")).toEqual({ a: { a: ["a", "a"] }, b: "a" });
  });
});

describe("safetensors on the disk", () => {
  it("is saved and opened", async () => {
    const path = join(folder, "one.safetensors");
    await saveSafetensors(path, pendingTensors([["a", HostTensor.from([1, 2])]]), new Map([["by", "pare"]]));
    await using file = await openSafetensors(path);
    expect(file.metadata.get("by")).toBe("pare");
    expect((await file.read("a")).toArray()).toEqual([1, 2]);
    const same = new Uint8Array(await readFile(path));
    expect(same).toEqual(await encodeSafetensors([["a", HostTensor.from([1, 2])]], new Map([["by", "pare"]])));
  });

  it("can be saved over the file that it is being read from", async () => {
    const path = join(folder, "self.safetensors");
    const tensors: [string, HostTensor][] = [
      ["a", HostTensor.from([1, 2])],
      ["b", HostTensor.from([3])],
    ];
    await saveSafetensors(path, pendingTensors(tensors));
    await using file = await openSafetensors(path);
    await saveSafetensors(path, pendingFrom(file));
    await using again = await openSafetensors(path);
    expect((await readTensors(again)).get("b")!.toArray()).toEqual([3]);
    expect((await file.read("a")).toArray()).toEqual([1, 2]);
  });

  it("reports a file that shrinks while it is open", async () => {
    const path = join(folder, "shrinks.safetensors");
    await saveSafetensors(path, pendingTensors([["a", HostTensor.zeros("f32", [100])]]));
    await using file = await openSafetensors(path);
    await truncate(path, 100);
    await expectRefused(file.read("a"), /became shorter while it was being read/);
  });

  it("is loaded in little more memory than its own size", async () => {
    const path = join(folder, "large.safetensors");
    const size = 2 ** 24;
    const header = Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`t${i}`, f32(i * size, (i + 1) * size)]));
    const bytes = raw(header);
    await writeFile(path, bytes);
    await truncate(path, bytes.length + 12 * size);
    const module = (name: string): string => JSON.stringify(new URL(`../../src/formats/${name}`, import.meta.url).href);
    const script = join(folder, "load.mts");
    await writeFile(
      script,
      `import { openSafetensors } from ${module("safetensors.node.ts")};
      import { readTensors } from ${module("tensor-file.ts")};
      const before = process.resourceUsage().maxRSS;
      const tensors = await readTensors(await openSafetensors(${JSON.stringify(path)}));
      const used = (process.resourceUsage().maxRSS - before) * 1024;
      console.log(JSON.stringify({ count: tensors.size, used }));
      process.exit(0);`,
    );
    const { stdout } = await promisify(execFile)(process.execPath, ["--import", "tsx", script]);
    const { count, used } = JSON.parse(stdout) as { count: number; used: number };
    expect(count).toBe(12);
    expect(used).toBeGreaterThan(0.9 * 12 * size);
    expect(used).toBeLessThan(1.2 * 12 * size);
  });

  it("reports a tensor that is not what was announced", async () => {
    const pending = { name: "a", dtype: "f32", shape: [2], load: () => HostTensor.from([1, 2, 3]) } as const;
    await expect(saveSafetensors(join(folder, "x.safetensors"), [pending])).rejects.toThrow(
      '"a" was announced as f32 [2] but came as f32 [3]',
    );
    expect((await readdir(folder)).filter((name) => name.includes("x.safetensors"))).toEqual([]);
  });

  it("is sharded by size, and read back as one", async () => {
    const home = join(folder, "sharded");
    await mkdir(home);
    const tensors = Array.from({ length: 5 }, (_, i): [string, HostTensor] => [`t${i}`, HostTensor.from([i, i])]);
    await saveSafetensorsFolder(home, pendingTensors(tensors));
    expect(await readdir(home)).toEqual(["model.safetensors"]);
    await saveSafetensorsFolder(home, pendingTensors(tensors), { maxShardBytes: 16 });
    expect((await readdir(home)).sort()).toEqual([
      "model-00001-of-00003.safetensors",
      "model-00002-of-00003.safetensors",
      "model-00003-of-00003.safetensors",
      "model.safetensors.index.json",
    ]);
    const index = JSON.parse(await readFile(join(home, "model.safetensors.index.json"), "utf8")) as unknown;
    expect(index).toMatchObject({
      metadata: { total_size: 40 },
      weight_map: { t0: "model-00001-of-00003.safetensors", t4: "model-00003-of-00003.safetensors" },
    });
    await using file = await openSafetensorsIndex(join(home, "model.safetensors.index.json"));
    expect([...(await readTensors(file)).values()].map((t) => t.at(0))).toEqual([0, 1, 2, 3, 4]);
    await expect(saveSafetensorsFolder(home, pendingTensors([tensors[0]!, tensors[0]!]))).rejects.toThrow("same name");
  });

  it.each([
    "../model.safetensors",
    "/etc/x.safetensors",
    "a/b.safetensors",
    "a\\b.safetensors",
    "C:x.safetensors",
    "..",
    ".x.safetensors",
    "x.bin",
    "x\0.safetensors",
    "",
    7,
  ])("refuses an index that sends it to %j", async (shard) => {
    const path = join(folder, "bad.index.json");
    await writeFile(path, JSON.stringify({ weight_map: { a: shard } }));
    await expectRefused(openSafetensorsIndex(path), /not a plain .safetensors file name/);
  });

  it("refuses an index that does not agree with its shards", async () => {
    const path = join(folder, "wrong.index.json");
    await saveSafetensors(join(folder, "s.safetensors"), pendingTensors([["a", HostTensor.from([1])]]));
    await writeFile(path, JSON.stringify({ weight_map: { a: "s.safetensors", b: "s.safetensors" } }));
    await expectRefused(openSafetensorsIndex(path), /tensor "b" is not in .*s\.safetensors/);
    await writeFile(path, '{"weight_map":{"a":"s.safetensors","a":"s.safetensors"}}');
    await expectRefused(openSafetensorsIndex(path), /"a" is named twice/);
    await writeFile(path, '{"weight_map":[]}');
    await expectRefused(openSafetensorsIndex(path), /no "weight_map" object/);
    await writeFile(path, JSON.stringify({ weight_map: { a: "absent.safetensors" } }));
    await expect(openSafetensorsIndex(path)).rejects.toThrow("absent.safetensors: there is no such file");
    await writeFile(path, JSON.stringify({ weight_map: { a: "s.safetensors", b: "t.safetensors" } }));
    await expectRefused(openSafetensorsIndex(path, { shards: 1 }), /number of shards is 2, over the limit of 1/);
  });
});
