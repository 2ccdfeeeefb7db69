import { expect, test } from "vitest";
import { compare, type Measured, median } from "../../bench/harness.ts";
import { batch, flopsPerStep, initialWeights, model, parameterCount, shapes, transposed } from "../../bench/model.ts";
import { type Bench, product, summarize, table } from "../../bench/report.ts";
import { train } from "../../bench/train.ts";

const options = { rounds: 2, threads: 3, seconds: 0.01, log: () => {} };
const fixture = (name: string) => ({ name, module: `../tests/fixtures/bench/${name}.ts` });

test("participants take turns in processes of their own", async () => {
  const lines: string[] = [];
  const entries = [fixture("counter"), { ...fixture("counter"), name: "other" }];
  const measured = await compare(entries, { ...options, log: (line) => lines.push(line.replace(/: .*/, "")) });
  expect(lines.slice(0, 2)).toEqual(["counter", "other"]);
  for (const round of [1, 2])
    expect(lines.filter((line) => line.startsWith(`round ${round}`)).sort()).toEqual([
      `round ${round} of 2, counter`,
      `round ${round} of 2, other`,
    ]);
  for (const { values, stepSeconds, cpuSeconds, figures } of Object.values(measured)) {
    // Two steps of warm-up are returned, but not timed.
    expect(values).toEqual(Array.from({ length: stepSeconds.length + 2 }, (_, i) => i + 1));
    expect(cpuSeconds.length).toBe(stepSeconds.length);
    expect(stepSeconds.length).toBeGreaterThanOrEqual(2);
    expect(figures).toEqual({ threads: 3 });
  }
});

test("a participant whose process ends is named", async () => {
  await expect(compare([fixture("counter"), fixture("failing")], options)).rejects.toThrow(
    "the process of failing ended with code 7",
  );
});

const measure = (stepSeconds: number[], values = [8, 7], figures: Record<string, number> = {}): Measured => ({
  setupSeconds: 4,
  setupPeakBytes: 2 ** 21,
  stepSeconds,
  cpuSeconds: stepSeconds.map((s) => 2 * s),
  values,
  peakBytes: 2 ** 20,
  figures,
});

const bench: Bench = {
  name: "example",
  ours: { name: "ours", module: "" },
  peers: [
    { name: "slow", module: "" },
    { name: "fast", module: "" },
  ],
  tokens: 100,
  flops: 4e9,
  check: () => {},
};

const measured = {
  ours: measure([0.5, 0.1, 0.3, 0.9], [8, 7], { buildSeconds: 0.25 }),
  slow: measure([2, 2, 4]),
  fast: measure([1]),
  [product.name]: measure([2 * 2 ** 30 * 1e-11]),
};

test("medians, and ratios to the fastest peer and to the matrix product", () => {
  const { ours, peers, matmul, ratios } = summarize(bench, measured, [1, 2, 3]);
  expect(ours).toEqual({ tokensPerSecond: 250, gflops: 10, peakBytes: 2 ** 20, buildSeconds: 0.25 });
  expect(peers).toEqual({ slow: { tokensPerSecond: 50 }, fast: { tokensPerSecond: 100 } });
  expect(matmul.gflops).toBeCloseTo(100, 9);
  expect(ratios.bestPeer).toBe(2.5);
  expect(ratios.matmul).toBeCloseTo(0.1, 9);
});

test("the table shows the best step and the processor time as well", () => {
  const text = table(bench, measured, summarize(bench, measured, [1, 2, 3]));
  expect(text).toMatch(/^ours +250 +1000 +10\.0 +0\.80 s +4 +1 MiB +8\.000 to 7\.000$/m);
  expect(text).toContain("2.50x the best peer, 0.10x the plain product, built in 0.25 s");
});

test("the middle value", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 3, 2])).toBe(2.5);
});

test("training that does not learn, or another model, is refused", () => {
  const losses = (changes: Record<string, number[]>) =>
    Object.fromEntries(
      [train.ours, ...train.peers].map(({ name }) => [name, measure([1], changes[name] ?? [8.358, 7.9])]),
    );
  expect(() => train.check(losses({}))).not.toThrow();
  expect(() => train.check(losses({ "tfjs-wasm": [8.358, 8.4] }))).toThrow("tfjs-wasm does not learn");
  expect(() => train.check(losses({ "jax-js-wasm": [8.358, NaN] }))).toThrow("jax-js-wasm does not learn");
  expect(() => train.check(losses({ "jax-js-wasm": [8.4, 7] }))).toThrow("jax-js-wasm trains another model");
});

test("the model's size and work", () => {
  const { vocab, dim, ffn, layers, heads, headDim } = model;
  const matrices = vocab * dim + layers * (4 * dim * dim + 3 * dim * ffn);
  expect(parameterCount).toBe(matrices + (2 * layers + 1) * dim);
  // Forward, each token: every matrix once, its row of scores, and the mix of values by them.
  const multiplyAdds = matrices + layers * heads * (batch.length * headDim + batch.length * headDim);
  expect(flopsPerStep).toBe(3 * 2 * multiplyAdds * batch.tokens);
});

test("initial weights have the right sizes and deviation, and are the same each time", () => {
  const weights = initialWeights();
  expect(Object.keys(weights)).toEqual(Object.keys(shapes));
  const embedding = weights["model.embed_tokens.weight"]!;
  expect(Math.sqrt(embedding.reduce((sum, x) => sum + x * x, 0) / embedding.length)).toBeCloseTo(0.02, 4);
  expect(weights["model.norm.weight"]).toEqual(new Float32Array(model.dim).fill(1));
  const again = initialWeights();
  for (const [name, values] of Object.entries(weights))
    expect(Buffer.from(values.buffer).equals(Buffer.from(again[name]!.buffer)), name).toBe(true);
});

test("transposing a matrix", () => {
  expect([...transposed(new Float32Array([1, 2, 3, 4, 5, 6]), [2, 3])]).toEqual([1, 4, 2, 5, 3, 6]);
});
