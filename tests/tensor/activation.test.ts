import { describe, expect, test } from "vitest";
import {
  celu,
  DTypeError,
  elu,
  findOp,
  gelu,
  grad,
  HostTensor,
  hardSigmoid,
  hardSwish,
  input,
  leakyRelu,
  mish,
  op,
  prelu,
  quickGelu,
  relu2,
  selu,
  silu,
  softsign,
  sum,
  type Tensor,
  thresholdedRelu,
} from "../../src/tensor/index.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { expectClose, hostOf, wave } from "../support/numbers.ts";
import { run } from "../support/run.ts";

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Error function by its Taylor series, good to 1e-14 for the arguments of these tests. */
function erf(x: number): number {
  let [term, total] = [x, x];
  for (let n = 1; n < 120; n++) {
    term *= (-x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

interface Case {
  f: (x: Tensor) => Tensor;
  oracle: (x: number) => number;
}

const geluTanh = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
const hard = (x: number, alpha: number, beta: number): number => Math.min(1, Math.max(0, alpha * x + beta));

const cases: Record<string, Case> = {
  gelu: { f: (x) => gelu(x), oracle: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)) },
  "gelu by tanh": { f: (x) => gelu(x, { approximate: "tanh" }), oracle: geluTanh },
  quickGelu: { f: (x) => quickGelu(x), oracle: (x) => x * sigmoid(1.702 * x) },
  silu: { f: silu, oracle: (x) => x * sigmoid(x) },
  mish: { f: mish, oracle: (x) => x * Math.tanh(Math.log1p(Math.exp(x))) },
  "Mish of imported models": { f: (x) => op("Mish", [x]), oracle: (x) => x * Math.tanh(Math.log1p(Math.exp(x))) },
  softsign: { f: softsign, oracle: (x) => x / (1 + Math.abs(x)) },
  relu2: { f: relu2, oracle: (x) => Math.max(0, x) ** 2 },
  leakyRelu: { f: (x) => leakyRelu(x, 0.2), oracle: (x) => (x > 0 ? x : 0.2 * x) },
  "LeakyRelu with its default": { f: (x) => op("LeakyRelu", [x]), oracle: (x) => (x > 0 ? x : 0.01 * x) },
  elu: { f: (x) => elu(x, 0.7), oracle: (x) => (x > 0 ? x : 0.7 * Math.expm1(x)) },
  selu: { f: selu, oracle: (x) => 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * Math.expm1(x)) },
  celu: { f: (x) => celu(x, 1.3), oracle: (x) => Math.max(0, x) + Math.min(0, 1.3 * Math.expm1(x / 1.3)) },
  thresholdedRelu: { f: (x) => thresholdedRelu(x, 0.6), oracle: (x) => (x > 0.6 ? x : 0) },
  hardSigmoid: { f: (x) => hardSigmoid(x), oracle: (x) => hard(x, 1 / 6, 0.5) },
  "HardSigmoid with its defaults": { f: (x) => op("HardSigmoid", [x]), oracle: (x) => hard(x, 0.2, 0.5) },
  hardSwish: { f: hardSwish, oracle: (x) => x * hard(x, 1 / 6, 0.5) },
};

/** Both tails, and a spread that avoids the kinks of the rectifiers by more than a step of the differences. */
const points = [-30, -8.05, -4.4, ...Array.from({ length: 40 }, (_, i) => -3.97 + 0.2 * i), 8.05, 30];

describe.each(Object.entries(cases))("%s", (name, { f, oracle }) => {
  // The oracle's series for erf is only good near the middle.
  const xs = name === "gelu" ? points.filter((x) => Math.abs(x) < 4.3) : points;
  const x = HostTensor.from(xs);

  test("agrees with its formula, alone and expanded", async () => {
    const [kernel, expanded, half] = await run((x) => {
      const y = f(x);
      return [y, findOp(y.node.op)?.expand?.(y.node.inputs, y.node.attrs, 1)[0] ?? y, f(op("Cast", [x], { to: 10 }))];
    }, x);
    const expected = x.toArray().map(oracle);
    expectClose(kernel!.toArray(), expected, 2e-6, "kernel");
    expectClose(expanded!.toArray(), expected, 2e-6, "expansion");
    expect(half!.dtype).toBe("f16");
  });

  test("has the slope that differences of its formula give", async () => {
    const [slope] = await run((x) => grad(sum(f(x)), x), x);
    const expected = x.toArray().map((v) => (oracle(v + 1e-5) - oracle(v - 1e-5)) / 2e-5);
    expectClose(slope!.toArray(), expected, 1e-5);
  });
});

// onnxruntime's CPU has no Erf in double precision, nor the kernels of operations that are named outright.
const inDouble = Object.entries(cases).filter(([name]) => name !== "gelu" && !/with its|imported/.test(name));

test.each(inDouble)("%s works in double precision", async (_name, { f, oracle }) => {
  const [y] = await run(f, HostTensor.from(Float64Array.from(points)));
  expectClose(y!.toArray(), points.map(oracle), 1e-8);
});

describe("prelu", () => {
  const x = hostOf([3, 4], (i) => 2 * wave(i), "f32");
  const slope = HostTensor.from([0.1, -0.2, 0.3, 0.5]);
  const oracle = (i: number): number => (x.at(i) < 0 ? x.at(i) * slope.at(i % 4) : x.at(i));

  test("agrees with its formula, alone and expanded", async () => {
    const [kernel, expanded] = await run(
      (x, s) => [prelu(x, s), findOp("PRelu")!.expand!([x, s], {}, 1)[0]!],
      x,
      slope,
    );
    const expected = Array.from({ length: 12 }, (_, i) => oracle(i));
    expectClose(kernel!.toArray(), expected, 1e-6);
    expectClose(expanded!.toArray(), expected, 1e-6);
  });

  test("has the gradients that finite differences give", async () => {
    await checkGradient(prelu, [x.cast("f64"), slope.cast("f64")]);
    const gradients = (x: Tensor, s: Tensor): Tensor[] => {
      const { dx, ds } = grad(sum(prelu(x, s)), { dx: x, ds: s });
      return [dx, ds];
    };
    const [dx, ds] = await run(gradients, x, slope);
    const [wideDx, wideDs] = await run(gradients, x.cast("f64"), slope.cast("f64"));
    expectClose(dx!.toArray(), wideDx!.toArray(), 1e-6);
    expectClose(ds!.toArray(), wideDs!.toArray(), 1e-6);
  });

  test("refuses slopes that do not broadcast to its input", () => {
    const x = input("x", { dtype: "f32", shape: [3, 4] });
    expect(() => prelu(x, input("s", { dtype: "f32", shape: [3] }))).toThrow(
      /slopes \[3\] do not broadcast to \[3, 4\]/,
    );
    expect(() => prelu(x, input("s", { dtype: "f32", shape: [2, 3, 4] }))).toThrow(/do not broadcast/);
  });
});

test("activations refuse whole numbers and unknown attributes", () => {
  const whole = input("x", { dtype: "i32", shape: [2] });
  expect(() => elu(whole)).toThrow(DTypeError);
  expect(() => silu(whole)).toThrow(/QuickGelu\(i32 \[2\]\): it takes floating-point numbers, not i32/);
  expect(() => op("Gelu", [input("x", { dtype: "f32", shape: [2] })], { approximate: "erf" })).toThrow(
    /its approximation is "none" or "tanh", not "erf"/,
  );
});

test("a gate is smooth twice over: the gradient of a gradient agrees with differences", async () => {
  const x = hostOf([7], (i) => 2 * wave(i));
  for (const f of [silu, mish, (x: Tensor) => gelu(x, { approximate: "tanh" }), relu2]) {
    await checkGradient((x) => grad(sum(f(x)), x), [x]);
  }
});
