import { describe, expect, it } from "vitest";
import { checkModel, modelOf, nodesOf } from "../../src/onnx/index.ts";
import { compile, compileLoop } from "../../src/runtime/index.ts";
import {
  add,
  equal,
  grad,
  greater,
  HostTensor,
  matmul,
  mod,
  mul,
  sort,
  spec,
  sum,
  type Tensor,
  transpose,
  when,
} from "../../src/tensor/index.ts";

const x = HostTensor.from([[3, 1, 2]]);

describe("when", () => {
  it("computes where the condition holds, and takes the other value elsewhere", async () => {
    await using program = await compile(
      (limit: Tensor, row: Tensor) => {
        const twice = mul(row, 2);
        return when(
          greater(limit, 0),
          () => ({ sorted: add(sort(twice, 1).values, limit), same: twice, ten: add(mul(row, 0), 10) }),
          { sorted: row, same: row, ten: twice },
        );
      },
      [spec("f32", []), x],
    );
    const yes = await program(HostTensor.from(0.5), x);
    expect(Object.values(yes).map((t) => t.toArray())).toEqual([
      [2.5, 4.5, 6.5],
      [6, 2, 4],
      [10, 10, 10],
    ]);
    const no = await program(HostTensor.from(-0.5), x);
    expect(Object.values(no).map((t) => t.toArray())).toEqual([
      [3, 1, 2],
      [3, 1, 2],
      [6, 2, 4],
    ]);
  });

  it("keeps the work out of the graph around it, and the file in order", async () => {
    await using program = await compile(
      (limit: Tensor, row: Tensor) => {
        const inner = (t: Tensor): Tensor => when(greater(limit, 1), () => sort(t, 1).values, t);
        return when(greater(limit, 0), () => matmul(transpose(inner(row)), mul(row, 3)), matmul(transpose(row), row));
      },
      [spec("f32", []), x],
    );
    expect(nodesOf(program.graph.outputs.map((p) => p.tensor)).map(({ op }) => op)).not.toContain("TopK");
    expect(() => checkModel(modelOf(program.graph, { lowered: true }))).not.toThrow();
    const rows = async (limit: number): Promise<number[]> => (await program(HostTensor.from(limit), x)).toArray();
    expect(await rows(0)).toEqual([9, 3, 6, 3, 1, 2, 6, 2, 4]);
    expect(await rows(0.5)).toEqual([27, 9, 18, 9, 3, 6, 18, 6, 12]);
    expect(await rows(2)).toEqual([9, 3, 6, 18, 6, 12, 27, 9, 18]);
  });

  it("lets a state change at some steps only", async () => {
    await using loop = await compileLoop(
      ({ step, kept }, value: Tensor) => {
        const next = add(step, 1);
        return { state: { step: next, kept: when(equal(mod(step, 3), 0), () => sum(value), kept) }, result: next };
      },
      { step: HostTensor.from(0), kept: HostTensor.from(-1) },
      [spec("f32", [2])],
    );
    const kept: number[] = [];
    for (let i = 1; i <= 5; i++) {
      await loop.run(HostTensor.from([i, 10]));
      kept.push((await loop.state()).kept.item());
    }
    expect(kept).toEqual([11, 11, 11, 14, 14]);
  });

  it("refuses conditions that are none, results of another form, and to be differentiated", async () => {
    const traced = (fn: (t: Tensor) => Tensor): Promise<unknown> => compile(fn, [x]);
    await expect(traced((t) => when(t, () => t, t))).rejects.toThrow("a condition is bool, not f32");
    await expect(traced((t) => when(greater(t, 0), () => t, t))).rejects.toThrow(
      "a condition is one truth, not of shape [1, 3]",
    );
    const positive = (t: Tensor): Tensor => greater(sum(t), 0);
    await expect(traced((t) => when(positive(t), () => sum(t), t))).rejects.toThrow(
      "what is computed is f32 [], and otherwise f32 [1, 3]",
    );
    await expect(
      traced((t) => when<Record<string, Tensor>>(positive(t), () => ({ a: t }), { b: t }).b!),
    ).rejects.toThrow("what is computed, [a], is no tree of the form of the other, [b]");
    await expect(traced((t) => grad(sum(when(positive(t), () => mul(t, 2), t)), t))).rejects.toThrow(
      "pare.When has no gradient rule",
    );
  });
});
