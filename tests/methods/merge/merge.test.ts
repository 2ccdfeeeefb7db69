import { describe, expect, it } from "vitest";
import {
  encodeSafetensors,
  MemorySink,
  memorySource,
  SafetensorsFile,
  type TensorFile,
} from "../../../src/formats/index.ts";
import {
  addition,
  alignVocabulary,
  averaged,
  Merge,
  type MergeInputs,
  type MergeOptions,
  type MergeReport,
  matchTokens,
  ties,
} from "../../../src/methods/index.ts";
import { type DType, HostTensor, Rng } from "../../../src/tensor/index.ts";

type Tensors = Readonly<Record<string, HostTensor>>;

async function fileOf(name: string, tensors: Tensors): Promise<TensorFile> {
  return await SafetensorsFile.open(memorySource(await encodeSafetensors(Object.entries(tensors)), name));
}

async function loaded(merge: Merge): Promise<Tensors> {
  const tensors: Record<string, HostTensor> = {};
  for (const { name, load } of merge.tensors) tensors[name] = await load();
  return tensors;
}

const merge = async (inputs: MergeInputs, rule = addition, options: MergeOptions = {}) =>
  await loaded(new Merge(inputs, rule, options));

const f32 = (...values: number[]): HostTensor => HostTensor.from(values);

const rng = new Rng(5);
const random = (dtype: DType = "f32", std = 1): Tensors => ({
  "model.embed_tokens.weight": rng.normalTensor([10, 6], { dtype, std }),
  "model.layers.0.mlp.up_proj.weight": rng.normalTensor([8, 6], { dtype, std }),
  "model.layers.1.mlp.up_proj.weight": rng.normalTensor([8, 6], { dtype, std }),
  "model.norm.weight": rng.normalTensor([6], { dtype, std }),
});

describe("a merge of checkpoints", () => {
  it("adds for ParamΔ what post-training added, in every tensor", async () => {
    const [base, post, next] = [random(), random(), random()];
    const start = await fileOf("next", next);
    const models = [{ name: "post", file: await fileOf("post", post), weight: 0.5 }];
    const result = await merge({ start, base: await fileOf("base", base), models });
    for (const [name, tensor] of Object.entries(result)) {
      const expected = next[name]!.toArray().map((v, i) => v + 0.5 * (post[name]!.at(i) - base[name]!.at(i)));
      expect(tensor.toArray()).toEqual(expected.map(Math.fround));
    }
  });

  it.each(["bf16", "f16"] as const)("keeps the type of the start, rounding once to %s", async (dtype) => {
    const [base, post, next] = [random("f32", 0.01), random("f32", 0.01), random(dtype)];
    const start = await fileOf("next", next);
    const models = [{ name: "post", file: await fileOf("post", post), weight: 1 }];
    for (const [name, tensor] of Object.entries(await merge({ start, base: await fileOf("base", base), models }))) {
      expect(tensor.dtype).toBe(dtype);
      const exact = next[name]!.toArray().map((v, i) => v + (post[name]!.at(i) - base[name]!.at(i)));
      expect(tensor.rawBytes()).toEqual(HostTensor.from(exact, { dtype, shape: tensor.shape }).rawBytes());
    }
  });

  it("leaves every bit as it is where nothing changed or the weight is 0", async () => {
    for (const dtype of ["f32", "bf16", "f16"] as const) {
      const next = random(dtype);
      const start = await fileOf("next", next);
      const same = await fileOf("same", random());
      const other = await fileOf("other", random());
      for (const models of [[{ name: "same", file: same, weight: 1 }], [{ name: "other", file: other, weight: 0 }]]) {
        const result = await merge({ start, base: same, models });
        for (const [name, tensor] of Object.entries(result)) expect(tensor.rawBytes()).toEqual(next[name]!.rawBytes());
      }
    }
  });

  it("counts two post-trainings with weights 1 and 0 as the first alone", async () => {
    const files = await Promise.all(["next", "base", "a", "b"].map((name) => fileOf(name, random())));
    const [start, base, a, b] = files as [TensorFile, TensorFile, TensorFile, TensorFile];
    const one = [{ name: "a", file: a, weight: 1 }];
    const both = await merge({ start, base, models: [...one, { name: "b", file: b, weight: 0 }] });
    expect(both).toEqual(await merge({ start, base, models: one }));
  });

  it("averages with weights in proportion", async () => {
    const files = await Promise.all([f32(0, 4), f32(8, 4), f32(4, -4)].map((w, i) => fileOf(`${i}`, { w })));
    const models = files.map((file, i) => ({ name: `${i}`, file, weight: [2, 1, 1][i]! }));
    const { w } = await merge(averaged(models));
    expect(w!.toArray()).toEqual([3, 2]);
    const even = files.slice(0, 2).map((file, i) => ({ name: `${i}`, file, weight: i === 0 ? 1 : -1 }));
    expect(() => averaged(even)).toThrow("weights that add up to 0 give no average");
    expect(() => averaged([])).toThrow("there is no model to average");
  });

  it("holds one tensor at a time, and reads each once from each file", async () => {
    const steps: string[] = [];
    const counted = async (name: string): Promise<TensorFile> => {
      const file = await fileOf(name, random());
      const read: TensorFile["read"] = (tensor) => {
        steps.push(`${name} ${tensor}`);
        return file.read(tensor);
      };
      return {
        name,
        tensors: file.tensors,
        read,
        close: () => file.close(),
        [Symbol.asyncDispose]: () => file.close(),
      };
    };
    const base = await counted("base");
    const models = [
      { name: "a", file: await counted("a"), weight: 1 },
      { name: "b", file: await counted("b"), weight: 1 },
    ];
    const pending = new Merge({ start: base, base, models }, ties()).tensors;
    expect(steps).toEqual([]);
    for (const { name, load } of pending) {
      await load();
      expect(steps.splice(0)).toEqual([`base ${name}`, `a ${name}`, `b ${name}`]);
    }
  });

  it("goes through tensors of any length, and puts into a sink what it gives", async () => {
    // More than two blocks, which are read and written at once; the end fills neither a block nor a vector.
    const shape = [2 ** 20 + 16389];
    const tensors = (std: number) => ({ w: rng.normalTensor(shape, { dtype: "bf16", std }) });
    const [from, to, on] = [tensors(0.02), tensors(0.02), tensors(0.02)];
    const [start, base] = [await fileOf("start", on), await fileOf("base", from)];
    const models = [{ name: "post", file: await fileOf("post", to), weight: 1 }];
    const [pending] = new Merge({ start, base, models }, addition).tensors;
    const result = await pending!.load();
    const value = (i: number) => on.w.at(i) + (to.w.at(i) - from.w.at(i));
    const wide = Float64Array.from({ length: result.size }, (_, i) => value(i));
    const expected = new HostTensor("f64", shape, wide).cast("bf16").rawBytes();
    expect(Buffer.compare(result.rawBytes(), expected)).toBe(0);
    const sink = new MemorySink();
    await pending!.write!(sink);
    expect(Buffer.compare(sink.bytes(), expected)).toBe(0);
    const { w } = await merge({ start, base, models }, ties({ density: 1 }));
    expect(Buffer.compare(w!.rawBytes(), expected)).toBe(0);
  });

  it("merges one tensor after the other, however they are asked for", async () => {
    const [start, base] = [await fileOf("start", random()), await fileOf("base", random())];
    const models = [{ name: "post", file: await fileOf("post", random()), weight: 1 }];
    const together = await Promise.all(new Merge({ start, base, models }, addition).tensors.map(({ load }) => load()));
    expect(together).toEqual(Object.values(await merge({ start, base, models })));
  });

  it("tells how far it is, and stops between tensors", async () => {
    const file = await fileOf("file", random());
    const other = await fileOf("other", random());
    const stop = new AbortController();
    const shares: number[] = [];
    const options: MergeOptions = {
      signal: stop.signal,
      onProgress({ doneBytes, totalBytes }) {
        shares.push(doneBytes / totalBytes);
        if (shares.length === 2) stop.abort(new Error("stopped here"));
      },
    };
    const inputs = { start: file, base: file, models: [{ name: "other", file: other, weight: 1 }] };
    await expect(merge(inputs, addition, options)).rejects.toThrow("stopped here");
    expect(shares).toEqual([60 / 162, 108 / 162]);
    shares.length = 3;
    await merge(inputs, addition, { onProgress: ({ doneBytes, totalBytes }) => shares.push(doneBytes / totalBytes) });
    expect(shares.at(-1)).toBe(1);
  });
});

describe("a merge's report", () => {
  async function report(start: Tensors, base: Tensors, ...models: Tensors[]): Promise<MergeReport> {
    const [from, of] = [await fileOf("start", start), await fileOf("base", base)];
    const files = await Promise.all(models.map((tensors, i) => fileOf(`model ${i}`, tensors)));
    const named = files.map((file, i) => ({ name: `model ${i}`, file, weight: 1 }));
    const merge = new Merge({ start: from, base: start === base ? from : of, models: named }, addition);
    await loaded(merge);
    return merge.report();
  }

  it("measures changes and how they get along", async () => {
    const base = { w: f32(3, 4, 0, 0) };
    const { overall, tensors } = await report(base, base, { w: f32(4, 5, 0, 1) }, { w: f32(5, 3, 0, 0) });
    expect(tensors).toEqual([{ name: "w", shape: [4], ...overall }]);
    const [first, second] = overall.updates;
    expect(first).toMatchObject({ name: "model 0", norm: Math.sqrt(3), relative: Math.sqrt(3) / 5 });
    expect(first!.cosine).toBeCloseTo(32 / (5 * Math.sqrt(42)), 12);
    expect(second!.norm).toBeCloseTo(Math.sqrt(5), 12);
    const [pair] = overall.pairs;
    expect(pair!.names).toEqual(["model 0", "model 1"]);
    // (1, 1, 0, 1) and (2, -1, 0, 0): two entries that both change, one of them in opposite directions.
    expect(pair!.cosine).toBeCloseTo(1 / Math.sqrt(15), 12);
    expect(pair!.normRatio).toBeCloseTo(Math.sqrt(3 / 5), 12);
    expect(pair!.signConflicts).toBe(0.5);
    expect(overall.change).toBeCloseTo(Math.sqrt(10) / 5, 12);
  });

  it("puts the tensors of a layer together", async () => {
    const tensors = { "a.0.x": f32(3), "a.0.y": f32(4), "a.10.x": f32(1), end: f32(1) };
    const changed = { "a.0.x": f32(4), "a.0.y": f32(4), "a.10.x": f32(1), end: f32(2) };
    const { layers, overall } = await report(tensors, tensors, changed);
    expect(layers.map(({ name, change }) => [name, change])).toEqual([
      ["a.0", 0.2],
      ["a.10", 0],
      ["end", 1],
    ]);
    expect(overall.change).toBeCloseTo(Math.sqrt(2 / 27), 12);
  });

  it("compares with the step to a new base, and says null where nothing was", async () => {
    const { overall } = await report({ w: f32(0, 1) }, { w: f32(0, 0) }, { w: f32(0, 2) });
    expect(overall.updates.map(({ name, relative }) => [name, relative])).toEqual([
      ["new base", null],
      ["model 0", null],
    ]);
    expect(overall.pairs[0]).toMatchObject({ cosine: 1, normRatio: 0.5, signConflicts: 0 });
  });

  it("warns of bases that look unrelated, and of no others", async () => {
    const large = (std: number) => rng.normalTensor([64, 64], { std });
    const [w, noise, other] = [large(1), large(0.05), large(1)];
    const near = HostTensor.from(
      w.toArray().map((v, i) => v + noise.at(i)),
      { shape: [64, 64] },
    );
    expect((await report({ w: near }, { w }, { w })).warnings).toEqual([]);
    const { warnings } = await report({ w: other }, { w }, { w });
    expect(warnings[0]).toMatch(
      /^the bases look unrelated: the new base lies 1\.4\d of the old one's norm away from it$/,
    );
    expect(warnings[1]).toMatch(/^the bases look unrelated: the cosine between their "w" is -?0\.0\d$/);
    expect((await report({ w }, { w }, { w: other })).warnings).toEqual([]);
  });
});

describe("checkpoints that cannot be merged", () => {
  async function refusal(a: Tensors, b: Tensors): Promise<() => Merge> {
    const [start, file] = [await fileOf("A", a), await fileOf("B", b)];
    return () => new Merge({ start, base: start, models: [{ name: "b", file, weight: 1 }] }, addition);
  }
  const table = (rows: number) => HostTensor.zeros("f32", [rows, 2]);

  it("are refused naming the tensors that differ, with both shapes", async () => {
    expect(await refusal({ a: f32(1), b: table(2) }, { a: f32(1), b: table(3), c: f32(1) })).toThrow(
      'the checkpoints differ: "b" is [2, 2] in A and [3, 2] in B; "c" is missing in A and [1] in B',
    );
    const many = Object.fromEntries(Array.from({ length: 13 }, (_, i) => [`t${i}`, f32(1)]));
    expect(await refusal({ a: f32(1) }, { a: f32(1), ...many })).toThrow(/"t9" is missing in A.*; and 3 more differ$/);
  });

  it("are refused with advice where only the vocabulary or a tied head differs", async () => {
    const embedding = (rows: number) => ({ "model.embed_tokens.weight": table(rows) });
    expect(await refusal(embedding(4), embedding(5))).toThrow(
      "Only the vocabularies differ: their rows can be matched by token (alignVocabulary, --vocab map)",
    );
    expect(await refusal(embedding(4), { ...embedding(4), "lm_head.weight": table(4) })).toThrow(
      "One shares its head with its embedding and the other does not: save both in the same way",
    );
  });

  it("are refused when they hold codes, or types that would lose digits", async () => {
    expect(await refusal({ a: f32(1) }, { a: HostTensor.from([1n]) })).toThrow(
      'B: "a" is of type I64; F32, F16 and BF16 can be merged. If it holds codes of quantized weights, dequantize',
    );
    expect(await refusal({ a: HostTensor.from([1], { dtype: "f64" }) }, { a: f32(1) })).toThrow(
      'A: "a" is of type F64',
    );
  });

  it("are refused while reading, where they are not finite", async () => {
    const merge = (await refusal({ a: f32(1, 2) }, { a: f32(1, NaN) }))();
    await expect(loaded(merge)).rejects.toThrow('B: "a" holds NaN at entry 1; the checkpoint is damaged');
  });

  it("are refused where the result overflows, and only there", async () => {
    const half = (value: number) => ({ a: HostTensor.from([value], { dtype: "f16" }) });
    const merge = (await refusal(half(40000), half(65504)))();
    expect((await loaded(merge))["a"]!.item()).toBe(65504);
    const start = await fileOf("start", half(65504));
    const models = [{ name: "b", file: await fileOf("B", half(40032)), weight: 1 }];
    const over = new Merge({ start, base: await fileOf("base", half(40000)), models }, addition);
    await expect(loaded(over)).rejects.toThrow(
      '"a" becomes 65536 at entry 0, which f16 cannot hold; merge with smaller weights',
    );
  });

  it("are refused with weights that are not finite, or when there are none", async () => {
    const start = await fileOf("A", { a: f32(1) });
    const models = [{ name: "b", file: start, weight: NaN }];
    expect(() => new Merge({ start, base: start, models }, addition)).toThrow(
      "the weight of b must be finite, not NaN",
    );
    expect(() => new Merge({ start, base: start, models: [] }, addition)).toThrow("there is no model to merge");
  });
});

describe("vocabularies", () => {
  const vocabulary = (...tokens: (string | undefined)[]) => ({
    tokenToId: (token: string) => (tokens.includes(token) ? tokens.indexOf(token) : undefined),
    idToToken: (id: number) => tokens[id],
  });

  it("are matched by token, rows without one by number", () => {
    const tokens = vocabulary("a", "c", "b", "new", undefined, "chat");
    const old = [vocabulary("a", "b", "c", "spare"), vocabulary("a", "b", "c", "chat")];
    expect(matchTokens({ rows: 7, tokens }, { rows: 6, tokens: old })).toEqual([0, 2, 1, -1, 4, 3, -1]);
    expect(matchTokens({ rows: 2, tokens }, { rows: 2, tokens: old })).toEqual([0, -1]);
  });

  it("are aligned so that tokens keep their changes and new ones stay as they are", async () => {
    const rows = [1, -1, 0];
    const tables = (values: number[][]) => ({
      "model.embed_tokens.weight": HostTensor.from(values),
      "model.norm.weight": f32(1, 1),
    });
    const aligned = async (values: number[][]) => alignVocabulary(await fileOf("old", tables(values)), rows);
    const base = await aligned([
      [1, 2],
      [3, 4],
    ]);
    const file = await aligned([
      [1, 3],
      [5, 4],
    ]);
    const start = await fileOf("start", tables(Array.from({ length: 3 }, () => [10, 10])));
    const result = await merge({ start, base, models: [{ name: "post", file, weight: 1 }] });
    expect(result["model.embed_tokens.weight"]!.toArray()).toEqual([12, 10, 10, 10, 10, 11]);
    expect(result["model.norm.weight"]!.toArray()).toEqual([1, 1]);
  });
});
