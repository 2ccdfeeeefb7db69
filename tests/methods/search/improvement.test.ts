import { describe, expect, it } from "vitest";
import {
  type Choices,
  GaussianProcess,
  hypervolume,
  type MixedPoint,
  mixedKernel,
  mostPromising,
  type Objectives,
} from "../../../src/methods/index.ts";
import { Rng } from "../../../src/tensor/index.ts";

/** The whole numbers to 20, of which the first objective is the number and the second falls with it. */
const SIZE = 21;
const choices: Choices<number> = {
  random: (rng) => rng.integer(SIZE),
  neighbours: (x) => [x - 1, x + 1].filter((v) => v >= 0 && v < SIZE),
  key: String,
};
const toPoint = (x: number): MixedPoint => ({ numbers: [x / SIZE], choices: [] });
const costly = (x: number): number => 4 * Math.exp(-x / 5) + 0.3 * Math.sin(x);
const kernel = {
  ...mixedKernel(1),
  value: (a: number, b: number, p: ArrayLike<number>, g?: Float64Array) =>
    mixedKernel(1).value(toPoint(a), toPoint(b), p, g),
};
const reference: Objectives = [SIZE, 5];

describe("mostPromising", () => {
  it("chooses what adds most to the front, as integration over the belief says", async () => {
    const evaluated = [0, 6, 15, 20];
    const belief = await GaussianProcess.fit(kernel, evaluated, evaluated.map(costly), { rng: new Rng(3) });
    const options = { choices, evaluated, belief, known: (x: number) => x, reference, draws: 1024 };
    const [found] = await mostPromising({ ...options, rng: new Rng(1), batch: 1 });
    const seen = evaluated.map((x): Objectives => [x, belief.predict(x).mean]);
    const expected = (x: number): number => {
      const { mean, std } = belief.predict(x);
      let [sum, weights] = [0, 0];
      for (let z = -5; z <= 5; z += 0.01) {
        const weight = Math.exp((-z * z) / 2);
        weights += weight;
        sum += weight * (hypervolume([...seen, [x, mean + std * z]], reference) - hypervolume(seen, reference));
      }
      return sum / weights;
    };
    const best = Math.max(...Array.from({ length: SIZE }, (_, x) => (evaluated.includes(x) ? 0 : expected(x))));
    expect(expected(found!)).toBeGreaterThan(0.93 * best);
    expect(best).toBeGreaterThan(0);
  });

  it("chooses different things for a batch, never what was evaluated, and stops when all is", async () => {
    const evaluated = [0, 6, 15, 20];
    const belief = await GaussianProcess.fit(kernel, evaluated, evaluated.map(costly), { rng: new Rng(3) });
    const options = { choices, evaluated, belief, known: (x: number) => x, reference, rng: new Rng(1) };
    const batch = await mostPromising({ ...options, batch: 4 });
    expect(new Set([...batch, ...evaluated]).size).toBe(8);
    const rest = await mostPromising({ ...options, batch: 40 });
    expect(rest.toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: SIZE }, (_, x) => x).filter((x) => !evaluated.includes(x)),
    );
    await expect(mostPromising({ ...options, batch: 0 })).rejects.toThrow("a batch has at least one candidate, not 0");
  });
});
