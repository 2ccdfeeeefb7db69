import { describe, expect, test } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import * as t from "../../src/tensor/index.ts";
import {
  children,
  customVjp,
  grad,
  HostTensor,
  input,
  isTensor,
  leavesOf,
  rebuild,
  replay,
  stopGradient,
  type Tensor,
  type TreeNode,
  valueAndGrad,
  vjp,
} from "../../src/tensor/index.ts";
import { checkGradient, checkGradients, derivative } from "../support/gradcheck.ts";
import { randomTensor } from "../support/oracle.ts";
import { run } from "../support/run.ts";

const f64 = (...values: number[]): HostTensor => HostTensor.from(values, { dtype: "f64" });
const numbers = (results: HostTensor[]): number[][] => results.map((r) => r.toArray());

describe("grad", () => {
  test("a leaf that the loss does not depend on gets zeros", async () => {
    const [used, unused] = await run((x, y) => grad(t.sum(t.square(x!)), [x!, y!]), f64(1, 2), f64(3, 4, 5));
    expect(numbers([used!, unused!])).toEqual([
      [2, 4],
      [0, 0, 0],
    ]);
  });

  test("a loss that is a constant, or the leaf itself", async () => {
    const results = await run(
      (x) => [grad(t.scalar(3, "f64"), x!), grad(t.sum(t.mul(0, 2)), x!), grad(x!, x!)],
      HostTensor.from(2, { dtype: "f64" }),
    );
    expect(numbers(results)).toEqual([[0], [0], [1]]);
  });

  test("every use adds up", async () => {
    const [g] = await run(
      (x) => {
        const twice = t.add(x!, x!);
        return grad(t.sum(t.add(t.mul(twice, x!), t.mul(x!, t.sum(x!)))), x!);
      },
      f64(1, 2),
    );
    // The gradient of sum(2 x^2) + sum(x)^2.
    expect(g!.toArray()).toEqual([4 + 6, 8 + 6]);
  });

  test("gradients of intermediate tensors, beside those of what they were made from", async () => {
    const results = await run((x) => {
      const h = t.square(x!);
      return grad(t.sum(t.mul(h, x!)), [x!, h]);
    }, f64(3));
    expect(numbers(results)).toEqual([[27], [3]]);
  });

  test("the same tensor in two places of the tree gets its whole gradient in both", async () => {
    const results = await run((x) => {
      const { a, b } = grad(t.sum(t.square(x!)), { a: x!, b: x! });
      return [a, b];
    }, f64(3));
    expect(numbers(results)).toEqual([[6], [6]]);
  });

  test("trees of records, arrays and classes keep their form", async () => {
    class Layer implements TreeNode {
      readonly weight: Tensor;
      readonly activation: string;
      constructor(weight: Tensor, activation: string) {
        this.weight = weight;
        this.activation = activation;
      }
      [children](): Record<string, unknown> {
        return { weight: this.weight };
      }
      [rebuild](fields: Record<string, unknown>): Layer {
        return new Layer(fields["weight"] as Tensor, this.activation);
      }
    }
    const [a, b, c] = [1, 2, 3].map((n) => input(`w${n}`, { dtype: "f32", shape: [n] })) as [Tensor, Tensor, Tensor];
    const params = { layers: [new Layer(a, "relu"), new Layer(b, "tanh")], head: { bias: c }, name: "model", depth: 2 };
    const grads = grad(t.add(t.sum(params.layers[0]!.weight), t.sum(params.head.bias)), params);
    expect(leavesOf(grads, isTensor).map(({ path, leaf }) => [path, leaf.shape])).toEqual([
      ["layers.0.weight", [1]],
      ["layers.1.weight", [2]],
      ["head.bias", [3]],
    ]);
    expect(grads.layers[1]).toBeInstanceOf(Layer);
    expect([grads.layers[1]!.activation, grads.name, grads.depth]).toEqual(["tanh", "model", 2]);
  });

  test("gradients of gradients, to any order", async () => {
    const results = await run((x) => {
      const orders: Tensor[] = [];
      let y = t.sum(t.pow(x!, 4));
      for (let i = 0; i < 5; i++) {
        const g = grad(y, x!);
        orders.push(g);
        y = t.sum(g);
      }
      return orders;
    }, f64(2));
    expect(numbers(results)).toEqual([[32], [48], [48], [24], [0]]);
  });

  test("a Hessian times a vector is the finite difference of gradients", async () => {
    const f = (w: Tensor, x: Tensor): Tensor => t.mean(t.logSumExp(t.tanh(t.matmul(x, w)), { axes: 1 }));
    await checkGradient(
      (w, x) => t.sum(t.mul(grad(f(w!, x!), w!), t.tanh(w!))),
      [randomTensor([3, 4], 1), randomTensor([2, 3], 2)],
    );
  });

  test("operations that are differentiated through their expansion keep their inputs apart", async () => {
    // The second input is computed from the first: what flows through it must be counted once.
    await checkGradients([
      {
        name: "bias from a",
        fn: (a) => t.op("Gemm", [a!, t.tanh(a!), t.square(a!)]),
        inputs: [randomTensor([2, 2], 1)],
      },
      { name: "the same thrice", fn: (a) => t.op("Gemm", [a!, a!, a!]), inputs: [randomTensor([2, 2], 2)] },
      {
        name: "derivative",
        fn: derivative((a) => t.op("Gemm", [a!, t.tanh(a!), a!])),
        inputs: [randomTensor([2, 2], 3)],
      },
    ]);
  });

  test("a deep graph does not overflow the stack", () => {
    const x = input("x", { dtype: "f32", shape: [] });
    let y: Tensor = x;
    for (let i = 0; i < 20_000; i++) y = t.sin(y);
    expect(grad(y, x).shape).toEqual([]);
  });

  test("valueAndGrad gives both, for the first argument", async () => {
    const program = await compile(
      valueAndGrad((params: { w: Tensor; b: Tensor }, x: Tensor) => t.mean(t.add(t.mul(params.w, x), params.b))),
      [{ w: f64(2, 3), b: f64(1, 1) }, f64(5, 7)] as const,
      { threads: 1 },
    );
    const { value, grads } = await program({ w: f64(2, 3), b: f64(1, 1) }, f64(5, 7));
    expect([value.item(), grads.w.toArray(), grads.b.toArray()]).toEqual([16.5, [2.5, 3.5], [0.5, 0.5]]);
    await program.dispose();
  });
});

describe("vjp", () => {
  test("pulls back cotangents of several outputs, again and again", async () => {
    const results = await run(
      (x, y) => {
        const [out, pull] = vjp((a: Tensor, b: Tensor) => ({ product: t.mul(a, b), sums: [t.sum(a)] }), x!, y!);
        const first = pull({ product: t.onesLike(out.product), sums: [t.scalar(10, "f64")] });
        const second = pull({ product: x!, sums: [t.scalar(0, "f64")] });
        return [out.product, ...first, ...second];
      },
      f64(1, 2),
      f64(3, 4),
    );
    expect(numbers(results)).toEqual([
      [3, 8],
      [13, 14],
      [1, 2],
      [3, 8],
      [1, 4],
    ]);
  });

  test("takes each argument for itself, even where one was computed from another", async () => {
    const results = await run((x) => {
      const y = t.square(x!);
      const [, pull] = vjp((a: Tensor, b: Tensor) => t.mul(a, b), x!, y);
      return pull(t.onesLike(y));
    }, f64(3));
    expect(numbers(results)).toEqual([[9], [3]]);
  });

  test("takes trees", async () => {
    const results = await run((x) => {
      const [, pull] = vjp((p: { w: Tensor[] }) => t.mul(p.w[0]!, p.w[1]!), { w: [x!, t.square(x!)] });
      const [given] = pull(t.onesLike(x!));
      return given.w;
    }, f64(3));
    expect(numbers(results)).toEqual([[9], [3]]);
  });
});

describe("stopGradient", () => {
  test("is the identity forward and a constant backward", async () => {
    const results = await run((x) => {
      const y = t.mul(x!, stopGradient(t.square(x!)));
      return [y, grad(t.sum(y), x!), grad(t.sum(stopGradient(x!)), x!)];
    }, f64(3));
    expect(numbers(results)).toEqual([[27], [9], [0]]);
  });

  test("holds in second derivatives", async () => {
    const [g] = await run((x) => {
      const first = grad(t.sum(t.mul(t.square(x!), stopGradient(x!))), x!);
      return grad(t.sum(first), x!);
    }, f64(3));
    // first = 2x * stop(x), whose derivative is 2 * stop(x).
    expect(g!.toArray()).toEqual([6]);
  });
});

describe("customVjp", () => {
  const straightThrough = customVjp(
    (x: Tensor) => t.round(x),
    (dy) => [dy],
  );

  test("a straight-through estimator rounds forward and passes the gradient", async () => {
    const results = await run(
      (x) => {
        const y = straightThrough(x!);
        return [y, grad(t.sum(t.square(y)), x!)];
      },
      f64(0.4, 1.6),
    );
    expect(numbers(results)).toEqual([
      [0, 2],
      [0, 4],
    ]);
  });

  test("the rule sees the result, the primals and the cotangent, and may leave one out", async () => {
    const clipped = customVjp(
      (x: Tensor, limit: Tensor) => t.minimum(x, limit),
      (dy, y, x, limit) => [t.where(t.less(x, limit), t.mul(dy, y), 0), null],
    );
    const results = await run(
      (x, limit) => {
        const loss = t.sum(t.mul(clipped(x!, limit!), 10));
        return grad(loss, [x!, limit!]);
      },
      f64(1, 5),
      f64(3, 3),
    );
    expect(numbers(results)).toEqual([
      [10, 0],
      [0, 0],
    ]);
  });

  test("nothing flows into the forward function by another way, numbers may be arguments", async () => {
    const scaled = customVjp(
      (x: Tensor, factor: Tensor) => t.mul(x, factor),
      (dy) => [t.mul(dy, 100), null],
    );
    const results = await run((x) => {
      const y = scaled(x!, 2);
      return [y, grad(t.sum(y), x!)];
    }, f64(3));
    expect(numbers(results)).toEqual([[6], [100]]);
  });

  test("the rule itself is differentiated for second derivatives", async () => {
    const cube = customVjp(
      (x: Tensor) => t.mul(x, t.square(x)),
      (dy, _y, x) => [t.mul(dy, t.mul(t.square(x), 3))],
    );
    await checkGradient((x) => cube(x!), [randomTensor([3], 1)]);
    await checkGradient(
      derivative((x) => cube(x!)),
      [randomTensor([3], 2)],
    );
  });

  test("what the forward function closes over is a constant to differentiation", async () => {
    const results = await run(
      (x, scale) => {
        const quantize = customVjp(
          (w: Tensor) => t.mul(t.round(t.div(w, scale!)), scale!),
          (dy) => [dy],
        );
        return grad(t.sum(quantize(x!)), [x!, scale!]);
      },
      f64(0.4),
      f64(0.5),
    );
    expect(numbers(results)).toEqual([[1], [0]]);
  });
});

describe("replay", () => {
  test("builds a graph again on other inputs and shares what does not change", () => {
    const [x, y, w] = ["x", "y", "w"].map((name) => input(name, { dtype: "f32", shape: [2] })) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const scaled = t.exp(w);
    const out = t.add(t.mul(x, scaled), x);
    const [again] = replay([out], new Map([[x, y]]));
    expect(again!.node.inputs[1]).toBe(y);
    expect(again!.node.inputs[0]!.node.inputs).toEqual([y, scaled]);
    expect(replay([scaled], new Map([[x, y]]))[0]).toBe(scaled);
    expect(replay([x], new Map([[x, y]]))[0]).toBe(y);
  });
});
