import { describe, expect, test } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import {
  findOp,
  GraphError,
  grad,
  HostTensor,
  input,
  mul,
  op,
  rotary,
  rotaryFrequencies,
  rotaryTable,
  spec,
  sum,
  type Tensor,
} from "../../src/tensor/index.ts";
import { checkGradient } from "../support/gradcheck.ts";
import { expectClose, hostOf, wave } from "../support/numbers.ts";
import { run, runOn } from "../support/run.ts";

/** Plain loop over `[batch, heads, seq, dim]`; `at(b, s)` is a token's position. */
function oracle(
  x: HostTensor,
  {
    dim,
    turned,
    interleaved,
    at,
  }: { dim: number; turned: number; interleaved: boolean; at: (b: number, s: number) => number },
): number[] {
  const [batch, heads, seq] = x.shape as [number, number, number, number];
  const result = x.toArray();
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let s = 0; s < seq; s++)
        for (let i = 0; i < turned / 2; i++) {
          const angle = at(b, s) * 10000 ** ((-2 * i) / turned);
          const start = ((b * heads + h) * seq + s) * dim;
          const [p, q] = interleaved ? [start + 2 * i, start + 2 * i + 1] : [start + i, start + i + turned / 2];
          const [u, v] = [x.at(p), x.at(q)];
          result[p] = u * Math.cos(angle) - v * Math.sin(angle);
          result[q] = v * Math.cos(angle) + u * Math.sin(angle);
        }
  return result;
}

/** `[batch, heads, seq, dim]` to `[batch, seq, heads * dim]`. */
function merged(x: HostTensor): HostTensor {
  const [batch, heads, seq, dim] = x.shape as [number, number, number, number];
  return hostOf(
    [batch, seq, heads * dim],
    (k) => {
      const [d, h] = [k % dim, Math.floor(k / dim) % heads];
      const [s, b] = [Math.floor(k / (dim * heads)) % seq, Math.floor(k / (dim * heads * seq))];
      return x.at(((b * heads + h) * seq + s) * dim + d);
    },
    x.dtype,
  );
}

const places = {
  "from 0": { positions: undefined, at: (_b: number, s: number) => s },
  "behind an offset": { positions: hostOf([1], () => 4, "i64"), at: (_b: number, s: number) => s + 4 },
  "at given positions": {
    positions: hostOf([2, 3], (i) => [7, 0, 3, 1, 1, 9][i]!, "i64"),
    at: (b: number, s: number) => [7, 0, 3, 1, 1, 9][3 * b + s]!,
  },
};

describe.each([false, true])("rotary, interleaved: %s", (interleaved) => {
  describe.each(Object.entries(places))("%s", (_name, { positions, at }) => {
    test.each([8, 4])("turns %i of 8 numbers a head, in both layouts and precisions", async (turned) => {
      const x = hostOf([2, 4, 3, 8], wave);
      const expected = oracle(x, { dim: 8, turned, interleaved, at });
      const table = rotaryTable(10, turned, { dtype: "f64" });
      const options = { interleaved, ...(positions && { positions }) };
      const turn = (x: Tensor): Tensor =>
        rotary(x, table.cos, table.sin, { ...options, ...(x.rank === 3 && { heads: 4 }) });
      const [wide] = await run(turn, x);
      expectClose(wide!.toArray(), expected, 1e-12, "double");
      const [narrow] = await run(turn, x.cast("f32"));
      expectClose(narrow!.toArray(), expected, 1e-6, "kernel");
      const [flat] = await run(turn, merged(x));
      expectClose(
        flat!.toArray(),
        merged(new HostTensor("f64", x.shape, Float64Array.from(expected))).toArray(),
        1e-12,
        "merged double",
      );
      const [flatNarrow] = await run(turn, merged(x).cast("f32"));
      expectClose(flatNarrow!.toArray(), flat!.toArray(), 1e-6, "merged kernel");
    });

    test("has the gradient that differences give, in the kernel too", async () => {
      const { cos, sin } = rotaryTable(10, 4, { dtype: "f64" });
      const x = hostOf([2, 1, 3, 6], wave);
      const turn = (x: Tensor): Tensor => rotary(x, cos, sin, { interleaved, ...(positions && { positions }) });
      await checkGradient(turn, [x]);
      const weights = hostOf([2, 1, 3, 6], (i) => wave(i + 50));
      const slope = (x: Tensor): Tensor => grad(sum(mul(turn(x), weights.cast(x.dtype))), x);
      const [wide] = await run(slope, x);
      const [narrow] = await run(slope, x.cast("f32"));
      expectClose(narrow!.toArray(), wide!.toArray(), 1e-6);
    });
  });
});

test("products of turned queries and keys depend on their distance only", async () => {
  const { cos, sin } = rotaryTable(40, 8);
  const [q, k] = [hostOf([1, 1, 1, 8], wave, "f32"), hostOf([1, 1, 1, 8], (i) => wave(i + 9), "f32")];
  const at = (position: number) => ({ positions: hostOf([1], () => position, "i64") });
  const [near, far] = await run(
    (q, k) =>
      [
        [5, 2],
        [35, 32],
      ].map(([a, b]) => sum(mul(rotary(q, cos, sin, at(a!)), rotary(k, cos, sin, at(b!))))),
    q,
    k,
  );
  expect(near!.item()).toBeCloseTo(far!.item(), 5);
});

test("named dimensions take their positions from the tables' start, an offset, or each token", async () => {
  const { cos, sin } = rotaryTable(10, 8);
  const x = hostOf([2, 4, 3, 8], wave, "f32");
  const [expected] = await run((x) => rotary(x, cos, sin, { positions: hostOf([1], () => 2, "i64") }), x);
  const program = await compile(
    (x, offset, each) => ({
      first: rotary(x, cos, sin),
      later: rotary(x, cos, sin, { positions: offset }),
      each: rotary(x, cos, sin, { positions: each }),
      plain: findOp("com.microsoft.RotaryEmbedding")!.expand!(
        [x, offset, op("Constant", [], { value: cos }), op("Constant", [], { value: sin })],
        {},
        1,
      )[0]!,
    }),
    [spec("f32", ["batch", 4, "seq", 8]), spec("i64", [1]), spec("i64", ["batch", "seq"])],
  );
  const given = await program(
    x,
    hostOf([1], () => 2, "i64"),
    hostOf([2, 3], (i) => 2 + (i % 3), "i64"),
  );
  for (const key of ["later", "each", "plain"] as const)
    expectClose(given[key].toArray(), expected!.toArray(), 1e-6, key);
  expect(given.first.toArray()).not.toEqual(given.later.toArray());
  await program.dispose();
});

describe("the standard's operation", () => {
  test.each([0, 1])("agrees with the kernel, interleaved: %i", async (interleaved) => {
    const x = hostOf([2, 4, 3, 8], wave, "f32");
    const { cos, sin } = rotaryTable(10, 8);
    const at = hostOf([2, 3], (i) => [7, 0, 3, 1, 1, 9][i]!, "i64");
    const rows = (t: HostTensor): HostTensor =>
      hostOf([2, 3, 4], (i) => t.at(4 * at.at(Math.floor(i / 4)) + (i % 4)), "f32");
    const attrs = { interleaved };
    const results = await run(
      (x, cos, sin, at, c, s) => [
        rotary(x, cos, sin, { positions: at, interleaved: interleaved === 1 }),
        op("RotaryEmbedding", [x, cos, sin, at], attrs),
        op("RotaryEmbedding", [x, c, s], attrs),
        findOp("RotaryEmbedding")!.expand!([x, cos, sin, at], attrs, 1)[0]!,
        findOp("RotaryEmbedding")!.expand!([x, c, s], attrs, 1)[0]!,
      ],
      x,
      cos,
      sin,
      at,
      rows(cos),
      rows(sin),
    );
    for (const other of results.slice(1)) expectClose(other.toArray(), results[0]!.toArray(), 1e-6);
  });
});

describe("frequencies", () => {
  test("fall from 1 by the base", () => {
    expectClose([...rotaryFrequencies(8, { base: 16 })], [1, 0.5, 0.25, 0.125], 1e-15);
    expectClose([...rotaryFrequencies(4, { scaling: { type: "linear", factor: 4 } })], [0.25, 0.0025], 1e-15);
  });

  test("are divided by factors of their own", () => {
    const factors = (...factors: number[]) => rotaryFrequencies(4, { scaling: { type: "factors", factors } });
    expectClose([...factors(2, 5)], [0.5, 0.002], 1e-15);
    expect(() => factors(2)).toThrow("1 factors were given for the 2 frequencies of 4 numbers");
  });

  test("of Llama 3.1 follow its release", () => {
    const scaling = {
      type: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalPositions: 8192,
    } as const;
    const expected = [...rotaryFrequencies(128, { base: 500000 })].map((f) => {
      const wavelength = (2 * Math.PI) / f;
      if (wavelength < 8192 / 4) return f;
      if (wavelength > 8192 / 1) return f / 8;
      const smooth = (8192 / wavelength - 1) / (4 - 1);
      return ((1 - smooth) * f) / 8 + smooth * f;
    });
    expectClose([...rotaryFrequencies(128, { base: 500000, scaling })], expected, 1e-15);
  });

  test("make the same table on the host and in the graph", async () => {
    const host = rotaryTable(50, 6, { base: 100 });
    const [cos, sin] = await run(
      (positions) => {
        const table = rotaryTable(positions, 6, { base: 100 });
        return [table.cos, table.sin];
      },
      hostOf([5, 10], (i) => i, "i64"),
    );
    expect(cos!.shape).toEqual([5, 10, 3]);
    expectClose(cos!.toArray(), host.cos.toArray(), 1e-5);
    expectClose(sin!.toArray(), host.sin.toArray(), 1e-5);
  });

  test("need an even dimension", () => {
    expect(() => rotaryFrequencies(7)).toThrow(/the dimension must be even, not 7/);
  });
});

test("what does not fit is refused", () => {
  const { cos, sin } = rotaryTable(10, 8);
  const x = (shape: number[]) => input("x", { dtype: "f32", shape });
  expect(() => rotary(x([2, 4, 3, 6]), cos, sin)).toThrow(/turn 8 numbers of a head, but 8 of 6 are to be turned/);
  expect(() => rotary(x([2, 4, 11, 8]), cos, sin)).toThrow(/tables end at position 10, but the last of these 11 is 10/);
  expect(() => rotary(x([2, 3, 20]), cos, sin)).toThrow(/20 numbers do not make up heads/);
  expect(() => rotary(x([4, 8]), cos, sin)).toThrow(
    /takes \[batch, heads, seq, dim\] or \[batch, seq, heads \* dim\], not \[4, 8\]/,
  );
  expect(() => rotary(x([2, 4, 3, 8]), cos, rotaryTable(9, 8).sin)).toThrow(
    /must be \[positions, pairs\] both, not \[10, 4\] and \[9, 4\]/,
  );
  const positions = hostOf([3], () => 0, "i64");
  expect(() => rotary(x([2, 4, 3, 8]), cos, sin, { positions })).toThrow(
    /positions must be one offset \[1\] or \[2, 3\], not \[3\]/,
  );
  expect(() => rotary(x([2, 4, 3, 8]), cos, sin, { positions: hostOf([1], () => 0, "i32") })).toThrow(
    /must be i64, not i32/,
  );
  const learned = input("cos", { dtype: "f32", shape: [10, 4] });
  expect(() => grad(sum(rotary(x([2, 4, 3, 8]), learned, sin)), learned)).toThrow(GraphError);
  expect(() => op("RotaryEmbedding", [x([2, 4, 3, 8]), learned, learned])).toThrow(
    /without positions its tables must be \[2, 3, pairs\]/,
  );
});

test("runs in WebAssembly from plain operations", async () => {
  const { cos, sin } = rotaryTable(10, 8);
  const x = hostOf([2, 4, 3, 8], wave, "f32");
  const [expected] = await run((x) => rotary(x, cos, sin), x);
  const [web] = await runOn({ device: "wasm" }, (x) => rotary(x, cos, sin), x);
  expectClose(web!.toArray(), expected!.toArray(), 1e-6);
});
