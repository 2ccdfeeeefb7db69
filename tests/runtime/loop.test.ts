import { describe, expect, it } from "vitest";
import { compileLoop, FeedError } from "../../src/runtime/index.ts";
import {
  add,
  GraphError,
  grad,
  HostTensor,
  matmul,
  mean,
  mul,
  reshape,
  spec,
  square,
  sub,
  sum,
  type Tensor,
  transpose,
} from "../../src/tensor/index.ts";

const vector = (...values: number[]): HostTensor => HostTensor.from(values);

describe.each(["here", "worker"] as const)("compileLoop (%s)", (thread) => {
  it("carries its state from run to run and leaves the caller's tensors alone", async () => {
    const start = { n: vector(1, 2), steps: HostTensor.from(0) };
    await using loop = await compileLoop(
      (s, x) => ({ state: { n: add(s.n, x), steps: add(s.steps, 1) }, result: mul(s.n, 10) }),
      start,
      [spec("f32", [2])],
      { thread },
    );
    expect((await loop.run(vector(1, 1))).toArray()).toEqual([10, 20]);
    expect((await loop.run(vector(1, 1))).toArray()).toEqual([20, 30]);
    const state = await loop.state();
    expect(state.n.toArray()).toEqual([3, 4]);
    expect(state.steps.item()).toBe(2);
    expect(start.n.toArray()).toEqual([1, 2]);
    await loop.load(start);
    expect((await loop.run(vector(0, 0))).toArray()).toEqual([10, 20]);
  });
});

describe("compileLoop", () => {
  it("never overwrites what is still to be read", async () => {
    // b needs the old a although a's own update comes first; a is also read through a view and transposed.
    const start = {
      a: HostTensor.from([
        [1, 2],
        [3, 4],
      ]),
      b: HostTensor.from([
        [0, 0],
        [0, 0],
      ]),
    };
    await using loop = await compileLoop(
      (s) => {
        const a = mul(s.a, 2);
        return {
          state: { a, b: add(matmul(transpose(s.a), s.a), reshape(reshape(s.a, [4]), [2, 2])) },
          result: sum(s.b),
        };
      },
      start,
      [],
    );
    let [a, b] = [
      [1, 2, 3, 4],
      [0, 0, 0, 0],
    ];
    for (let i = 0; i < 4; i++) {
      expect((await loop.run()).item()).toBe(b.reduce((x, y) => x + y));
      const [p, q, r, t] = a as [number, number, number, number];
      b = [p * p + r * r + p, p * q + r * t + q, p * q + r * t + r, q * q + t * t + t];
      a = a.map((v) => 2 * v);
    }
    const state = await loop.state();
    expect(state.a.toArray()).toEqual(a);
    expect(state.b.toArray()).toEqual(b);
  });

  it("swaps two tensors of its state", async () => {
    await using loop = await compileLoop(
      (s) => ({ state: { a: s.b, b: s.a }, result: sum(s.a) }),
      { a: vector(1), b: vector(2) },
      [],
    );
    expect((await loop.run()).item()).toBe(1);
    expect((await loop.run()).item()).toBe(2);
    expect((await loop.run()).item()).toBe(1);
  });

  it("does not compute state that stays as it is", async () => {
    await using loop = await compileLoop((s) => ({ state: s, result: mul(s.fixed, 2) }), { fixed: vector(3) }, []);
    expect(loop.graph.outputs).toHaveLength(1);
    expect((await loop.run()).toArray()).toEqual([6]);
    expect((await loop.state()).fixed.toArray()).toEqual([3]);
  });

  it("descends a gradient as the formula says", async () => {
    const target = vector(1, -2, 3);
    await using loop = await compileLoop(
      (s, t) => {
        const loss = mean(square(sub(s.w, t)));
        const g = grad(loss, s.w);
        return { state: { w: sub(s.w, mul(g, 0.3)) }, result: loss };
      },
      { w: vector(0, 0, 0) },
      [spec("f32", [3])],
    );
    for (let i = 0; i < 20; i++) await loop.run(target);
    const expected = target.toArray().map((t) => t * (1 - (1 - 0.2) ** 20));
    for (const [i, v] of (await loop.state()).w.toArray().entries()) expect(v).toBeCloseTo(expected[i]!, 5);
  });

  it.each([
    [(s: { a: Tensor }) => ({ state: {}, result: s.a }), 'the next state lacks "a", which the first state has'],
    [
      (s: { a: Tensor }) => ({ state: { a: s.a, b: s.a }, result: s.a }),
      'the next state has "b", which the first state lacks',
    ],
    [
      (s: { a: Tensor }) => ({ state: { a: sum(s.a) }, result: s.a }),
      '"a" of the state changes from f32 [2] to f32 []',
    ],
  ])("refuses a next state of another form (%#)", async (fn, message) => {
    await expect(compileLoop(fn as never, { a: vector(1, 2) }, [])).rejects.toThrow(new GraphError(message));
  });

  it("refuses to load a state that does not fit", async () => {
    await using loop = await compileLoop((s) => ({ state: { a: add(s.a, 1) }, result: s.a }), { a: vector(1, 2) }, []);
    await expect(loop.load({} as never)).rejects.toThrow(new FeedError('the state to load lacks "a"'));
    await expect(loop.load({ a: vector(1) })).rejects.toThrow(
      new FeedError('"state.a" takes f32 [2], but f32 [1] was given'),
    );
    await expect(loop.load({ a: vector(1, 2), b: vector(1) } as never)).rejects.toThrow(
      'the state to load has "b", which this program does not know',
    );
    expect((await loop.state()).a.toArray()).toEqual([1, 2]);
  });
});
