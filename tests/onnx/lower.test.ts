import { describe, expect, it } from "vitest";
import { checkModel, lower, makeGraph, nodesOf, type Port, toOnnx } from "../../src/onnx/index.ts";
import {
  add,
  after,
  applyOp,
  cast,
  checkpoint,
  concat,
  constant,
  customVjp,
  div,
  expand,
  grad,
  HostTensor,
  identity,
  input,
  ints,
  linear,
  matmul,
  mean,
  mul,
  neg,
  op,
  relu,
  reshape,
  squeeze,
  stopGradient,
  sub,
  sum,
  type Tensor,
  transpose,
  unsqueeze,
  where,
} from "../../src/tensor/index.ts";
import { noiseTensor, runBytes } from "../support/foreign-model.ts";

const f32 = (name: string, ...shape: (number | string)[]): Tensor => input(name, { dtype: "f32", shape });

/** Operators of the lowered graph in order, without inputs and constants. */
function operators(outputs: readonly Tensor[], inputs: readonly Tensor[], portable = false): string[] {
  const lowered = lower(graphOf(outputs, inputs), { portable });
  return nodesOf(lowered.outputs.map((p) => p.tensor))
    .map((n) => n.op)
    .filter((name) => name !== "pare.Input" && name !== "Constant");
}

function graphOf(outputs: readonly Tensor[], inputs: readonly Tensor[]): ReturnType<typeof makeGraph> {
  const named = (list: readonly Tensor[], prefix: string): Port[] =>
    list.map((tensor, i) => ({ name: `${prefix}${i}`, tensor }));
  return makeGraph(named(inputs, "in"), named(outputs, "out"));
}

/** What onnxruntime computes from the lowered and written graph on fixed inputs. */
async function numbers(outputs: readonly Tensor[], inputs: readonly Tensor[], portable = false): Promise<number[][]> {
  const bytes = toOnnx(graphOf(outputs, inputs), { portable });
  checkModel(bytes);
  const feeds = inputs.map((t, i) => [`in${i}`, noiseTensor(t.shape as number[], i + 1)] as const);
  const results = await runBytes(bytes, Object.fromEntries(feeds));
  return outputs.map((_, i) => results[`out${i}`]!.toArray());
}

describe("lowering", () => {
  const x = f32("x", 2, 3);

  it("shares equal work, but not work that differs in an attribute or an input", () => {
    const twice = [add(relu(x), 1), add(relu(x), 1)].map((t) => mul(t, 2));
    expect(operators(twice, [x])).toEqual(["Relu", "Add", "Mul"]);
    expect(
      operators([sum(x, { axes: 0 }), sum(x, { axes: 1 }), sum(x, { axes: 1, keepDims: true })], [x]),
    ).toHaveLength(3);
    expect(operators([sub(x, 1), sub(1, x)], [x])).toHaveLength(2);
  });

  it("shares equal small constants and keeps others apart", () => {
    const constants = [1, 1, 2].map((v) => constant(HostTensor.from([v, v, v])));
    constants.push(constant(HostTensor.from([1, 1, 1], { dtype: "i32" })), constant(HostTensor.from([[1, 1, 1]])));
    const lowered = lower(
      graphOf(
        constants.map((c) => identity(c)),
        [],
      ),
    );
    const found = lowered.outputs.map((p) => p.tensor);
    expect(found[1]).toBe(found[0]);
    expect(new Set(found).size).toBe(4);
  });

  it("drops work that no output needs, and outputs of operations that nobody reads stay harmless", () => {
    const [first] = applyOp("TopK", [x, ints([2])], { axis: 1 }, 2);
    mul(x, 3);
    expect(operators([first!], [x])).toEqual(["TopK"]);
  });

  it("folds arithmetic on shapes", () => {
    const rows = op("Shape", [x], { start: 0, end: 1 });
    const target = concat([op("Mul", [rows, ints([3])]), ints([1])]);
    expect(operators([op("Reshape", [x, target])], [x])).toEqual(["Reshape"]);
  });

  it("does not fold integers that a number cannot hold", async () => {
    const largest = constant(new HostTensor("i64", [1], new BigInt64Array([2n ** 63n - 1n])));
    const sliced = op("Slice", [x, ints([1]), op("Unsqueeze", [squeeze(largest, 0), ints([0])]), ints([1])]);
    expect(sliced.shape).toEqual([2, 2]);
    const [result] = await numbers([sliced], [x]);
    const v = noiseTensor([2, 3], 1).toArray();
    expect(result).toEqual([v[1], v[2], v[4], v[5]]);
  });

  it("keeps names of dimensions where they decide", () => {
    const named = f32("n", "batch", 4);
    const y = reshape(named, ["batch", 2, 2]);
    expect(operators([y, expand(constant(HostTensor.from(1)), ["batch"], [named])], [named])).toEqual([
      "Reshape",
      "Shape",
      "Expand",
    ]);
  });

  it("takes the library's own operations out", async () => {
    const doubled = customVjp(
      (t: Tensor) => mul(t, 2),
      (dy) => [dy],
    );
    const kept = checkpoint((t: Tensor) => mul(relu(t), t));
    const loss = add(mean(doubled(stopGradient(x))), mean(kept(x)));
    const outputs = [loss, grad(loss, x)];
    expect(operators(outputs, [x]).filter((name) => name.startsWith("pare."))).toEqual([]);
    const v = noiseTensor([2, 3], 1).toArray();
    const [value, slope] = await numbers(outputs, [x]);
    expect(value![0]).toBeCloseTo(v.reduce((s, n) => s + 2 * n + Math.max(0, n) * n, 0) / 6, 5);
    slope!.forEach((g, i) => {
      expect(g).toBeCloseTo((2 * Math.max(0, v[i]!)) / 6, 5);
    });
  });

  it("computes recomputed work after what it waits for", () => {
    const later = after(relu(x), mul(x, 3));
    expect(operators([add(relu(x), 1), add(later, 1)], [x])).toContain("Equal");
  });

  it("is made for programs of many thousand nodes", () => {
    let y: Tensor = x;
    for (let i = 0; i < 20_000; i++) y = add(mul(y, 0.5 + i), x);
    expect(operators([y], [x])).toHaveLength(40_000);
  });
});

describe("simplifying", () => {
  const x = f32("x", 2, 3);

  it.each<[string, (t: Tensor) => Tensor]>([
    ["identity", (t) => identity(t)],
    ["adding 0", (t) => add(t, 0)],
    ["adding to 0", (t) => add(0, t)],
    ["subtracting 0", (t) => sub(t, 0)],
    ["multiplying by 1", (t) => mul(1, t)],
    ["dividing by 1", (t) => div(t, 1)],
    ["negating twice", (t) => neg(neg(t))],
    ["a cast to its own type", (t) => op("Cast", [t], { to: 1 })],
    ["joining one part", (t) => op("Concat", [t], { axis: 0 })],
    ["transposing twice", (t) => transpose(transpose(t))],
    ["reshaping to and fro", (t) => reshape(reshape(t, [3, 2]), [2, 3])],
    ["unsqueezing and squeezing", (t) => squeeze(unsqueeze(t, 1), 1)],
    ["expanding to its own shape", (t) => expand(t, [2, 3])],
  ])("%s does nothing", (_name, make) => {
    expect(operators([relu(make(x))], [x])).toEqual(["Relu"]);
  });

  it.each<[string, (t: Tensor) => Tensor]>([
    ["adding a broadcast 0", (t) => add(t, constant(HostTensor.zeros("f32", [4, 1, 1])))],
    ["multiplying by 2", (t) => mul(t, 2)],
    ["subtracting from 0", (t) => sub(0, t)],
    ["a cast to another type", (t) => cast(t, "f64")],
  ])("%s does something", (_name, make) => {
    expect(operators([make(x)], [x])).toHaveLength(1);
  });

  it("merges chains of reshapes and of transpositions", () => {
    const wide = f32("w", 2, 3, 4);
    expect(operators([reshape(reshape(wide, [6, 4]), [4, 6])], [wide])).toEqual(["Reshape"]);
    const turned = transpose(transpose(wide, [2, 0, 1]), [1, 0, 2]);
    expect(operators([turned], [wide])).toEqual(["Transpose"]);
  });

  it("knows that moving an axis of length 1 moves no number", async () => {
    const row = f32("r", 1, 5);
    expect(operators([transpose(row)], [row])).toEqual(["Reshape"]);
    expect(await numbers([transpose(row)], [row])).toEqual([noiseTensor([1, 5], 1).toArray()]);
  });

  it("reads through expansions that broadcasting repeats", async () => {
    const row = f32("r", 1, 3);
    const tall = expand(row, [2, 3]);
    const y = where(op("Greater", [x, tall]), add(x, tall), tall);
    expect(operators([y], [x, row])).toEqual(["Greater", "Add", "Where"]);
    const [v, r] = [noiseTensor([2, 3], 1).toArray(), noiseTensor([1, 3], 2).toArray()];
    const [result] = await numbers([y], [x, row]);
    expect(result).toEqual(v.map((n, i) => (n > r[i % 3]! ? Math.fround(n + r[i % 3]!) : r[i % 3]!)));
    // Here the expansion decides the shape.
    expect(operators([add(tall, row)], [row])).toEqual(["Expand", "Add"]);
  });

  const shapes: [string, number[], number[], (a: Tensor, b: Tensor) => Tensor, string[], string[]][] = [
    ["matrices, the right one", [4, 3], [5, 3], (a, b) => matmul(a, transpose(b)), ["Gemm"], ["Gemm"]],
    ["matrices, the left one", [3, 4], [3, 5], (a, b) => matmul(transpose(a), b), ["Gemm"], ["Gemm"]],
    ["matrices, both", [3, 4], [5, 3], (a, b) => matmul(transpose(a), transpose(b)), ["Gemm"], ["Gemm"]],
    [
      "rows in a stack",
      [2, 4, 3],
      [5, 3],
      (a, b) => linear(a, b),
      ["Reshape", "Gemm", "Reshape"],
      ["Reshape", "Gemm", "Reshape"],
    ],
    [
      "stacks",
      [2, 4, 3],
      [2, 5, 3],
      (a, b) => matmul(a, transpose(b)),
      ["com.microsoft.FusedMatMul"],
      ["Transpose", "MatMul"],
    ],
    [
      "stacks, the left one",
      [2, 3, 4],
      [2, 3, 5],
      (a, b) => matmul(transpose(a), b),
      ["com.microsoft.FusedMatMul"],
      ["Transpose", "MatMul"],
    ],
    [
      "a vector",
      [3],
      [5, 3],
      (a, b) => matmul(a, transpose(b)),
      ["Reshape", "Gemm", "Reshape"],
      ["Reshape", "Gemm", "Reshape"],
    ],
  ];
  it.each(shapes)("takes transpositions into products of %s", async (_name, a, b, make, native, portable) => {
    const [left, right] = [f32("a", ...a), f32("b", ...b)];
    const y = make(left, right);
    expect(operators([y], [left, right])).toEqual(native);
    expect(operators([y], [left, right], true)).toEqual(portable);
    const [fast] = await numbers([y], [left, right]);
    const [plain] = await numbers([y], [left, right], true);
    const expected = plainProduct(left, right, make);
    fast!.forEach((v, i) => {
      expect(v).toBeCloseTo(expected[i]!, 5);
      expect(plain![i]).toBeCloseTo(expected[i]!, 5);
    });
  });

  /** The product by loops over the numbers that the inputs are fed, transposed as `make`'s graph says. */
  function plainProduct(left: Tensor, right: Tensor, make: (a: Tensor, b: Tensor) => Tensor): number[] {
    const y = make(left, right);
    const [p, q] = y.node.inputs as [Tensor, Tensor];
    const feed = new Map([left, right].map((t, i) => [t, noiseTensor(t.shape as number[], i + 1).toArray()]));
    const read = (t: Tensor, n: number, i: number, j: number): number => {
      const source = t.node.op === "Transpose" ? t.node.inputs[0]! : t;
      const [row, column] = t === source ? [i, j] : [j, i];
      const [rows, columns] = [source.rank < 2 ? 1 : (source.shape.at(-2) as number), source.shape.at(-1) as number];
      return feed.get(source)![(source.rank > 2 ? n : 0) * rows * columns + row * columns + column]!;
    };
    const [m, k, n] = [p.rank < 2 ? 1 : (p.shape.at(-2) as number), p.shape.at(-1) as number, q.shape.at(-1) as number];
    const batches = p.rank > 2 ? (p.shape[0] as number) : 1;
    const result: number[] = [];
    for (let b = 0; b < batches; b++)
      for (let i = 0; i < m; i++)
        for (let j = 0; j < n; j++) {
          let total = 0;
          for (let c = 0; c < k; c++) total += read(p, b, i, c) * read(q, b, c, j);
          result.push(total);
        }
    return result;
  }

  it("leaves products of integers to a kernel that takes them", async () => {
    const a = op("Cast", [f32("a", 2, 3)], { to: 6 });
    const source = a.node.inputs[0]!;
    const product = matmul(a, transpose(a));
    expect(operators([product], [source])).toContain("MatMul");
    expect((await numbers([product], [source]))[0]).toHaveLength(4);
  });

  it("keeps portable files to the standard domain", () => {
    const wide = f32("w", 2, 3, 4);
    const y = op("com.microsoft.FusedMatMul", [wide, wide], { transB: 1, alpha: 0.5 });
    expect(operators([y], [wide])).toEqual(["com.microsoft.FusedMatMul"]);
    expect(operators([y], [wide], true)).toEqual(["Transpose", "MatMul", "Mul"]);
  });
});
