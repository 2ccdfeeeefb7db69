import { describe, expect, it } from "vitest";
import { GaussianProcess, kendallTau, type MixedPoint, mixedKernel } from "../../../src/methods/index.ts";
import { withJitter } from "../../../src/methods/search/covariance.ts";
import { logLikelihood } from "../../../src/methods/search/likelihood.ts";
import { Rng } from "../../../src/tensor/index.ts";

const rng = new Rng(4);
const kernel = mixedKernel(2);
const point = (): MixedPoint => ({
  numbers: [rng.uniform(), rng.uniform()],
  choices: Array.from({ length: 4 }, () => rng.choice(["a", "b", "c"])),
});
const points = Array.from({ length: 12 }, point);
const truth = ({ numbers: [x, y], choices }: MixedPoint): number =>
  3 * x! + Math.sin(4 * y!) + 0.5 * choices.filter((c) => c === "a").length;
const values = points.map((p) => 7 + truth(p));

/** The solution of `A x = b` by elimination with pivots. */
function solve(matrix: readonly (readonly number[])[], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i]!]);
  const n = rows.length;
  for (let k = 0; k < n; k++) {
    const pivot = rows
      .slice(k)
      .reduce((best, row, i) => (Math.abs(row[k]!) > Math.abs(rows[best]![k]!) ? k + i : best), k);
    [rows[k], rows[pivot]] = [rows[pivot]!, rows[k]!];
    for (let i = 0; i < n; i++) {
      if (i === k) continue;
      const factor = rows[i]![k]! / rows[k]![k]!;
      rows[i] = rows[i]!.map((v, j) => v - factor * rows[k]![j]!);
    }
  }
  return rows.map((row, i) => row[n]! / row[i]!);
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);

/** The belief at `x` given some of the observations, by the textbook's formulas. */
function belief(gp: GaussianProcess<MixedPoint>, given: readonly number[], x: MixedPoint) {
  const { deviation, noise, ...rest } = gp.hyperparameters;
  const logs = Object.values(rest).map(Math.log);
  const k = (a: MixedPoint, b: MixedPoint): number => deviation! ** 2 * kernel.value(a, b, logs);
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const covariance = given.map((i) => given.map((j) => k(points[i]!, points[j]!) + (i === j ? noise! ** 2 : 0)));
  const column = given.map((i) => k(points[i]!, x));
  const weights = solve(covariance, column);
  return {
    mean:
      mean +
      dot(
        weights,
        given.map((i) => values[i]! - mean),
      ),
    variance: k(x, x) - dot(weights, column),
    noise: noise! ** 2,
  };
}

describe("a Gaussian process", () => {
  it("predicts what the formulas say", async () => {
    const gp = await GaussianProcess.fit(kernel, points, values, { rng: new Rng(1) });
    const all = points.map((_, i) => i);
    for (let i = 0; i < 5; i++) {
      const x = point();
      const { mean, std } = gp.predict(x);
      const expected = belief(gp, all, x);
      expect(mean).toBeCloseTo(expected.mean, 5);
      expect(std ** 2).toBeCloseTo(expected.variance, 5);
    }
    const left = gp.leaveOneOut();
    let [missed, total] = [0, 0];
    const average = values.reduce((a, b) => a + b, 0) / values.length;
    points.forEach((x, i) => {
      const expected = belief(
        gp,
        all.filter((j) => j !== i),
        x,
      );
      expect(left[i]!.mean).toBeCloseTo(expected.mean, 4);
      expect(left[i]!.std ** 2).toBeCloseTo(expected.variance + expected.noise, 4);
      missed += (expected.mean - values[i]!) ** 2;
      total += (average - values[i]!) ** 2;
    });
    expect(gp.leaveOneOutR2).toBeCloseTo(1 - missed / total, 4);
  });

  it("has the derivatives of its likelihood right", async () => {
    const targets = Float64Array.from(values, (v) => v - 8);
    const at = Float64Array.of(0.3, -2, -0.2, 0.5, 0.7);
    const { gradient } = await logLikelihood(kernel, points, targets, at);
    const { length } = at;
    for (let i = 0; i < length; i++) {
      const moved = async (by: number) =>
        (
          await logLikelihood(
            kernel,
            points,
            targets,
            at.map((v, j) => (i === j ? v + by : v)),
          )
        ).value;
      const slope = ((await moved(1e-5)) - (await moved(-1e-5))) / 2e-5;
      expect(Math.abs(gradient[i]! - slope)).toBeLessThan(1e-5 * (1 + Math.abs(slope)));
    }
  });

  it("has the density of two observations right", async () => {
    const [a, b] = points as [MixedPoint, MixedPoint];
    const at = [0.3, -2, -0.2, 0.5, 0.7];
    const { value } = await logLikelihood(kernel, [a, b], Float64Array.of(0.4, -1.1), Float64Array.from(at));
    const variance = Math.exp(0.3) + Math.exp(-2);
    const shared = Math.exp(0.3) * kernel.value(a, b, at.slice(2));
    const determinant = variance ** 2 - shared ** 2;
    const square = (variance * (0.4 ** 2 + 1.1 ** 2) + 2 * shared * 0.4 * 1.1) / determinant;
    expect(value).toBeCloseTo(-0.5 * (square + Math.log(determinant)) - Math.log(2 * Math.PI), 9);
  });

  it("draws functions with the means, deviations and covariances that it believes in", async () => {
    const gp = await GaussianProcess.fit(kernel, points.slice(0, 6), values.slice(0, 6), { rng: new Rng(1) });
    const count = 4000;
    const normals = new Rng(9);
    const normal = Float64Array.from({ length: count }, () => normals.normal());
    const draws = await gp.draw(count, new Rng(2));
    const x = point();
    const seen = draws.at(x, normal);
    const { mean, std } = gp.predict(x);
    const average = seen.reduce((a, b) => a + b, 0) / count;
    expect(Math.abs(average - mean)).toBeLessThan(5 * (std / Math.sqrt(count)) + 1e-3);
    const spread = Math.sqrt(seen.reduce((a, b) => a + (b - average) ** 2, 0) / count);
    expect(Math.abs(spread / std - 1)).toBeLessThan(0.06);
    // What was drawn at a point is kept to at the same point.
    const after = await draws.and(x, normal);
    const again = after.at(x, new Float64Array(count));
    again.forEach((v, i) => {
      expect(Math.abs(v - seen[i]!)).toBeLessThan(0.02 * std + 1e-3);
    });
  });

  it("does not see noise as structure", async () => {
    const noisy = new Rng(5);
    const many = Array.from({ length: 40 }, point);
    const targets = many.map(() => noisy.normal());
    const gp = await GaussianProcess.fit(kernel, many, targets, { rng: new Rng(1) });
    expect(gp.leaveOneOutR2).toBeLessThan(0.3);
    const clear = await GaussianProcess.fit(kernel, many, many.map(truth), { rng: new Rng(1) });
    expect(clear.leaveOneOutR2).toBeGreaterThan(0.9);
  });

  it("refuses what it cannot learn from", async () => {
    const fit = (x: MixedPoint[], y: number[]) => GaussianProcess.fit(kernel, x, y, { rng: new Rng(0) });
    await expect(fit(points.slice(0, 1), [1])).rejects.toThrow("a Gaussian process needs two observations, not 1");
    await expect(fit(points.slice(0, 3), [1, 2])).rejects.toThrow("3 points were given with 2 values");
    await expect(fit(points.slice(0, 2), [1, Number.NaN])).rejects.toThrow(
      "value 1 of 2 is NaN; drop it or measure again",
    );
  });
});

describe("withJitter", () => {
  it("makes a singular covariance positive definite, and no other", async () => {
    const added: number[] = [];
    await withJitter(Float64Array.of(1, 1, 1, 1), 2, 1, async (matrix) => {
      added.push(matrix.at(0) - 1);
      if (matrix.at(0) - 1 < 5e-9) throw new (await import("../../../src/linalg/index.ts")).LinalgError("singular");
    });
    expect(added.map((v) => Number(v.toPrecision(3)))).toEqual([0, 1e-10, 1e-9, 1e-8]);
    const { cholesky } = await import("../../../src/linalg/index.ts");
    await expect(withJitter(Float64Array.of(1, 2, 2, 1), 2, 1, cholesky)).rejects.toThrow(
      /^a covariance of 2 points is not positive definite, not even with 0.0001 of its size added to the diagonal: /,
    );
    await expect(withJitter(Float64Array.of(1, 1, 1, 1), 2, 1, cholesky)).resolves.toBeDefined();
  });
});

describe("kendallTau", () => {
  it("counts pairs in the same order", () => {
    expect(kendallTau([1, 2, 3], [10, 20, 30])).toBe(1);
    expect(kendallTau([1, 2, 3], [3, 2, 1])).toBe(-1);
    // Of six pairs, five agree.
    expect(kendallTau([1, 2, 3, 4], [1, 3, 2, 4])).toBeCloseTo(4 / 6, 12);
    // One tie: five pairs count on that side.
    expect(kendallTau([1, 1, 2, 3], [1, 2, 3, 4])).toBeCloseTo(5 / Math.sqrt(5 * 6), 12);
    expect(kendallTau([1, 1], [1, 2])).toBe(0);
    expect(() => kendallTau([1], [1])).toThrow("two lists of at least two numbers can be compared, not of 1 and 1");
  });
});
