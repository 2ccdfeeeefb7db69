import { describe, expect, test } from "vitest";
import { clipped, denseValues, type MatrixJob, nearest, weightErrors } from "../../../src/methods/index.ts";
import { blockGrid } from "../../../src/nn/index.ts";
import { HostTensor } from "../../../src/tensor/index.ts";
import { job } from "./jobs.ts";

const device = { threads: 1 };
const grid = { format: "int3", block: 16, symmetric: false } as const;

/** What a block of a row is rounded to when its magnitudes are cut to a share of the largest. */
function cutAndRounded(entries: readonly number[], share: number): number[] {
  const top = share * Math.max(...entries.map(Math.abs));
  const cut = HostTensor.from(
    Float32Array.from(entries, (v) => Math.max(-top, Math.min(top, v))),
    {
      shape: [1, entries.length],
    },
  );
  const fitted = blockGrid(cut, grid);
  return entries.map((v) => fitted.value(fitted.code(v, 0), 0));
}

describe("clipped rounding", () => {
  test("cuts each block where its part of the output is off least, as trying all shares finds", async () => {
    const work = job(3, 5, 40, 60);
    const rounded = await denseValues(await clipped(grid).compress(work), device);
    let shrunk = 0;
    for (let r = 0; r < 5; r++)
      for (let start = 0; start < 40; start += 16) {
        const columns = Array.from({ length: Math.min(16, 40 - start) }, (_, i) => start + i);
        const entries = columns.map((c) => work.weight.at(r * 40 + c));
        const errorOf = (values: readonly number[]): number => {
          const off = values.map((v, i) => v - entries[i]!);
          let error = 0;
          for (const [i, a] of columns.entries())
            for (const [j, b] of columns.entries()) error += off[i]! * work.inputs.gram.at(a * 40 + b) * off[j]!;
          return error;
        };
        const tried = Array.from({ length: 10 }, (_, i) => errorOf(cutAndRounded(entries, 1 - i / 20)));
        const chosen = errorOf(columns.map((c) => rounded.at(r * 40 + c)));
        expect(chosen).toBeLessThanOrEqual(Math.min(...tried) * 1.0001);
        if (chosen < 0.99 * tried[0]!) shrunk++;
      }
    expect(shrunk).toBeGreaterThan(3);
  });

  test("of rows that are one block, the output is never further off than rounded to nearest", async () => {
    const options = { ...grid, block: "channel" } as const;
    for (let seed = 1; seed < 8; seed++) {
      const work = job(seed, 6, 24, 50);
      const errorWith = async (method: ReturnType<typeof nearest>): Promise<number> =>
        (await weightErrors(work.weight, await method.compress(work), work.inputs.gram, device)).outputError!;
      expect(await errorWith(clipped(options))).toBeLessThanOrEqual((await errorWith(nearest(options))) * 1.0001);
    }
  });

  test("leaves the projections to queries and keys unclipped", async () => {
    for (const part of ["q", "k"]) {
      const work: MatrixJob = { ...job(4, 5, 32, 60), name: `model.layers.0.self_attn.${part}_proj.weight` };
      const [ours, plain] = [await clipped(grid).compress(work), await nearest(grid).compress(work)];
      expect((await denseValues(ours)).data).toEqual((await denseValues(plain)).data);
    }
  });

  test("refuses a matrix of whose inputs nothing is known", async () => {
    await expect(clipped(grid).compress({ ...job(5, 5, 32, 60), inputs: null })).rejects.toThrow(
      'nothing is known of the inputs of "w"; use a method that needs no calibration for it',
    );
  });
});
