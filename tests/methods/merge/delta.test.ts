import { describe, expect, it } from "vitest";
import { encodeSafetensors, memorySource, SafetensorsFile } from "../../../src/formats/index.ts";
import {
  addition,
  alphaSweep,
  applyDelta,
  baseOfDelta,
  extractDelta,
  Merge,
  tensorsFingerprint,
  transferEfficiency,
} from "../../../src/methods/index.ts";
import { type DType, HostTensor, Rng } from "../../../src/tensor/index.ts";

type Tensors = Readonly<Record<string, HostTensor>>;

async function fileOf(name: string, tensors: Tensors, metadata?: ReadonlyMap<string, string>) {
  return await SafetensorsFile.open(memorySource(await encodeSafetensors(Object.entries(tensors), metadata), name));
}

async function loaded({ tensors }: Pick<Merge, "tensors">): Promise<Record<string, HostTensor>> {
  const result: Record<string, HostTensor> = {};
  for (const { name, load } of tensors) result[name] = await load();
  return result;
}

const rng = new Rng(8);
const random = (dtype: DType = "f32"): Tensors => ({
  "model.embed_tokens.weight": rng.normalTensor([10, 6], { dtype }),
  "model.norm.weight": rng.normalTensor([6], { dtype }),
});

async function publishedDelta(post: Tensors, base: Tensors, dtype: "f32" | "bf16" = "f32") {
  const delta = await extractDelta(await fileOf("post", post), await fileOf("base", base), { dtype });
  return await fileOf("delta", await loaded(delta as Pick<Merge, "tensors">), delta.metadata);
}

describe("published changes", () => {
  it("say which base they are from, whatever its files are called", async () => {
    const [post, base] = [random(), random()];
    const delta = await publishedDelta(post, base);
    expect(baseOfDelta(delta)).toMatch(/^[0-9a-f]{64}$/);
    expect(baseOfDelta(delta)).toBe(
      await tensorsFingerprint(await fileOf("elsewhere", Object.fromEntries(Object.entries(base).reverse()))),
    );
    expect(baseOfDelta(delta)).not.toBe(await tensorsFingerprint(await fileOf("post", post)));
  });

  it("bring the base back to the post-trained model, to the last place but one", async () => {
    const [post, base] = [random(), random()];
    const result = await loaded(applyDelta(await fileOf("base", base), await publishedDelta(post, base)));
    for (const [name, tensor] of Object.entries(result))
      for (let i = 0; i < tensor.size; i++) {
        const [value, wanted, from] = [tensor.at(i), post[name]!.at(i), base[name]!.at(i)];
        expect(Math.abs(value - wanted)).toBeLessThanOrEqual(2 ** -23 * Math.max(Math.abs(wanted), Math.abs(from)));
      }
  });

  it("taken away again leave the new base", async () => {
    const [post, base, next] = [random(), random(), random()];
    const delta = await publishedDelta(post, base);
    const there = await fileOf("there", await loaded(applyDelta(await fileOf("next", next), delta)));
    for (const [name, tensor] of Object.entries(await loaded(applyDelta(there, delta, -1))))
      for (let i = 0; i < tensor.size; i++) expect(tensor.at(i)).toBeCloseTo(next[name]!.at(i), 6);
  });

  it("give what a merge of the three checkpoints gives, half precision included", async () => {
    const [post, base, next] = [random("bf16"), random("bf16"), random("bf16")];
    const start = await fileOf("next", next);
    const models = [{ name: "post", file: await fileOf("post", post), weight: 0.75 }];
    const whole = await loaded(new Merge({ start, base: await fileOf("base", base), models }, addition));
    expect(await loaded(applyDelta(start, await publishedDelta(post, base), 0.75))).toEqual(whole);
    const { "model.norm.weight": norm } = await publishedDelta(post, base, "bf16").then(async (file) => ({
      "model.norm.weight": await file.read("model.norm.weight"),
    }));
    expect(norm.dtype).toBe("bf16");
  });

  it("are refused where they are none, or not for this base", async () => {
    const base = random();
    const start = await fileOf("next", base);
    expect(() => applyDelta(start, start)).toThrow("next is no file of changes: it names no base that they are from");
    const delta = await publishedDelta(base, base);
    expect(() => applyDelta(start, delta, NaN)).toThrow("alpha must be finite, not NaN");
    const other = await fileOf("other", { "model.norm.weight": base["model.norm.weight"]! });
    expect(() => applyDelta(other, delta)).toThrow(
      '"model.embed_tokens.weight" is missing in other and [10, 6] in delta',
    );
    await expect(extractDelta(start, other)).rejects.toThrow(
      '"model.embed_tokens.weight" is [10, 6] in next and missing',
    );
  });
});

describe("ParamΔ's algebra", () => {
  it("gives the post-trained model where the new base is the old one, to the last place", async () => {
    const [post, base] = [random(), random()];
    const [file, models] = [
      await fileOf("base", base),
      [{ name: "post", file: await fileOf("post", post), weight: 1 }],
    ];
    const twin = await fileOf("new base", base);
    for (const [name, tensor] of Object.entries(await loaded(new Merge({ start: twin, base: file, models }, addition))))
      expect(tensor.toArray()).toEqual(post[name]!.toArray());
  });
});

describe("a sweep over strengths", () => {
  it("scores each merge, the weights multiplied", async () => {
    const [base, post] = [{ w: HostTensor.from([1, 2]) }, { w: HostTensor.from([3, 2]) }];
    const start = await fileOf("base", base);
    const models = [{ name: "post", file: await fileOf("post", post), weight: 2 }];
    const scores = await alphaSweep(
      { start, base: start, models },
      async (tensors) => tensors.get("w")!.at(0),
      [0, 0.5, 1],
    );
    expect(scores).toEqual([
      { alpha: 0, score: 1 },
      { alpha: 0.5, score: 3 },
      { alpha: 1, score: 5 },
    ]);
    await expect(alphaSweep({ start, base: start, models }, async () => 0, [Infinity])).rejects.toThrow(
      "alpha must be finite, not Infinity",
    );
  });
});

describe("transfer efficiency", () => {
  it("is the slope through the origin, with the share of the variance that it explains", () => {
    expect(transferEfficiency([45, 90], [50, 100])).toEqual({ gamma: 0.9, r2: 1, ratio: 0.9 });
    // The slope of (1, 1) and (2, 3) is 7 / 5, with errors of -2/5 and 1/5; the mean is 2.
    const { gamma, r2, ratio } = transferEfficiency([1, 3], [1, 2]);
    expect(gamma).toBeCloseTo(7 / 5, 12);
    expect(r2).toBeCloseTo(1 - 0.2 / 2, 12);
    expect(ratio).toBeCloseTo(4 / 3, 12);
  });

  it("is refused where there is nothing to fit", () => {
    expect(() => transferEfficiency([1], [1, 2])).toThrow("there are 1 scores and 2");
    expect(() => transferEfficiency([], [])).toThrow("there are 0 scores and 0");
    expect(() => transferEfficiency([NaN], [1])).toThrow("scores must be finite");
    expect(() => transferEfficiency([1], [0])).toThrow("direct scores that are all 0 leave nothing to compare with");
  });
});
