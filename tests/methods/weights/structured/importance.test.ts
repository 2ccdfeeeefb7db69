import { describe, expect, it } from "vitest";
import { structuredImportance } from "../../../../src/methods/index.ts";
import { activationsAt } from "../../../../src/report/index.ts";
import { HostTensor, Rng } from "../../../../src/tensor/index.ts";
import { tinyModel } from "../../../generate/models.ts";

const model = tinyModel();
const { config } = model;
const [COUNT, LENGTH] = [3, 7];
const windows = HostTensor.zeros("i64", [COUNT, LENGTH]);
new Rng(5).integers(COUNT * LENGTH, config.vocab).forEach((id, i) => {
  windows.set(i, id);
});

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);

/** The rows of an activation, `[tokens][width]`. */
function rowsOf(tensor: HostTensor): number[][] {
  const width = tensor.shape.at(-1)!;
  const values = tensor.toArray();
  return Array.from({ length: COUNT * LENGTH }, (_, t) => values.slice(t * width, (t + 1) * width));
}

function expectClose(found: ArrayLike<number>, expected: readonly number[]): void {
  expect(found.length).toBe(expected.length);
  expected.forEach((v, i) => {
    expect(Math.abs(found[i]! - v)).toBeLessThan(1e-4 * (1 + Math.abs(v)));
  });
}

describe("structuredImportance", () => {
  it("is what loops over the activations give", async () => {
    const names = [0, 1].flatMap((i) =>
      ["attn.in", "mlp.in", "mlp.act", "out"].map((point) => `model.layers.${i}.${point}`),
    );
    const seen = await activationsAt(model, ["model.embed", ...names], windows);
    const found = await structuredImportance(model, windows);
    const tokens = COUNT * LENGTH;
    const channels = new Array<number>(config.dim).fill(0);
    for (let i = 0; i < config.layers; i++) {
      const rows = (point: string): number[][] => rowsOf(seen[point]!);
      const act = rows(`model.layers.${i}.mlp.act`);
      const column = (j: number): number[] => act.map((row) => row[j]!);
      const energy = Array.from({ length: config.ffn }, (_, j) => dot(column(j), column(j)) / tokens);
      const norm = Array.from({ length: config.ffn }, (_, j) => {
        const windowNorm = (w: number): number => Math.hypot(...column(j).slice(w * LENGTH, (w + 1) * LENGTH));
        return (windowNorm(0) + windowNorm(1) + windowNorm(2)) / COUNT;
      });
      expectClose(found.neurons.energy[i]!, energy);
      expectClose(found.neurons.norm[i]!, norm);
      for (const point of ["attn.in", "mlp.in"])
        for (const row of rows(`model.layers.${i}.${point}`))
          row.forEach((v, c) => {
            channels[c]! += (v * v) / tokens;
          });
      const before = rows(i === 0 ? "model.embed" : `model.layers.${i - 1}.out`);
      const behind = rows(`model.layers.${i}.out`);
      const mean = (of: (x: number[], y: number[]) => number): number =>
        before.reduce((sum, x, t) => sum + of(x, behind[t]!), 0) / tokens;
      expectClose([found.layers.influence[i]!], [1 - mean((x, y) => dot(x, y) / Math.sqrt(dot(x, x) * dot(y, y)))]);
      const moved = (x: number[], y: number[]): number[] => y.map((v, c) => v - x[c]!);
      expectClose([found.layers.change[i]!], [mean((x, y) => dot(moved(x, y), moved(x, y)) / dot(x, x))]);
    }
    expectClose(found.channels, channels);
  });

  it("refuses to judge by nothing, and by activations that are not finite", async () => {
    await expect(structuredImportance(model, HostTensor.zeros("i64", [0, 4]))).rejects.toThrow(
      "importance takes windows [windows, seq] of tokens, not [0, 4]",
    );
    const broken = tinyModel();
    const gain = HostTensor.zeros("f32", [config.dim]);
    gain.set(0, Number.NaN);
    const weights = { ...broken.weights, "model.layers.1.input_layernorm.weight": gain };
    await expect(structuredImportance({ config, weights }, windows)).rejects.toThrow(
      "the activations of layer 1 are not finite on the calibration text",
    );
  });
});
