import { describe, expect, it } from "vitest";
import {
  AffineInput,
  affineTokenRounding,
  Dense,
  FakeQuantized,
  KeptRows,
  keepRows,
  LowRank,
  NEVER,
  restoreWeights,
  roundAffine,
  roundToBlocks,
  storeWeights,
} from "../../../src/nn/index.ts";
import { compile } from "../../../src/runtime/index.ts";
import { grad, HostTensor, mul, Rng, sum } from "../../../src/tensor/index.ts";

const rng = new Rng(3);
const matrix = rng.normalTensor([40, 32]);
const x = rng.normalTensor([2, 3, 32]);
const ids = [0, 7, 31, 39];

describe("a head of which some rows are left", () => {
  it.each([
    ["dense", new Dense(matrix)],
    ["in blocks", roundToBlocks(matrix, { format: "int4", block: 32, scales: "f16" })],
  ])("%s: gives the kept logits as they were, and all others below any", async (_, head) => {
    const kept = keepRows(head, ids);
    expect(kept.shape).toEqual([40, 32]);
    const [whole, cut] = await Promise.all(
      [head, kept].map((weight) => compile((t) => weight.apply(t), [x]).then((f) => f(x))),
    );
    expect(cut!.shape).toEqual([2, 3, 40]);
    for (let i = 0; i < cut!.size; i++) {
      if (ids.includes(i % 40)) expect(cut!.at(i)).toBeCloseTo(whole!.at(i), 5);
      else expect(cut!.at(i)).toBe(NEVER);
    }
    expect(kept.bytes).toBe((head.bytes * ids.length) / 40 + 8 * ids.length);
  });

  it("has zeros for rows that are gone", async () => {
    const kept = keepRows(new Dense(matrix), ids);
    const dense = await (await compile(() => kept.dense(), []))();
    for (let i = 0; i < dense.size; i++) expect(dense.at(i)).toBe(ids.includes(Math.floor(i / 32)) ? matrix.at(i) : 0);
  });

  it("is stored and read back", async () => {
    const kept = keepRows(roundToBlocks(matrix, { format: "int4", block: 32 }), ids);
    const { tensors, description } = storeWeights({ head: kept });
    const { head } = restoreWeights(JSON.parse(JSON.stringify(description)), tensors);
    expect(head).toBeInstanceOf(KeptRows);
    const [before, after] = [kept, head as KeptRows].map((weight) => compile((t) => weight.apply(t), [x]));
    expect(await (await after!)(x)).toEqual(await (await before!)(x));
  });

  it("refuses ids that are no rows, in disorder or missing, and representations without rows of their own", () => {
    const head = new Dense(matrix);
    expect(() => keepRows(head, [])).toThrow("a head must keep at least one row");
    expect(() => keepRows(head, [3, 3])).toThrow("ids of kept rows are increasing and below 40; number 1 of them is 3");
    expect(() => keepRows(head, [3, 40])).toThrow("number 1 of them is 40");
    const product = new LowRank(new Dense(rng.normalTensor([40, 2])), new Dense(rng.normalTensor([2, 32])));
    expect(() => keepRows(product, ids)).toThrow("where it is dense or in blocks, not low-rank");
    expect(() => new KeptRows(head, HostTensor.from([1n]), 40)).toThrow(
      "40 rows are kept under ids i64 [40], not i64 [1]",
    );
  });
});

describe("inputs rounded between their extremes", () => {
  it("lie on each token's grid of 256 steps, with an exact zero", async () => {
    const tokens = HostTensor.from([
      [0, 0.3, 2.55, -1],
      [5, 6, 7, 8],
      [0, 0, 0, 0],
    ]);
    const rounded = await (await compile((t) => roundAffine(t), [tokens]))(tokens);
    for (let r = 0; r < 3; r++) {
      const row = Array.from({ length: 4 }, (_, i) => tokens.at(4 * r + i));
      const [low, high] = [Math.min(0, ...row), Math.max(0, ...row)];
      const step = Math.max((high - low) / 255, 1e-12);
      const zero = Math.round(-low / step) - 128;
      row.forEach((value, i) => {
        const code = Math.max(-128, Math.min(127, Math.round(value / step) + zero));
        expect(rounded.at(4 * r + i)).toBeCloseTo((code - zero) * step, 5);
      });
    }
    expect(rounded.at(0)).toBe(0);
  });

  it("pass gradients straight through, the extremes' included", async () => {
    const factors = rng.normalTensor([2, 3, 32]);
    const gradient = await compile((t) => grad(sum(mul(roundAffine(t), factors)), { t }).t, [x]);
    expect((await gradient(x)).toArray()).toEqual(factors.toArray());
  });

  it("stay rounded when what was trained so is packed, and stored", async () => {
    const weight = { name: "as is", apply: (t: never) => t, pack: () => new Dense(matrix) };
    const trained = FakeQuantized.of(matrix, { weight: weight as never, input: affineTokenRounding });
    const packed = await trained.packed();
    expect(packed).toBeInstanceOf(AffineInput);
    const { tensors, description } = storeWeights({ w: packed });
    const again = restoreWeights(JSON.parse(JSON.stringify(description)), tensors)["w"] as AffineInput;
    const [a, b] = await Promise.all([trained, again].map((w) => compile((t) => w.apply(t), [x]).then((f) => f(x))));
    for (let i = 0; i < a!.size; i++) expect(b!.at(i)).toBeCloseTo(a!.at(i), 4);
  });
});
