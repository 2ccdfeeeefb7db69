import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { Dense, toCodebook } from "../../src/nn/index.ts";
import type { Setting } from "../../src/reproduce/index.ts";
import { localWorkbench } from "../../src/reproduce/node.ts";
import { earlyDistance, endOf } from "../../src/reproduce/parq/contest.ts";
import { theory } from "../../src/reproduce/parq/theory.ts";
import { throughFile } from "../../src/reproduce/through-file.ts";
import { HostTensor } from "../../src/tensor/index.ts";

describe("the experiment on PARQ", () => {
  it("finds weights on levels with aggregate steps only, at a seed of its own", async () => {
    const { aprox, proxSgd, fista, optimal } = await theory({
      seed: 11,
      signal: new AbortController().signal,
    } as Setting);
    expect(aprox.onLevel).toBeGreaterThan(0.55);
    expect(proxSgd.onLevel).toBeLessThan(0.11);
    expect(aprox.objective / fista.objective).toBeCloseTo(1, 2);
    expect(optimal).toBeGreaterThanOrEqual(0.99);
  });

  it("compares curves over their first fifth, and their ends", () => {
    const curve = Array.from({ length: 40 }, (_, i) => i);
    expect(
      earlyDistance(
        curve,
        curve.map((x) => (x < 8 ? x + (x % 2) : 99)),
      ),
    ).toBe(0.5);
    expect(endOf(curve)).toBe(38.5);
  });

  it("judges what comes out of a file", async () => {
    const matrix = HostTensor.from([[1, 2, 2, 1]]);
    const given = {
      packed: toCodebook(matrix, { levels: 2, sets: 1 }),
      dense: new Dense(matrix),
      norm: HostTensor.from([3]),
    };
    const { weights, bytes } = await throughFile(given);
    expect(weights.packed).toEqual(given.packed);
    expect([weights.dense, weights.norm]).toEqual([matrix, given.norm]);
    expect(bytes).toBeGreaterThan(given.packed.bytes + 20);
  });

  it("finds data sets in the folder that is named", async () => {
    const folder = await mkdtemp(join(tmpdir(), "pare-data-"));
    await writeFile(join(folder, "a.bin"), Uint8Array.of(1, 2));
    const bench = localWorkbench({ dataFolder: folder });
    expect(await bench.dataFile!("a.bin")).toEqual(Uint8Array.of(1, 2));
    expect(await bench.dataFile!("b/c.bin")).toBeNull();
    expect(localWorkbench({ dataFolder: "" }).dataFile).toBeUndefined();
    await rm(folder, { recursive: true });
  });
});
