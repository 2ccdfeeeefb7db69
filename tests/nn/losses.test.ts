import { describe, expect, it } from "vitest";
import {
  binaryCrossEntropy,
  crossEntropy,
  distillation,
  huber,
  meanSquaredError,
  targetLogProbs,
} from "../../src/nn/index.ts";
import { grad, HostTensor, mean, mul, neg, Rng, ShapeError, sum, type Tensor } from "../../src/tensor/index.ts";
import { run } from "../support/run.ts";

const rng = new Rng(11);
const logits = rng.normalTensor([2, 3, 5], { std: 3, dtype: "f64" });
const targets = HostTensor.from(
  [
    [0, 4, 2],
    [1, 1, 3],
  ],
  { dtype: "i64" },
);
const at = (b: number, t: number): number[] => Array.from({ length: 5 }, (_, c) => logits.at((b * 3 + t) * 5 + c));
const logProbs = (row: readonly number[]): number[] => {
  const top = Math.max(...row);
  const total = Math.log(row.reduce((a, x) => a + Math.exp(x - top), 0)) + top;
  return row.map((x) => x - total);
};
const rows = [0, 1].flatMap((b) => [0, 1, 2].map((t) => ({ row: at(b, t), target: targets.at(b * 3 + t) })));

describe("crossEntropy", () => {
  it("is the mean negative log-probability of the targets, with softmax minus one-hot as its gradient", async () => {
    const [loss, g] = await run(
      (x, y) => {
        const l = crossEntropy(x, y);
        return [l, grad(l, x)];
      },
      logits,
      targets,
    );
    expect(loss!.item()).toBeCloseTo(rows.reduce((a, { row, target }) => a - logProbs(row)[target]!, 0) / 6, 10);
    const want = rows.flatMap(({ row, target }) =>
      logProbs(row).map((l, c) => (Math.exp(l) - (c === target ? 1 : 0)) / 6),
    );
    for (const [i, w] of want.entries()) expect(g!.at(i)).toBeCloseTo(w, 10);
  });

  it("leaves ignored positions out of sum and count", async () => {
    const [loss, g] = await run(
      (x, y) => {
        const l = crossEntropy(x, y, { ignore: 1 });
        return [l, grad(l, x)];
      },
      logits,
      targets,
    );
    const kept = rows.filter(({ target }) => target !== 1);
    expect(loss!.item()).toBeCloseTo(kept.reduce((a, { row, target }) => a - logProbs(row)[target]!, 0) / 4, 10);
    expect(g!.toArray().slice(15, 25)).toEqual(Array(10).fill(0));
  });

  it("weights positions and smooths labels", async () => {
    const weights = HostTensor.from(
      [
        [1, 0, 2],
        [0.5, 1, 0],
      ],
      { dtype: "f64" },
    );
    const [loss] = await run(
      (x, y, w) => crossEntropy(x, y, { weights: w, labelSmoothing: 0.2 }),
      logits,
      targets,
      weights,
    );
    const each = rows.map(
      ({ row, target }) => -0.8 * logProbs(row)[target]! - (0.2 / 5) * logProbs(row).reduce((a, b) => a + b),
    );
    expect(loss!.item()).toBeCloseTo(each.reduce((a, l, i) => a + l * weights.at(i), 0) / 4.5, 10);
  });

  it("stays finite for huge logits", async () => {
    const [loss] = await run(
      (x, y) => crossEntropy(x, y),
      HostTensor.from([[1e4, -1e4]]),
      HostTensor.from([1], { dtype: "i64" }),
    );
    expect(loss!.item()).toBe(2e4);
  });

  it("can be differentiated twice", async () => {
    const [second] = await run(
      (x, y) => {
        const first = grad(neg(mean(targetLogProbs(x, y))), x);
        return grad(sum(mul(first, first)), x);
      },
      logits,
      targets,
    );
    // Central difference of the squared norm of the analytic gradient.
    const squared = (shift: number): number =>
      rows.reduce((total, { row, target }, r) => {
        const moved = row.map((x, c) => (r === 0 && c === 2 ? x + shift : x));
        return total + logProbs(moved).reduce((a, l, c) => a + ((Math.exp(l) - (c === target ? 1 : 0)) / 6) ** 2, 0);
      }, 0);
    expect(second!.at(2)).toBeCloseTo((squared(1e-5) - squared(-1e-5)) / 2e-5, 7);
  });

  it("refuses targets that do not belong to the logits", async () => {
    await expect(run((x, y) => crossEntropy(x, y), logits, HostTensor.from([1], { dtype: "i64" }))).rejects.toThrow(
      new ShapeError("targets [1] need one axis less than logits [2, 3, 5]"),
    );
  });
});

describe("other losses", () => {
  const [p, q] = [HostTensor.from([0.5, -2, 3], { dtype: "f64" }), HostTensor.from([0, 1, 2.5], { dtype: "f64" })];
  const scalar = async (f: (a: Tensor, b: Tensor) => Tensor, a = p, b = q): Promise<number> =>
    (await run(f as never, a, b))[0]!.item();

  it("follow their formulas", async () => {
    expect(await scalar(meanSquaredError)).toBeCloseTo((0.25 + 9 + 0.25) / 3, 12);
    expect(await scalar((a, b) => huber(a, b, 1))).toBeCloseTo((0.125 + 2.5 + 0.125) / 3, 12);
    const bce = [0.5, -2, 3].map((x, i) => Math.log1p(Math.exp(x)) - x * [0, 1, 0.25][i]!);
    // onnxruntime's softplus is single precision only.
    const [logit, label] = [p.cast("f32"), HostTensor.from([0, 1, 0.25])];
    expect(await scalar(binaryCrossEntropy, logit, label)).toBeCloseTo(bce.reduce((a, b) => a + b) / 3, 6);
  });

  it("distillation is the scaled divergence from the teacher, zero at equality", async () => {
    const [a, b] = [
      HostTensor.from([[0.5, -2, 3]], { dtype: "f64" }),
      HostTensor.from([[0, 1, 2.5]], { dtype: "f64" }),
    ];
    const [t, s] = [logProbs([0, 0.5, 1.25]), logProbs([0.25, -1, 1.5])];
    expect(await scalar((x, y) => distillation(x, y, 2), a, b)).toBeCloseTo(
      4 * t.reduce((sum, l, i) => sum + Math.exp(l) * (l - s[i]!), 0),
      10,
    );
    expect(await scalar((x, y) => distillation(x, y, 3), a, a)).toBeCloseTo(0, 12);
  });
});
