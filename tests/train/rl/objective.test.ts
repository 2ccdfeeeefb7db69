import { describe, expect, it } from "vitest";
import { HostTensor, Rng } from "../../../src/tensor/index.ts";
import { clipped, completionMean, type Group, groupRelative, k3, tokenMean } from "../../../src/train/index.ts";
import { checkGradient } from "../../support/gradcheck.ts";
import { run } from "../../support/run.ts";

const group = (...rewards: number[]): Group<unknown> => ({ prompt: null, completions: [], rewards });

describe("advantages", () => {
  it("are deviations from the mean in units of the population's deviation", () => {
    // Mean 0.25, variance (0.75² + 3 · 0.25²) / 4 = 0.1875.
    const root = Math.sqrt(0.1875);
    const found = groupRelative()(group(1, 0, 0, 0)) as number[];
    expect(found[0]).toBeCloseTo(0.75 / (root + 1e-6), 12);
    for (const a of found.slice(1)) expect(a).toBeCloseTo(-0.25 / (root + 1e-6), 12);
  });

  it("may keep the rewards' own scale, and take another epsilon", () => {
    expect(groupRelative({ normalize: false })(group(3, 1))).toEqual([1, -1]);
    expect(groupRelative({ epsilon: 1 })(group(3, 1))).toEqual([0.5, -0.5]);
  });

  it("skip a group whose rewards are all the same, however rounding makes their mean", () => {
    expect(groupRelative()(group(0.1, 0.1, 0.1))).toBeNull();
    expect(groupRelative()(group(0, 0))).toBeNull();
  });

  it("refuse an epsilon below 0", () => {
    expect(() => groupRelative({ epsilon: -1 })).toThrow("epsilon must be a finite number from 0, not -1");
  });
});

describe("weights of tokens", () => {
  it("count tokens alike, or completions alike", () => {
    expect(tokenMean([1, 3], 8)).toEqual([0.25, 0.25]);
    expect(completionMean([1, 4], 8)).toEqual([1 / 8, 1 / 32]);
  });
});

describe("the clipped objective", () => {
  const signals = (log: number, advantage: number) =>
    run(
      (logProbs, behaviour, advantages) => {
        const { loss, metrics } = clipped({ low: 0.2, high: 0.3 })({ logProbs, behaviour, advantages });
        return [loss, metrics!.clipFraction!];
      },
      HostTensor.from([log - 1]),
      HostTensor.from([-1]),
      HostTensor.from([advantage]),
    );

  it.each([
    // ratio, advantage, loss, cut off
    [1, 2, -2, 0],
    [1.2, 2, -2.4, 0],
    [1.5, 2, -2.6, 1],
    [0.5, 2, -1, 0],
    [0.5, -2, 1.6, 1],
    [1.5, -2, 3, 0],
  ])("at ratio %f and advantage %f is %f", async (ratio, advantage, expected, cut) => {
    const [loss, fraction] = await signals(Math.log(ratio), advantage);
    expect(loss!.at(0)).toBeCloseTo(expected, 5);
    expect(fraction!.at(0)).toBe(cut);
  });

  it("has the gradient of its values", async () => {
    const rng = new Rng(4);
    // Ratios on both sides of the range, none near its borders.
    const ratios = [0.5, 0.7, 0.9, 1, 1.1, 1.2, 1.5, 2];
    const behaviour = rng.uniformTensor([16], { low: -3, high: -0.1, dtype: "f64" });
    const logProbs = HostTensor.zeros("f64", [16]);
    const advantages = HostTensor.zeros("f64", [16]);
    for (let i = 0; i < 16; i++) {
      logProbs.set(i, behaviour.at(i) + Math.log(ratios[i % 8]!));
      advantages.set(i, i < 8 ? 1.3 : -0.7);
    }
    await checkGradient(
      (x) => clipped()({ logProbs: x, behaviour: behaviour as never, advantages: advantages as never }).loss,
      [logProbs],
    );
    await checkGradient((x) => k3(x, behaviour as never), [logProbs]);
  });

  it("refuses ranges that are none", () => {
    expect(() => clipped({ low: 0 })).toThrow("low must be above 0 and at most 1, not 0");
    expect(() => clipped({ high: Number.NaN })).toThrow("high must be a finite number above 0, not NaN");
  });
});

describe("k3", () => {
  it("is exp(d) - d - 1, and on average the divergence", async () => {
    const [p, q] = [
      [0.5, 0.3, 0.2],
      [0.2, 0.2, 0.6],
    ];
    const [values] = await run((a, b) => k3(a, b), HostTensor.from(p.map(Math.log)), HostTensor.from(q.map(Math.log)));
    const expected = p.map((x, i) => q[i]! / x - Math.log(q[i]! / x) - 1);
    for (const [i, v] of expected.entries()) expect(values!.at(i)).toBeCloseTo(v, 5);
    const divergence = p.reduce((sum, x, i) => sum + x * Math.log(x / q[i]!), 0);
    expect(p.reduce((sum, x, i) => sum + x * values!.at(i), 0)).toBeCloseTo(divergence, 5);
  });
});
