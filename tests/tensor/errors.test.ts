import { describe, expect, test } from "vitest";
import * as t from "../../src/tensor/index.ts";
import {
  ArgumentError,
  DTypeError,
  GraphError,
  HostTensor,
  input,
  PareError,
  type Shape,
  ShapeError,
  type Tensor,
} from "../../src/tensor/index.ts";

const f32 = (...shape: Shape): Tensor => input("x", { dtype: "f32", shape });
const i64 = (...shape: Shape): Tensor => input("n", { dtype: "i64", shape });
const bool = (...shape: Shape): Tensor => input("b", { dtype: "bool", shape });

function thrownBy(build: () => unknown): PareError {
  try {
    build();
  } catch (error) {
    if (error instanceof PareError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

/** The line of this file that called. */
function thisLine(): number {
  const line = /errors\.test\.ts:(\d+):\d+/.exec(new Error().stack!.split("\n")[2]!)?.[1];
  return Number(line);
}

type Refusal = [
  name: string,
  line: number,
  build: () => unknown,
  kind: new (...args: never[]) => Error,
  message: string,
];

// biome-ignore format: a row must be one line, which is the one that the message has to name.
const refusals: Refusal[] = [
  // Elementwise.
  ["add", thisLine(), () => t.add(f32(2), f32(3)), ShapeError, "Add(f32 [2], f32 [3]): shapes [2] and [3] do not broadcast"],
  ["mixed types", thisLine(), () => t.mul(f32(2), i64(2)), DTypeError, "Mul(f32 [2], i64 [2]): its operands differ in element type (f32 and i64); cast one of them"],
  ["a fraction", thisLine(), () => t.mul(i64(2), 0.5), DTypeError, "Mul(i64 [2], 0.5): 0.5 is not a whole number, as i64 needs"],
  ["booleans", thisLine(), () => t.add(bool(2), bool(2)), DTypeError, "Add(bool [2], bool [2]): it takes numbers, not bool"],
  ["exp", thisLine(), () => t.exp(i64(2)), DTypeError, "Exp(i64 [2]): it takes floating-point numbers, not i64"],
  ["neg", thisLine(), () => t.neg(input("u", { dtype: "u8", shape: [2] })), DTypeError, "Neg(u8 [2]): it takes numbers with a sign, not u8"],
  ["and", thisLine(), () => t.and(f32(2), f32(2)), DTypeError, "And(f32 [2], f32 [2]): it takes bool, not f32"],
  ["bits", thisLine(), () => t.bitwiseAnd(f32(2), f32(2)), DTypeError, "BitwiseAnd(f32 [2], f32 [2]): it takes integers, not f32"],
  ["shift", thisLine(), () => t.shiftLeft(i64(2), 1), DTypeError, "BitShift(i64 [2], i64 []): it takes unsigned integers, not i64"],
  ["pow", thisLine(), () => t.pow(f32(2), f32(3)), ShapeError, "Pow(f32 [2], f32 [3]): shapes [2] and [3] do not broadcast"],
  ["where", thisLine(), () => t.where(f32(2), f32(2), 0), DTypeError, "Where(f32 [2], f32 [2], f32 []): its condition must be bool, not f32"],
  ["where's shapes", thisLine(), () => t.where(bool(2), f32(3), 0), ShapeError, "Where(bool [2], f32 [3], f32 []): shapes [2] and [3] and [] do not broadcast"],
  ["clip", thisLine(), () => t.clip(i64(2), 0.5, null), DTypeError, "Clip(i64 [2], 0.5, none): 0.5 is not a whole number, as i64 needs"],
  ["a host tensor", thisLine(), () => t.sub(HostTensor.zeros("f32", [2]), f32(3)), ShapeError, "Sub(f32 [2], f32 [3]): shapes [2] and [3] do not broadcast"],
  ["names", thisLine(), () => t.add(f32("batch"), f32("seq")), ShapeError, "Add(f32 [batch], f32 [seq]): shapes [batch] and [seq] do not broadcast"],
  ["no tensor", thisLine(), () => t.add(f32(2), "2" as never), ArgumentError, "Add(f32 [2], 2): expected a tensor or a number, not string"],
  // Reductions.
  ["an axis", thisLine(), () => t.sum(f32(2), { axes: 1 }), ArgumentError, "ReduceSum(f32 [2]): axis 1 is outside of a tensor with 1 dimensions"],
  ["the same axis twice", thisLine(), () => t.mean(f32(2, 3), { axes: [0, -2] }), ArgumentError, "ReduceMean(f32 [2, 3]): axes [0, -2] repeat"],
  ["sum of booleans", thisLine(), () => t.sum(bool(2)), DTypeError, "ReduceSum(bool [2], i64 [1]): it takes numbers, not bool; cast it"],
  ["max of nothing", thisLine(), () => t.max(f32(2, 0)), ShapeError, "ReduceMax(f32 [2, 0], i64 [2]): axis 1 has no elements to pick from"],
  ["argMax of nothing", thisLine(), () => t.argMax(f32(2, 0)), ShapeError, "ArgMax(f32 [2, 0]): axis 1 has no elements to pick from"],
  ["argMax of a scalar", thisLine(), () => t.argMax(f32()), ShapeError, "ArgMax(f32 []): a scalar has no axis to search"],
  ["logSumExp", thisLine(), () => t.logSumExp(f32(2), { axes: 2 }), ArgumentError, "logSumExp(f32 [2]): axis 2 is outside of a tensor with 1 dimensions"],
  ["variance", thisLine(), () => t.variance(f32(2), { axes: 2 }), ArgumentError, "variance(f32 [2]): axis 2 is outside of a tensor with 1 dimensions"],
  ["cumSum", thisLine(), () => t.cumSum(f32(2), 1), ArgumentError, "CumSum(f32 [2]): axis 1 is outside of a tensor with 1 dimensions"],
  ["softmax", thisLine(), () => t.softmax(i64(2)), DTypeError, "Softmax(i64 [2]): it takes floating-point numbers, not i64"],
  ["logSoftmax", thisLine(), () => t.logSoftmax(f32(2), 3), ArgumentError, "LogSoftmax(f32 [2]): axis 3 is outside of a tensor with 1 dimensions"],
  // Shapes.
  ["reshape", thisLine(), () => t.reshape(f32(2, 3), [4]), ShapeError, "Reshape(f32 [2, 3], i64 [1]): [2, 3] has 6 elements, [4] 4"],
  ["reshape to -1", thisLine(), () => t.reshape(f32(2, 3), [4, -1]), ShapeError, "Reshape(f32 [2, 3], i64 [2]): 6 elements do not divide into [4, -1]"],
  ["reshape to -1 twice", thisLine(), () => t.reshape(f32(2, 3), [-1, -1]), ShapeError, "Reshape(f32 [2, 3], i64 [2]): only one dimension of [-1, -1] may be -1"],
  ["reshape to -2", thisLine(), () => t.reshape(f32(2, 3), [-2]), ShapeError, "Reshape(f32 [2, 3]): a dimension is a whole, non-negative number or a name, not -2"],
  ["reshape to a name", thisLine(), () => t.reshape(f32("seq", 4), ["batch", 2]), ShapeError, 'Reshape(f32 [seq, 4]): no tensor at hand has the dimension "batch" (seen: [seq, 4])'],
  ["flatten", thisLine(), () => t.flatten(f32(2, 3), 1, 0), ArgumentError, "Flatten(f32 [2, 3]): axes 1 to 0 are not in order"],
  ["unsqueeze", thisLine(), () => t.unsqueeze(f32(2), [0, 0]), ArgumentError, "Unsqueeze(f32 [2], i64 [2]): axes [0, 0] repeat"],
  ["squeeze", thisLine(), () => t.squeeze(f32(2), 0), ShapeError, "Squeeze(f32 [2], i64 [1]): axis 0 has length 2, only length 1 can be dropped"],
  ["transpose", thisLine(), () => t.transpose(f32(2, 3), [0, 0]), ArgumentError, "Transpose(f32 [2, 3]): [0, 0] is not an order of 2 axes"],
  ["concat", thisLine(), () => t.concat([f32(2, 3), f32(2, 4)], 0), ShapeError, "Concat(f32 [2, 3], f32 [2, 4]): [2, 3] and [2, 4] differ elsewhere than along axis 0"],
  ["concat's types", thisLine(), () => t.concat([f32(2), i64(2)], 0), DTypeError, "Concat(f32 [2], i64 [2]): its parts differ in element type (f32 and i64); cast one of them"],
  ["concat of scalars", thisLine(), () => t.concat([f32(), f32()], 0), ShapeError, "Concat(f32 [], f32 []): scalars cannot be joined; unsqueeze them first"],
  ["concat of nothing", thisLine(), () => t.concat([]), ArgumentError, "Concat(): it takes 1 or more inputs, not 0"],
  ["split", thisLine(), () => t.split(f32(5), 2), ShapeError, "Split(f32 [5]): axis 0 of [5] does not split into 2 equal pieces"],
  ["split into none", thisLine(), () => t.split(f32(5), 0), ShapeError, "Split(f32 [5]): axis 0 of [5] does not split into 0 equal pieces"],
  ["split's sizes", thisLine(), () => t.split(f32(5), [2, 2]), ShapeError, "Split(f32 [5], i64 [2]): sizes [2, 2] add up to 4, but axis 0 has length 5"],
  ["slice", thisLine(), () => t.slice(f32(5), 1, 0), ArgumentError, "Slice(f32 [5]): axis 1 is outside of a tensor with 1 dimensions"],
  ["slice's step", thisLine(), () => t.slice(f32(5), 0, 0, 3, 0), ArgumentError, "Slice(f32 [5], i64 [1], i64 [1], i64 [1], i64 [1]): its step is 0"],
  ["slice at a fraction", thisLine(), () => t.slice(f32(5), 0, 0.5), ArgumentError, "Slice(f32 [5]): 0.5 is not a whole number"],
  ["slice backwards along a name", thisLine(), () => t.slice(f32("seq"), 0, -2, 0, -1), ShapeError, 'Slice(f32 [seq], i64 [1], i64 [1], i64 [1], i64 [1]): axis 0 has the unknown length "seq" and cannot be cut this way'],
  ["pad", thisLine(), () => t.pad(f32(2, 3), [1], [1]), ShapeError, "Pad(f32 [2, 3]): it needs 2 widths on either side, not 1 and 1"],
  ["pad that cuts too much", thisLine(), () => t.pad(f32(2), [-3], [0]), ShapeError, "Pad(f32 [2], i64 [2], f32 []): cutting axis 0 by that much leaves -1 entries"],
  ["pad that mirrors too much", thisLine(), () => t.pad(f32(2), [2], [0], { mode: "reflect" }), ShapeError, 'Pad(f32 [2], i64 [2]): an axis of length 2 cannot be padded by 2 with mode "reflect"'],
  ["pad's mode", thisLine(), () => t.pad(f32(2), [1], [0], { mode: "mirror" as never }), ArgumentError, 'Pad(f32 [2], i64 [2]): it has no mode "mirror"'],
  ["tile", thisLine(), () => t.tile(f32(2), [1, 2]), ShapeError, "Tile(f32 [2], i64 [2]): it needs 1 repeats, not 2"],
  ["triangle", thisLine(), () => t.triangle(f32(2)), ShapeError, "Trilu(f32 [2], i64 []): it takes matrices, not [2]"],
  ["expand", thisLine(), () => t.expand(f32(2), [3]), ShapeError, "Expand(f32 [2], i64 [1]): [2] does not broadcast to [3]"],
  ["data as a shape", thisLine(), () => t.op("Reshape", [f32(2), i64(1)]), ShapeError, "Reshape(f32 [2], i64 [1]): the shape to give depends on data"],
  ["data as axes", thisLine(), () => t.op("ReduceSum", [f32(2), i64(1)]), ShapeError, "ReduceSum(f32 [2], i64 [1]): its axes must be known while tracing"],
  ["a range", thisLine(), () => t.op("Range", [i64(), i64(), i64()]), ShapeError, "Range(i64 [], i64 [], i64 []): the length of this range depends on data"],
  // Products.
  ["matmul", thisLine(), () => t.matmul(f32(2, 3), f32(4, 5)), ShapeError, "MatMul(f32 [2, 3], f32 [4, 5]): inner dimensions 3 and 4 of [2, 3] and [4, 5] differ"],
  ["matmul's batches", thisLine(), () => t.matmul(f32(2, 3, 4), f32(3, 4, 5)), ShapeError, "MatMul(f32 [2, 3, 4], f32 [3, 4, 5]): batch dimensions of [2, 3, 4] and [3, 4, 5] do not broadcast"],
  ["matmul of a scalar", thisLine(), () => t.matmul(f32(), f32(2)), ShapeError, "MatMul(f32 [], f32 [2]): a scalar cannot be multiplied as a matrix"],
  ["matmul's types", thisLine(), () => t.matmul(f32(2, 2), i64(2, 2)), DTypeError, "MatMul(f32 [2, 2], i64 [2, 2]): its operands differ in element type (f32 and i64); cast one of them"],
  ["matmul of booleans", thisLine(), () => t.matmul(bool(2, 2), bool(2, 2)), DTypeError, "MatMul(bool [2, 2], bool [2, 2]): it takes numbers, not bool; cast its operands"],
  ["Gemm's bias", thisLine(), () => t.op("Gemm", [f32(1, 3), f32(3, 4), f32(2, 4)]), ShapeError, "Gemm(f32 [1, 3], f32 [3, 4], f32 [2, 4]): [2, 4] does not broadcast to [1, 4]"],
  ["einsum", thisLine(), () => t.einsum("ij,jk->ik", f32(2, 3), f32(4, 5)), ShapeError, 'einsum(f32 [2, 3], f32 [4, 5]): "j" is 3 in one operand of "ij,jk->ik" and 4 in another'],
  ["einsum's form", thisLine(), () => t.einsum("ij->->", f32(2, 3)), ArgumentError, 'einsum(f32 [2, 3]): "ij->->" is not of the form "ab,bc->ac"'],
  ["einsum's operands", thisLine(), () => t.einsum("ij,jk->ik", f32(2, 3)), ArgumentError, 'einsum(f32 [2, 3]): "ij,jk->ik" names 2 operands, 1 were given'],
  ["einsum's axes", thisLine(), () => t.einsum("ijk->i", f32(2, 3)), ShapeError, 'einsum(f32 [2, 3]): "ijk" names 3 axes, operand 0 has shape [2, 3]'],
  ["einsum's diagonal", thisLine(), () => t.einsum("ii->i", f32(2, 2)), ArgumentError, 'einsum(f32 [2, 2]): "ii" repeats a letter; diagonals are not supported'],
  ["einsum's output", thisLine(), () => t.einsum("ij->ik", f32(2, 2)), ArgumentError, 'einsum(f32 [2, 2]): "k" behind the arrow occurs in no operand of "ij->ik"'],
  ["einsum's doubled output", thisLine(), () => t.einsum("ij->ii", f32(2, 2)), ArgumentError, 'einsum(f32 [2, 2]): "ij->ii" repeats a letter behind the arrow; diagonals are not supported'],
  // The table of operations.
  ["too many inputs", thisLine(), () => t.op("Exp", [f32(2), f32(2)]), ArgumentError, "Exp(f32 [2], f32 [2]): it takes 1 inputs, not 2"],
  ["a range of inputs", thisLine(), () => t.op("Clip", []), ArgumentError, "Clip(): it takes 1 to 3 inputs, not 0"],
  ["a missing input", thisLine(), () => t.op("Add", [f32(2), null]), ArgumentError, "Add(f32 [2], none): its input 1 is missing"],
  ["an unknown attribute", thisLine(), () => t.op("Softmax", [f32(2)], { axes: 1 }), ArgumentError, 'Softmax(f32 [2]): it has no attribute "axes"'],
  ["an attribute's kind", thisLine(), () => t.op("Softmax", [f32(2)], { axis: "1" }), ArgumentError, 'Softmax(f32 [2]): its attribute "axis" must be of kind int, not 1'],
];

describe("a refusal names the operation, what it was given and the caller's line", () => {
  test.each(refusals)("%s", (_name, line, build, kind, message) => {
    const error = thrownBy(build);
    expect(error).toBeInstanceOf(kind);
    const place = / \(at (.*)\)$/.exec(error.message);
    expect(error.message.slice(0, place?.index)).toBe(message);
    expect(place?.[1]).toMatch(new RegExp(`/tests/tensor/errors\\.test\\.ts:${line}:\\d+$`));
  });
});

describe("refusals of differentiation", () => {
  const here = /\(at .*\/tests\/tensor\/errors\.test\.ts:\d+:\d+\)$/;

  test("a loss must be a single floating-point number", () => {
    const x = f32(2);
    expect(thrownBy(() => t.grad(x, x)).message).toMatch(
      /^a gradient starts from a single floating-point number, not from f32 \[2\]; take its mean or sum/,
    );
    expect(thrownBy(() => t.grad(i64(), x)).message).toMatch(here);
  });

  test("leaves must be floating-point", () => {
    const x = f32();
    const error = thrownBy(() => t.grad(x, { embedding: { ids: i64(2) } }));
    expect(error).toBeInstanceOf(GraphError);
    expect(error.message).toContain("cannot differentiate with respect to embedding.ids of type i64");
    expect(error.message).toMatch(here);
  });

  test("an operation without a gradient is named", () => {
    t.defineOp({ name: "test.NoGradient", arity: [1, 1], infer: ({ input }) => [input(0)] });
    const x = f32(2);
    const error = thrownBy(() => t.grad(t.sum(t.op("test.NoGradient", [x])), x));
    expect(error).toBeInstanceOf(GraphError);
    expect(error.message).toMatch(/^test\.NoGradient has no gradient rule \(at /);
    // Where nothing asks for it, nothing is missing.
    expect(t.grad(t.sum(t.mul(x, t.stopGradient(t.op("test.NoGradient", [x])))), x).shape).toEqual([2]);
  });

  test("a gradient rule that gives the wrong shape or type is caught", () => {
    t.defineOp({
      name: "test.WrongShape",
      arity: [2, 2],
      infer: ({ input }) => [input(0)],
      vjp: ({ cotangents }) => [t.sum(cotangents[0]!), t.cast(cotangents[0]!, "f64")],
    });
    const x = f32(2);
    const y = t.op("test.WrongShape", [x, f32(2)]);
    expect(thrownBy(() => t.grad(t.sum(y), x)).message).toMatch(
      /^the gradient rule of test\.WrongShape, for its input 0, gave f32 \[\] where f32 \[2\] is needed \(at /,
    );
    const wrongType = thrownBy(() => t.grad(t.sum(y), y.node.inputs[1]!));
    expect(wrongType).toBeInstanceOf(DTypeError);
    expect(wrongType.message).toContain("gave f64 [2] where f32 [2] is needed");
  });

  test("a gradient that needs numbers says so", () => {
    const x = f32("seq");
    const error = thrownBy(() => t.grad(t.sum(t.slice(x, 0, 1)), x));
    expect(error.message).toMatch(
      /^gradient of Slice\(f32 \[seq\], .*dimension 0 must be a number here, but it is "seq"/,
    );
    expect(error.message).toMatch(here);
  });

  test("a pull-back takes cotangents of its outputs' types", () => {
    const [, pull] = t.vjp((x: Tensor) => [t.sum(x), x] as Tensor[], f32(2));
    expect(thrownBy(() => pull([f32()])).message).toMatch(/^the pull-back takes 2 cotangents, not 1 \(at /);
    expect(thrownBy(() => pull([f32(), f32(3)])).message).toMatch(
      /^the caller of the pull-back, for output 1, gave f32 \[3\] where f32 \[2\] is needed/,
    );
  });

  test("a custom gradient gives a cotangent per primal", () => {
    const product = t.customVjp(
      (a: Tensor, b: Tensor) => t.mul(a, b),
      (dy) => [dy],
    );
    const x = f32();
    expect(thrownBy(() => t.grad(product(x, x), x)).message).toMatch(
      /^gradient of CustomVjp\(.*\): the backward function gave 1 cotangents for 2 primals \(at /,
    );
  });
});

describe("refusals of the table of operations", () => {
  test("unknown and doubly defined operations", () => {
    expect(() => t.applyOp("Nonsense", [])).toThrow("there is no operation called Nonsense");
    expect(() => t.defineOp({ name: "Add", arity: [2, 2], infer: () => [] })).toThrow(
      "the operation Add is defined twice",
    );
    expect(() => t.applyOp("pare.Input", [])).toThrow(GraphError);
    expect(t.findOp("Add")?.name).toBe("Add");
    expect(t.listOps()).toContain("MatMul");
  });

  test("every error is a PareError with a code", () => {
    const errors = [new ShapeError("a"), new DTypeError("b"), new ArgumentError("c"), new GraphError("d")];
    expect(errors.map((e) => [e.name, e.code, e instanceof PareError])).toEqual([
      ["ShapeError", "SHAPE", true],
      ["DTypeError", "DTYPE", true],
      ["ArgumentError", "ARGUMENT", true],
      ["GraphError", "GRAPH", true],
    ]);
  });

  test("an axis, a static dimension, a whole number", () => {
    expect(t.normalizeAxis(-1, 3)).toBe(2);
    expect(() => t.normalizeAxis(3, 3)).toThrow("axis 3 is outside of a tensor with 3 dimensions");
    expect(() => t.normalizeAxis(0.5, 3)).toThrow(ArgumentError);
    expect(t.staticDim(f32(2, 5), -1)).toBe(5);
    expect(() => t.staticDim(f32("seq"), 0)).toThrow('dimension 0 must be a number here, but it is "seq"');
    expect(() => t.asTensor(null as never)).toThrow(/expected a tensor or a number, not null \(at .*errors\.test\.ts/);
    expect(String(f32(2, "seq"))).toBe("Tensor(f32 [2, seq] from pare.Input)");
  });
});
