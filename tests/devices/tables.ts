import * as T from "../../src/tensor/index.ts";
import { hostOf } from "../support/numbers.ts";
import { apart, type Family, f32, flat, i64, of, trigonometric, typed, x } from "./cases.ts";

const reductions: Family = {
  name: "reductions and scans",
  tolerance: 2e-5,
  cases: {
    sum: of((t) => [T.sum(t), T.sum(t, { axes: 1 }), T.sum(t, { axes: [0, -1], keepDims: true })], x([2, 3, 4])),
    mean: of((t) => [T.mean(t), T.mean(t, { axes: [0, 2] })], x([2, 3, 4])),
    max: of((t) => [T.max(t), T.max(t, { axes: 1 })], apart([2, 3, 4])),
    min: of((t) => [T.min(t), T.min(t, { axes: -1, keepDims: true })], apart([2, 3, 4])),
    "max with ties": of((t) => T.max(t, { axes: 0 }), f32(1, 3, 3)),
    prod: of((t) => T.prod(t, { axes: 1 }), x([3, 4], 0.5, 2)),
    norm1: of((t) => T.norm1(t, { axes: 1 }), apart([3, 4])),
    norm2: of((t) => T.norm2(t, { axes: [0, 1] }), x([3, 4])),
    sumSquares: of((t) => T.sumSquares(t, { axes: 0 }), x([3, 4])),
    logSumExp: of((t) => T.logSumExp(t, { axes: 1 }), x([3, 4], -5, 5)),
    "ReduceLogSumExp of ONNX": of((t) => T.op("ReduceLogSumExp", [t, T.ints([1])], { keepdims: 0 }), x([3, 4])),
    "ReduceLogSum of ONNX": of((t) => T.op("ReduceLogSum", [t, T.ints([0])], { keepdims: 1 }), x([3, 4], 0.5, 2)),
    variance: of((t) => T.variance(t, { axes: 1 }), x([3, 4])),
    "of integers": flat(
      (t) => [T.sum(t), T.max(t, { axes: 0 }), T.min(t), T.mean(t)],
      i64([
        [1, 2, 2 ** 40],
        [4, -5, 6],
      ]),
    ),
    "of bool": flat((t) => [T.max(t, { axes: 0 }), T.min(t, { axes: 1 })], typed("bool", [0, 1]).reshape([2, 1])),
    argMax: flat((t) => [T.argMax(t), T.argMax(t, 0, { keepDims: true })], apart([3, 4])),
    argMin: flat((t) => [T.argMin(t, 0), T.argMin(t)], apart([3, 4])),
    "argMax with a tie": flat((t) => [T.argMax(t), T.argMin(t)], f32(1, 3, 3, 1)),
    cumSum: of((t) => [T.cumSum(t), T.cumSum(t, 0, { exclusive: true }), T.cumSum(t, 1, { reverse: true })], x([3, 4])),
    "cumSum of integers": flat((t) => T.cumSum(t), i64([1, 2, 3, -10])),
    softmax: of((t) => [T.softmax(t), T.softmax(t, 0), T.softmax(t, 1)], x([2, 3, 4], -4, 4)),
    logSoftmax: of((t) => [T.logSoftmax(t), T.logSoftmax(t, 1)], x([2, 3, 4], -4, 4)),
    "softmax of long rows": of((t) => T.softmax(T.mul(t, 50)), x([2, 300])),
    "softmax with masked entries": of((t) => T.softmax(T.add(t, f32(0, -1e30, 0, -1e30))), x([2, 4])),
    "sum of many": { ...of((t) => T.sum(t, { axes: 0 }), x([1000, 2])), tolerance: 1e-4 },
  },
};

const products: Family = {
  name: "products",
  tolerance: 2e-5,
  cases: {
    matmul: of(T.matmul, x([3, 4]), x([4, 5])),
    "matmul in batches": of(T.matmul, x([2, 1, 3, 4]), x([3, 4, 2])),
    "matmul with vectors": of(
      (a, b) => [T.matmul(a, b), T.matmul(b, T.transpose(a)), T.matmul(b, b)],
      x([3, 4]),
      x([4]),
    ),
    "matmul with a transpose": of((a, b) => T.mul(T.matmul(a, T.transpose(b)), 0.5), x([2, 3, 4]), x([2, 5, 4])),
    "matmul of larger matrices": { ...of(T.matmul, x([70, 130]), x([130, 65])), tolerance: 1e-4 },
    "matmul of integers": flat(
      T.matmul,
      typed("i32", [1, 2, 3, 4]).reshape([2, 2]),
      typed("i32", [5, 6, 7, 8]).reshape([2, 2]),
    ),
    linear: of((a, w, b) => T.linear(a, w, b), x([2, 3, 4]), x([5, 4]), x([5])),
    "Gemm of ONNX": of(
      (a, b, c) => T.op("Gemm", [a, b, c], { alpha: 0.5, beta: 2, transA: 1, transB: 1 }),
      x([4, 3]),
      x([5, 4]),
      x([5]),
    ),
    "FusedMatMul of onnxruntime": of(
      (a, b) => T.op("com.microsoft.FusedMatMul", [a, b], { alpha: 0.5, transB: 1 }),
      x([2, 3, 4]),
      x([2, 5, 4]),
    ),
    einsum: of((a, b) => [T.einsum("bqd,bkd->bqk", a, b), T.einsum("bqd,bkd->b", a, b)], x([2, 3, 4]), x([2, 5, 4])),
    "Einsum of ONNX": of((a, b) => T.op("Einsum", [a, b], { equation: "ij,kj->ik" }), x([2, 3]), x([4, 3])),
  },
};

/** A weight of 5 rows, packed in two blocks. */
function packed(bits: 2 | 4 | 8, block: number): T.PackedWeight {
  const rng = new T.Rng(bits);
  const bytes = (...shape: number[]) => hostOf(shape, () => rng.integer(256), "u8");
  const scales = hostOf([10], () => rng.uniform(0.01, 0.1), "f32");
  return { codes: bytes(5, 2, (block * bits) / 8), scales, zeroPoints: bytes(5, Math.ceil(bits / 4)), bits, block };
}

const codes = hostOf([3, 8], (i) => (i * 37) % 256, "u8");

const quantized: Family = {
  name: "quantized numbers",
  tolerance: 2e-5,
  cases: {
    "products with 2 bits": of((t) => T.matmulPacked(t, packed(2, 16), { exact: true }), x([3, 32])),
    "products with 4 bits": of((t) => T.matmulPacked(t, packed(4, 32), { exact: true }), x([2, 3, 64])),
    "products with 8 bits": of((t) => T.matmulPacked(t, packed(8, 16), { exact: true }), x([1, 32])),
    // The CPU rounds the activations to 8 bits, the others may not.
    "products of rounded numbers": { ...flat((t) => T.matmulPacked(t, packed(4, 32)), x([3, 64])), tolerance: 0.1 },
    dequantize: of((s) => T.dequantize(codes, s, typed("u8", [100, 128, 3]), { axis: 0 }), x([3], 0.01, 0.1)),
    "dequantize blocks": flat((c, s) => T.dequantize(c, s, null, { block: 4 }), codes, x([3, 2], 0.01, 0.1)),
    quantize: flat(
      (t) => [T.quantize(t, 0.01, "i8"), T.quantize(t, 0.1, "u8", { zeroPoint: typed("u8", 7) })],
      x([3, 8]),
    ),
  },
};

const positions = i64([
  [0, 2, 1],
  [3, 1, 0],
]);

const shapes: Family = {
  name: "shapes",
  tolerance: 1e-6,
  cases: {
    reshape: of((t) => [T.reshape(t, [4, -1]), T.flatten(t, 1)], x([2, 3, 4])),
    "Flatten of ONNX": of((t) => T.op("Flatten", [t], { axis: 2 }), x([2, 3, 4])),
    squeeze: of((t) => [T.squeeze(t), T.squeeze(t, 1), T.unsqueeze(t, [0, 4])], x([2, 1, 3])),
    transpose: of((t) => [T.transpose(t), T.transpose(t, [2, 0, 1]), T.transpose(t, [2, 1, 0])], x([2, 3, 4])),
    "transpose of five axes": of((t) => T.transpose(t, [4, 2, 0, 3, 1]), x([2, 3, 2, 2, 3])),
    concat: of((a, b) => [T.concat([a, b], 1), T.stack([a, a], 0)], x([2, 3]), x([2, 1])),
    split: of((t) => [...T.split(t, [1, 3], 1), ...T.split(t, 2, 0)], x([2, 4])),
    slice: of((t) => [T.slice(t, 1, 1, 3), T.slice(t, 0, -1), T.slice(t, 1, 0, 5, 2), T.flip(t, 1)], x([3, 5])),
    "slice of integers": flat((t) => [T.slice(t, 0, 1), T.flip(t, 0)], i64([2 ** 40, 2, 3])),
    pad: of((t) => [T.pad(t, [1, 0], [0, 2]), T.pad(t, [-1, 1], [0, -1], { value: 3 })], x([3, 4])),
    "pad at the edges": of(
      (t) => (["reflect", "edge", "wrap"] as const).map((mode) => T.pad(t, [1, 0], [1, 2], { mode })),
      x([3, 4]),
    ),
    tile: of((t) => T.tile(t, [2, 1, 3]), x([1, 2, 2])),
    expand: of((t) => T.expand(t, [2, 3, 4]), x([3, 1])),
    "fill and iota": flat(
      (t) => [T.fill(2.5, [2, 2]), T.add(T.iota(4), T.cast(t, "i64")), T.zerosLike(t), T.onesLike(t)],
      x([1]),
    ),
    "ConstantOfShape of ONNX": flat(
      (t) => T.add(T.op("ConstantOfShape", [T.ints([2, 3])], { value: f32(7) }), t),
      x([3]),
    ),
    triangle: of((t) => [T.triangle(t), T.triangle(t, { upper: true, diagonal: 1 })], x([2, 3, 4])),
    checkpoint: of(
      (a, b) => T.checkpoint((p: T.Tensor, q: T.Tensor) => T.tanh(T.matmul(p, q)))(a, b),
      x([3, 4]),
      x([4, 2]),
    ),
    stopGradient: of((t) => T.mul(t, T.stopGradient(t)), x([3])),
    "no elements": flat((t) => [T.slice(t, 0, 1, 1), T.sum(T.slice(t, 0, 1, 1))], x([2, 3])),
  },
};

/** Names are those of the whole program: each case has its own. */
const named: Family = {
  name: "named dimensions",
  tolerance: 1e-6,
  cases: {
    reshape: { ...of((t) => T.reshape(t, ["a*b", 4]), x([2, 3, 4])), specs: [T.spec("f32", ["a", "b", 4])] },
    "mean and expand": { ...of((t) => T.mul(T.mean(t), T.onesLike(t)), x([3, 4])), specs: [T.spec("f32", ["c", 4])] },
    iota: { ...flat((t) => [T.iota("d", [t]), T.op("Size", [t])], x([3, 4])), specs: [T.spec("f32", ["d", 4])] },
    "causal attention": {
      ...of((t) => T.scaledDotProductAttention(t, t, t, { causal: true }), x([1, 2, 3, 4])),
      specs: [T.spec("f32", ["e", 2, "f", 4])],
      tolerance: 2e-5,
    },
    concat: {
      ...of((a, b) => T.concat([a, b], 0), x([2, 2]), x([3, 2])),
      specs: [T.spec("f32", ["g", 2]), T.spec("f32", ["h", 2])],
    },
  },
};

const indexing: Family = {
  name: "indexing and order",
  tolerance: 1e-6,
  cases: {
    gather: of((t) => [T.gather(t, positions), T.gather(t, 1, 1), T.gather(t, i64([-1, 0]), -1)], x([4, 3])),
    "gather by 32-bit indices": of((t) => T.gather(t, typed("i32", [1, 1, 0])), x([4, 3])),
    "rows looked up twice": of((t, i) => T.gather(t, i), x([6, 2]), i64([5, 1, 5, 5, 0])),
    takeAlongAxis: of(
      (t) => [
        T.takeAlongAxis(
          t,
          i64([
            [0, 2],
            [1, 1],
          ]),
          1,
        ),
      ],
      x([2, 3]),
    ),
    scatter: of((t, u) => T.scatter(t, i64([[2, 0]]), u, { axis: 1 }), x([2, 3]), x([1, 2])),
    scatterAdd: of((t, u) => T.scatterAdd(t, i64([[1, 1, 2]]), u), x([1, 3]), x([1, 3])),
    "scatter by product and extremes": flat(
      (t, u) => (["mul", "max", "min"] as const).map((reduction) => T.scatter(t, i64([1, 1, 2]), u, { reduction })),
      x([3]),
      x([3]),
    ),
    gatherNd: of(
      (t) => [
        T.gatherNd(
          t,
          i64([
            [0, 1],
            [1, -1],
          ]),
        ),
        T.gatherNd(t, i64([[1], [0]]), 1),
      ],
      x([2, 3, 2]),
    ),
    scatterNd: of((t, u) => T.scatterNd(t, i64([[2], [0]]), u), x([3, 2]), x([2, 2])),
    "scatterNd with repeats": of(
      (t, u) => T.scatterNd(t, i64([[1], [1]]), u, { reduction: "add" }),
      x([3, 2]),
      x([2, 2]),
    ),
    oneHot: flat((i) => [T.oneHot(i, 4), T.oneHot(i, 3, { axis: 0, dtype: "i64" })], i64([0, 3, -1])),
    topK: of((t) => [T.topK(t, 2).values, T.topK(t, 1, 0, { largest: false }).values], apart([3, 4])),
    "indices of topK": flat((t) => [T.topK(t, 3).indices, T.topK(t, 2, 0).indices], apart([3, 4])),
    sort: of((t) => [T.sort(t).values, T.sort(t, 0, { descending: true }).values], apart([3, 4])),
    argSort: flat((t) => T.argSort(t), apart([3, 4])),
    "order of equals": flat((t) => [T.argSort(t), T.topK(t, 2).indices], f32(2, 1, 2, 1, 2)),
    "order of integers": flat((t) => T.sort(t).values, i64([2 ** 40, -3, 7])),
  },
};

const key = T.randomKey(7);

/** The hash is of integers, so that every device draws the same bits. */
const random: Family = {
  name: "random numbers",
  tolerance: 2e-5,
  cases: {
    uniform: flat((k) => T.uniform(k, [3, 4]), key),
    normal: { ...flat((k) => T.normal(k, [3, 4]), key), ...trigonometric },
    "normal, an odd number": { ...flat((k) => T.normal(k, [5]), key), ...trigonometric },
    gumbel: flat((k) => T.gumbel(k, [3, 4]), key),
    bernoulli: flat((k) => T.bernoulli(k, 0.3, [40]), key),
    "bernoulli of a tensor": flat((k, p) => T.bernoulli(k, p, [4, 5]), key, x([5], 0, 1)),
    dropout: of((t, k) => T.dropout(t, 0.4, k), x([5, 6]), key),
    foldIn: flat((k, n) => [T.foldIn(k, 3), T.foldIn(k, n)], key, typed("i64", [5]).reshape([])),
    splitKey: flat((k) => T.splitKey(k, 3), key),
    "double precision": flat((k) => T.uniform(k, [4], { dtype: "f64" }), key),
  },
};

export const tables: readonly Family[] = [reductions, products, quantized, shapes, named, indexing, random];
