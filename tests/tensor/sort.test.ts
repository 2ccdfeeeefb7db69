import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { argSort, cast, grad, HostTensor, input, mul, sort, sum, topK } from "../../src/tensor/index.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { hostOf, wave } from "../support/numbers.ts";
import { run } from "../support/run.ts";

/** `[outer, length, inner]` with few distinct values, so that ties are common, and the axis in the middle. */
const blocks = fc
  .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 3 }))
  .chain(([outer, length, inner]) =>
    fc.record({
      shape: fc.constant([outer, length, inner] as const),
      values: fc.array(fc.integer({ min: -3, max: 3 }), {
        minLength: outer * length * inner,
        maxLength: outer * length * inner,
      }),
      k: fc.integer({ min: 0, max: length }),
      largest: fc.boolean(),
      dtype: fc.constantFrom("f32" as const, "f64" as const, "i64" as const, "i32" as const),
    }),
  );

/** Order of one line, stable: indices of the `k` best. */
function best(line: readonly number[], k: number, largest: boolean): number[] {
  return line
    .map((_, i) => i)
    .sort((a, b) => (largest ? line[b]! - line[a]! : line[a]! - line[b]!) || a - b)
    .slice(0, k);
}

const settings = { numRuns: 40, seed: 5 };

describe("topK", () => {
  test("selects the best of each line in order, the first of equals first", async () => {
    await fc.assert(
      fc.asyncProperty(blocks, async ({ shape, values, k, largest, dtype }) => {
        const [outer, length, inner] = shape;
        const x = hostOf(shape, (i) => values[i]!, dtype);
        const [v, at] = await run((x) => {
          const { values, indices } = topK(x, k, 1, { largest });
          return [values, indices];
        }, x);
        expect(v!.dtype).toBe(dtype);
        expect(at!.shape).toEqual([outer, k, inner]);
        for (let o = 0; o < outer; o++)
          for (let n = 0; n < inner; n++) {
            const line = Array.from({ length }, (_, i) => values[(o * length + i) * inner + n]!);
            const wanted = best(line, k, largest);
            const place = (i: number): number => (o * k + i) * inner + n;
            expect(wanted.map((_, i) => at!.at(place(i)))).toEqual(wanted);
            expect(wanted.map((_, i) => v!.at(place(i)))).toEqual(wanted.map((i) => line[i]));
          }
      }),
      settings,
    );
  });

  test("unsorted, selects the same set", async () => {
    const x = hostOf([50], wave, "f32");
    const [loose, strict] = await run((x) => [topK(x, 9, 0, { sorted: false }).indices, topK(x, 9, 0).indices], x);
    expect(new Set(loose!.toArray())).toEqual(new Set(strict!.toArray()));
  });

  test("passes gradients to the selected elements only", async () => {
    const x = hostOf([3, 7], wave);
    await checkGradient((x) => topK(x, 3, 1).values, [x]);
    await checkGradient((x) => topK(x, 2, 0, { largest: false, sorted: false }).values, [x]);
    // Indices carry no gradient.
    const [g] = await run((x) => grad(sum(mul(x, cast(topK(x, 7).indices, "f64"))), x), x);
    const [order] = await run((x) => topK(x, 7).indices, x);
    expect(g!.toArray()).toEqual(order!.toArray());
  });

  test("refuses what cannot be selected", () => {
    const x = input("x", { dtype: "f32", shape: [2, 3] });
    expect(() => topK(x, 4)).toThrow(
      /TopK\(f32 \[2, 3\], i64 \[1\]\): 4 elements cannot be selected along axis 1, which has 3/,
    );
    expect(() => topK(x, 1, 2)).toThrow(/axis 2 is outside/);
    expect(() => topK(input("x", { dtype: "u8", shape: [3] }), 1)).toThrow(/not u8; cast it/);
  });
});

describe("sort", () => {
  test("agrees with a stable sort both ways, and its gradient with finite differences", async () => {
    const x = hostOf([4, 9], wave);
    await checkGradient((x) => sort(x, 1).values, [x]);
    await checkGradient((x) => sort(x, 0, { descending: true }).values, [x]);
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: -4, max: 4 }), { minLength: 1, maxLength: 20 }),
        fc.boolean(),
        async (line, descending) => {
          const [values, order] = await run(
            (x) => [sort(x, -1, { descending }).values, argSort(x, -1, { descending })],
            HostTensor.from(line, { dtype: "f32" }),
          );
          const wanted = best(line, line.length, descending);
          expect(order!.toArray()).toEqual(wanted);
          expect(values!.toArray()).toEqual(wanted.map((i) => line[i]));
        },
      ),
      settings,
    );
  });

  test("sorts an axis whose length is only a name", () => {
    const { values, indices } = sort(input("x", { dtype: "f32", shape: ["batch", "n"] }));
    expect(values.shape).toEqual(["batch", "n"]);
    expect(indices.shape).toEqual(["batch", "n"]);
  });
});
