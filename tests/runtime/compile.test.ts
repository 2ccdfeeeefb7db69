import { describe, expect, it } from "vitest";
import { compile, DisposedError, FeedError, openSessions } from "../../src/runtime/index.ts";
import {
  add,
  concat,
  constant,
  GraphError,
  gather,
  grad,
  HostTensor,
  matmul,
  mean,
  mul,
  softmax,
  spec,
  sum,
} from "../../src/tensor/index.ts";

const w = HostTensor.from([
  [1, 2],
  [3, 4],
]);

describe("compile", () => {
  it("keeps the trees of arguments and results", async () => {
    const program = await compile(
      (p, x) => ({ y: matmul(x, p.layer.w), list: [add(x, 1), { twice: mul(x, 2) }] }),
      [{ layer: { w } }, spec("f32", [1, 2])],
    );
    const out = await program({ layer: { w } }, HostTensor.from([[1, 1]]));
    expect(out.y.toArray()).toEqual([4, 6]);
    expect((out.list[0] as HostTensor).toArray()).toEqual([2, 2]);
    expect((out.list[1] as { twice: HostTensor }).twice.toArray()).toEqual([2, 2]);
    await program.dispose();
  });

  it("binds named dimensions anew for each call", async () => {
    await using program = await compile(
      (x, y) => softmax(concat([x, y], 1)),
      [spec("f32", ["batch", "left"]), spec("f32", ["batch", "right"])],
    );
    for (const [batch, left, right] of [
      [1, 2, 3],
      [4, 1, 1],
    ] as const) {
      const out = await program(HostTensor.zeros("f32", [batch, left]), HostTensor.zeros("f32", [batch, right]));
      expect(out.shape).toEqual([batch, left + right]);
      expect(out.at(0)).toBeCloseTo(1 / (left + right), 6);
    }
  });

  it("takes host tensors in a closure as constants", async () => {
    await using program = await compile((x) => matmul(x, constant(w)), [spec("f32", [1, 2])]);
    expect(program.graph.inputs).toHaveLength(1);
    expect((await program(HostTensor.from([[1, 0]]))).toArray()).toEqual([1, 2]);
  });

  it("returns an input, a constant and a tensor twice", async () => {
    await using program = await compile(
      (x) => {
        const y = add(x, 1);
        return { x, c: constant(w), y, again: y };
      },
      [spec("f32", [1])],
    );
    const out = await program(HostTensor.from([5]));
    expect([out.x.item(), out.y.item(), out.again.item()]).toEqual([5, 6, 6]);
    expect(out.c.toArray()).toEqual([1, 2, 3, 4]);
  });

  it.each([
    [[HostTensor.from([[1, 2]])], "the program takes 2 arguments, not 1"],
    [[{ w }, HostTensor.from([1, 2])], '"x" takes f32 [1, 2], but f32 [2] was given'],
    [[{ w }, HostTensor.from([[1, 2]], { dtype: "f64" })], '"x" takes f32 [1, 2], but f64 [1, 2] was given'],
    [[{ v: w }, HostTensor.from([[1, 2]])], 'the program has no input "params.v"; it takes params.w, x'],
    [[{}, HostTensor.from([[1, 2]])], 'the input "params.w" was not given'],
  ])("refuses unfitting feeds before the session sees them (%#)", async (args, message) => {
    await using program = await compile((p, x) => matmul(x, p.w), [{ w }, spec("f32", [1, 2])], {
      names: ["params", "x"],
    });
    await expect((program as unknown as (...a: unknown[]) => Promise<unknown>)(...args)).rejects.toThrow(
      new FeedError(message as string),
    );
  });

  it("says which binding a dimension contradicts", async () => {
    await using program = await compile((x, y) => add(x, y), [spec("f32", ["n"]), spec("f32", ["n"])]);
    await expect(program(HostTensor.from([1, 2]), HostTensor.from([1]))).rejects.toThrow(
      '"arg1" takes f32 [n], but f32 [1] was given (with n = 2)',
    );
  });

  it("refuses functions that return nothing, or a promise", async () => {
    await expect(compile(() => ({}), [])).rejects.toThrow(new GraphError("the traced function returned no tensor"));
    await expect(compile(async (x) => x, [spec("f32", [])])).rejects.toThrow("the traced function is asynchronous");
  });

  it("refuses a tensor of another trace", async () => {
    let leaked: ReturnType<typeof add> | undefined;
    await using _first = await compile((x) => (leaked = add(x, 1)), [spec("f32", [])], { names: ["first"] });
    await expect(compile((x) => add(x, leaked!), [spec("f32", [])])).rejects.toThrow(
      'the graph uses the input "first", which is not among its inputs',
    );
  });

  it("refuses bf16 at the border", async () => {
    await expect(compile((x) => x, [spec("bf16", [1])])).rejects.toThrow(
      '"arg0" is bf16, which onnxruntime takes as a constant only',
    );
  });

  it("shares sessions of equal programs and frees them with the last", async () => {
    const before = openSessions();
    const build = () => compile((x) => mean(mul(x, x)), [spec("f32", [7])]);
    const [a, b] = [await build(), await build()];
    expect(openSessions()).toBe(before + 1);
    await a.dispose();
    await a.dispose();
    expect((await b(HostTensor.zeros("f32", [7]))).item()).toBe(0);
    await b.dispose();
    expect(openSessions()).toBe(before);
    await expect(b(HostTensor.zeros("f32", [7]))).rejects.toThrow(DisposedError);
  });

  it("does not grow over 10,000 runs", async () => {
    await using program = await compile(
      (x) => ({ loss: sum(mul(x, x)), grads: grad(sum(mul(x, x)), x) }),
      [spec("f32", [256])],
      { threads: 1 },
    );
    const x = HostTensor.zeros("f32", [256]);
    const collect = globalThis.gc ?? (() => undefined);
    for (let i = 0; i < 2000; i++) await program(x);
    collect();
    const before = process.memoryUsage().rss;
    for (let i = 0; i < 10_000; i++) await program(x);
    collect();
    // A leak of one output per run would be 10 MB, one of the feeds as much again.
    expect(process.memoryUsage().rss - before).toBeLessThan(8 * 2 ** 20);
  });

  it("keeps onnxruntime's reason when a run fails", async () => {
    await using program = await compile((x, i) => gather(x, i), [spec("f32", [3]), spec("i64", [1])]);
    await expect(program(HostTensor.zeros("f32", [3]), HostTensor.from([9n]))).rejects.toThrow(
      /^onnxruntime failed while running: .*indices element out of data bounds/s,
    );
  });
});
