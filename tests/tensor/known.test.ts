import { describe, expect, test } from "vitest";
import {
  asTensor,
  type Dim,
  HostTensor,
  input,
  ints,
  knownInts,
  knownNumbers,
  op,
  type Shape,
  scalar,
  shapeTensor,
  type Tensor,
} from "../../src/tensor/index.ts";
import { run } from "../support/run.ts";

const x = input("x", { dtype: "f32", shape: ["batch", 3, "2*seq"] });
const shape = op("Shape", [x]);

describe("integers followed through a graph", () => {
  test.each<[string, Tensor, Dim[] | undefined]>([
    ["a constant", ints([1, 2]), [1, 2]],
    ["a shape", shape, ["batch", 3, "2*seq"]],
    ["part of a shape", op("Shape", [x], { start: -2, end: 2 }), [3]],
    ["a size", op("Size", [x]), ["6*batch*seq"]],
    ["a joined vector", op("Concat", [ints([7]), shape], { axis: 0 }), [7, "batch", 3, "2*seq"]],
    ["a picked entry", op("Unsqueeze", [op("Slice", [shape, ints([2]), ints([3])]), ints([0])]), undefined],
    ["a slice", op("Slice", [shape, ints([-2]), ints([2 ** 31 - 1])]), [3, "2*seq"]],
    ["a slice backwards", op("Slice", [shape, ints([2]), ints([0]), ints([0]), ints([-1])]), undefined],
    ["a sum", op("Add", [shape, ints([1])]), ["batch+1", 4, "2*seq+1"]],
    ["a difference", op("Sub", [shape, shape]), [0, 0, 0]],
    ["a product", op("Mul", [shape, shape]), ["batch*batch", 9, "4*seq*seq"]],
    ["a quotient", op("Div", [shape, ints([2])]), ["floor(batch/2)", 1, "seq"]],
    ["a negative quotient, cut towards zero", op("Div", [ints([-7, 7]), ints([2])]), [-3, 3]],
    ["a quotient by zero", op("Div", [ints([1]), ints([0])]), undefined],
    ["a cast", op("Cast", [op("Cast", [shape], { to: 6 })], { to: 7 }), ["batch", 3, "2*seq"]],
    ["a matrix", asTensor(HostTensor.from([[1n]])), undefined],
    ["a float", scalar(1, "f32"), undefined],
    ["a long vector", ints(Array.from({ length: 65 }, () => 1)), undefined],
    ["data", input("n", { dtype: "i64", shape: [2] }), undefined],
    ["the ends of the range, which mean no end", asTensor(HostTensor.from([2n ** 63n - 1n])), [Infinity]],
    ["an overflow of i32", op("Mul", [scalar(2 ** 20, "i32"), scalar(2 ** 20, "i32")]), undefined],
  ])("%s", (_name, t, expected) => {
    expect(knownInts(t)).toEqual(expected);
  });

  test("plain numbers are asked for by another name", () => {
    expect(knownNumbers(shape)).toBeUndefined();
    expect(knownNumbers(op("Shape", [x], { start: 1, end: 2 }))).toEqual([3]);
    expect(knownInts(null)).toBeUndefined();
  });

  test("large constants are computed by onnxruntime, to the last bit", async () => {
    const [product] = await run(
      () => op("Mul", [asTensor(HostTensor.from([2n ** 55n + 1n])), asTensor(HostTensor.from([3n]))]),
      HostTensor.from([0]),
    );
    expect(product!.data[0]).toBe(3n * (2n ** 55n + 1n));
  });
});

describe("a shape put together when the graph runs", () => {
  const declared: Record<string, Shape> = {
    a: ["batch", 3],
    b: ["past+seq"],
    c: ["seq", "2*width"],
    d: ["floor(h+1/2)", "h", "past"],
  };
  const sizes: Record<string, number[]> = { a: [5, 3], b: [7], c: [3, 8], d: [4, 7, 4] };
  test.each<[string, Dim, number]>([
    ["as it stands", "past+seq", 7],
    ["a multiple", "3*batch", 15],
    ["a product", "batch*seq", 15],
    ["a product of several", "2*batch*seq*width", 120],
    ["a part of a multiple", "width", 4],
    ["a sum", "batch+h+1", 13],
    ["a difference", "seq+-1*batch+10", 8],
    ["a quotient at hand", "floor(h+1/2)", 4],
    ["a quotient that is not", "2*floor(batch+seq/3)+1", 5],
  ])("%s", async (_name, dim, expected) => {
    const inputs = Object.keys(declared).map((k) => HostTensor.zeros("f32", sizes[k]!));
    const { compile } = await import("../../src/runtime/index.ts");
    const { spec } = await import("../../src/tensor/index.ts");
    const program = await compile(
      (...ts) => shapeTensor([dim, 2], ts as Tensor[]),
      Object.values(declared).map((s) => spec("f32", s)),
    );
    expect((await program(...inputs)).toArray()).toEqual([expected, 2]);
    await program.dispose();
  });

  test("a name that is nowhere is refused with what was seen", () => {
    expect(() => shapeTensor(["nowhere"], [x])).toThrow(
      /no tensor at hand has the dimension "nowhere" \(seen: \[batch, 3, 2\*seq\]\) \(at .*known\.test\.ts:\d+:\d+\)/,
    );
    expect(() => shapeTensor(["nowhere"], [])).toThrow("(seen: none)");
  });
});
