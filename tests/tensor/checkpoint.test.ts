import { describe, expect, test } from "vitest";
import { nodesOf } from "../../src/onnx/index.ts";
import { compile } from "../../src/runtime/index.ts";
import * as t from "../../src/tensor/index.ts";
import { checkpoint, customVjp, grad, HostTensor, type Tensor } from "../../src/tensor/index.ts";
import { checkGradient, derivative } from "../support/gradcheck.ts";
import { randomTensor } from "../support/oracle.ts";

type Wrap = <P extends unknown[], R>(f: (...args: P) => R) => (...args: P) => R;
const stored: Wrap = (f) => f;

/** Loss and gradients of `model`, with its blocks stored and with them recomputed, must be the same numbers. */
async function compare(
  model: (wrap: Wrap, ...inputs: Tensor[]) => Tensor,
  inputs: readonly HostTensor[],
  leaves: (inputs: readonly Tensor[]) => readonly Tensor[] = (all) => all,
): Promise<{ stored: Record<string, number>; recomputed: Record<string, number> }> {
  const counts: Record<string, number>[] = [];
  const numbers: number[][][] = [];
  for (const wrap of [stored, checkpoint as Wrap]) {
    const program = await compile(
      (...args) => {
        const all = args as unknown as Tensor[];
        const loss = model(wrap, ...all);
        return [loss, ...grad(loss, leaves(all))];
      },
      inputs,
      { threads: 1 },
    );
    counts.push(countOps(program.graph.outputs.map((p) => p.tensor)));
    numbers.push(((await program(...inputs)) as unknown as HostTensor[]).map((r) => r.toArray()));
    await program.dispose();
  }
  expect(numbers[1]).toEqual(numbers[0]);
  return { stored: counts[0]!, recomputed: counts[1]! };
}

function countOps(outputs: Tensor[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { op } of nodesOf(outputs)) counts[op] = (counts[op] ?? 0) + 1;
  return counts;
}

const x = randomTensor([4, 3], 1);
const w = randomTensor([3, 3], 2);
const v = randomTensor([3, 3], 3);

describe("checkpoint", () => {
  test("gives equal gradients, and computes its inside twice", async () => {
    const counts = await compare(
      (wrap, x, w, v) => {
        const block = wrap((h: Tensor, weight: Tensor) => t.sin(t.matmul(t.sin(t.matmul(h, weight)), weight)));
        return t.mean(block(block(x, w), v));
      },
      [x, w, v],
    );
    // The gradient reads the inner sine and both products of a block, but not its result.
    const products = (c: Record<string, number>): number => (c["MatMul"] ?? 0) + (c["Gemm"] ?? 0);
    expect([counts.stored["Sin"], counts.recomputed["Sin"]]).toEqual([4, 6]);
    expect(products(counts.recomputed) - products(counts.stored)).toBe(4);
  });

  test("sees weights that the block closes over", async () => {
    const counts = await compare(
      (wrap, x, w, v) => {
        const block = wrap((h: Tensor) => t.sin(t.matmul(t.sin(t.matmul(h, w)), v)));
        return t.mean(block(block(x)));
      },
      [x, w, v],
    );
    expect(counts.recomputed["Sin"]! - counts.stored["Sin"]!).toBeGreaterThanOrEqual(2);
  });

  test("takes and returns trees, several results, results that are arguments", async () => {
    await compare(
      (wrap, x, w) => {
        const block = wrap((state: { h: Tensor; w: Tensor }, note: string) => ({
          h: t.tanh(t.matmul(state.h, state.w)),
          side: [t.exp(state.h), state.w],
          note,
        }));
        const { h, side, note } = block({ h: x, w }, "kept");
        expect(note).toBe("kept");
        return t.add(t.mean(t.mul(h, side[0]!)), t.sum(side[1]!));
      },
      [x, w],
    );
  });

  test("only some results used, only some leaves asked for", async () => {
    await compare(
      (wrap, x, w) => {
        const [a] = wrap((h: Tensor, weight: Tensor) => [t.tanh(t.matmul(h, weight)), t.exp(h)])(x, w);
        return t.mean(a!);
      },
      [x, w],
      (all) => [all[1]!],
    );
  });

  test("nested in each other", async () => {
    const counts = await compare(
      (wrap, x, w, v) => {
        const inner = wrap((h: Tensor, weight: Tensor) => t.sin(t.matmul(h, weight)));
        const outer = wrap((h: Tensor) => t.cos(inner(t.sin(inner(h, w)), v)));
        return t.mean(outer(outer(x)));
      },
      [x, w, v],
    );
    expect(counts.recomputed["Sin"]).toBeGreaterThan(counts.stored["Sin"]!);
  });

  test("with custom gradients inside, which close over what is recomputed", async () => {
    await compare(
      (wrap, x, w) => {
        const block = wrap((h: Tensor, weight: Tensor) => {
          const scale = t.max(t.abs(weight));
          const quantize = customVjp(
            (u: Tensor) => t.mul(t.round(t.div(u, scale)), scale),
            (dy) => [t.mul(dy, scale)],
          );
          return t.tanh(t.matmul(h, quantize(weight)));
        });
        return t.mean(block(block(x, w), w));
      },
      [x, w],
    );
  });

  test("the gradient reads nothing that its block computed on the way forward, closures included", () => {
    const h = t.input("h", { dtype: "f32", shape: [2] });
    const block = checkpoint((a: Tensor) => {
      const scale = t.exp(a);
      const scaled = customVjp(
        (u: Tensor) => t.round(u),
        (dy) => [t.mul(dy, scale)],
      );
      return checkpoint((b: Tensor) => t.mul(scaled(b), t.exp(b)))(a);
    });
    const exponentials = nodesOf([grad(t.sum(block(h)), h)]).filter(({ op }) => op === "Exp");
    expect(exponentials.length).toBeGreaterThan(0);
    for (const { inputs } of exponentials) expect(inputs[0]!.node.op).toBe("pare.After");
  });

  test("a nested checkpoint does not copy the graph behind it", async () => {
    const graphSize = async (depth: number): Promise<number> => {
      const program = await compile(
        (h, weight) => {
          const inner = checkpoint((a: Tensor) => t.sin(t.matmul(a, weight)));
          const outer = checkpoint((a: Tensor) => inner(inner(a)));
          let y: Tensor = h;
          for (let i = 0; i < depth; i++) y = outer(y);
          return grad(t.mean(y), [h, weight]);
        },
        [x, w] as const,
        { threads: 1 },
      );
      const size = nodesOf(program.graph.outputs.map((p) => p.tensor)).length;
      await program.dispose();
      return size;
    };
    const [two, four, eight] = [await graphSize(2), await graphSize(4), await graphSize(8)];
    expect(eight - four).toBe(2 * (four - two));
  });

  test("with whole numbers, booleans and small integers among its inputs", async () => {
    const ids = HostTensor.from([0, 2, 1, 2], { dtype: "i64" });
    const mask = HostTensor.from([true, false, true, true], { shape: [4, 1] });
    const packed = HostTensor.from([1, 2, 3, 4, 5, 6, 7, 8, 9], { dtype: "u8", shape: [3, 3] });
    await compare(
      (wrap, table, ids, mask, packed) => {
        const block = wrap((weights: Tensor) =>
          t.where(mask, t.tanh(t.matmul(t.op("Gather", [weights, ids]), t.cast(packed, "f64"))), 0),
        );
        return t.mean(block(table));
      },
      [w, ids, mask, packed],
      (all) => [all[0]!],
    );
  });

  test("has second derivatives", async () => {
    const model = (h: Tensor, weight: Tensor): Tensor =>
      checkpoint((a: Tensor) => t.tanh(checkpoint((b: Tensor) => t.sin(t.matmul(b, weight)))(a)))(h);
    const inputs = [randomTensor([2, 2], 1), randomTensor([2, 2], 2)];
    await checkGradient((a, b) => model(a!, b!), inputs);
    await checkGradient(
      derivative((a, b) => model(a!, b!)),
      inputs,
    );
  });

  test("of a constant, or of nothing that is differentiated", async () => {
    const program = await compile(
      (h) => {
        const y = checkpoint((a: Tensor) => t.add(a, t.exp(t.scalar(1, "f64"))))(h);
        const z = checkpoint(() => t.scalar(2, "f64"))();
        return [...grad(t.add(t.sum(y), z), [h]), checkpoint((a: Tensor) => t.argMax(a))(h)];
      },
      [x] as const,
      { threads: 1 },
    );
    const [g] = (await program(x)) as unknown as HostTensor[];
    expect(g!.toArray()).toEqual(Array.from({ length: 12 }, () => 1));
    await program.dispose();
  });
});
