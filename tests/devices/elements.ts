import * as T from "../../src/tensor/index.ts";
import { apart, type Family, f32, flat, i64, of, trigonometric, typed, x } from "./cases.ts";

const row = (low?: number, high?: number) => x([2, 5], low, high);
const kinked = apart([3, 4]);
const bits = (dtype: "i64" | "i32" | "u8" | "u32" | "u64") => typed(dtype, [0, 1, 5, 12, 100]);
const truth = (...values: number[]) => typed("bool", values);

const unary: Family = {
  name: "functions of one number",
  tolerance: 2e-5,
  cases: {
    neg: of(T.neg, row()),
    abs: of(T.abs, kinked),
    exp: of(T.exp, row(-3, 3)),
    log: of(T.log, row(0.1, 4)),
    sqrt: of(T.sqrt, row(0.1, 4)),
    reciprocal: of(T.reciprocal, row(0.3, 4)),
    rsqrt: of(T.rsqrt, row(0.3, 4)),
    erf: of(T.erf, row(-2, 2)),
    tanh: of(T.tanh, row(-3, 3)),
    "tanh far out": of(T.tanh, f32(-200, -50, 50, 200)),
    sigmoid: of(T.sigmoid, row(-5, 5)),
    sin: { ...of(T.sin, row(-6, 6)), ...trigonometric },
    cos: { ...of(T.cos, row(-6, 6)), ...trigonometric },
    tan: { ...of(T.tan, row(-1, 1)), ...trigonometric },
    asin: { ...of(T.asin, row(-0.9, 0.9)), ...trigonometric },
    acos: { ...of(T.acos, row(-0.9, 0.9)), ...trigonometric },
    atan: of(T.atan, row(-3, 3)),
    sinh: of(T.sinh, row(-2, 2)),
    cosh: of(T.cosh, row(-2, 2)),
    relu: of(T.relu, kinked),
    softplus: of(T.softplus, row(-5, 5)),
    floor: of(T.floor, row(-3, 3)),
    ceil: of(T.ceil, row(-3, 3)),
    round: of(T.round, f32(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4)),
    sign: of(T.sign, f32(-2, 0, 3)),
    "sign of integers": flat(T.sign, typed("i64", [-2, 0, 3])),
    identity: of(T.identity, row()),
    square: of(T.square, row()),
    log1p: of(T.log1p, row(-0.5, 3)),
    clip: of((t) => T.clip(t, -0.2, 0.3), kinked),
    "clip below": of((t) => T.clip(t, null, 0.1), kinked),
    isNaN: flat(T.isNaN, f32(1, Number.NaN, Infinity)),
    isInf: flat(T.isInf, f32(1, Number.NaN, Infinity, -Infinity)),
    not: flat(T.not, truth(0, 1, 1)),
    bitwiseNot: flat(T.bitwiseNot, bits("i32")),
    "integers one by one": flat((t) => [T.neg(t), T.abs(t), T.clip(t, -3, 2)], i64([-5, 0, 4])),
  },
};

const activations: Family = {
  name: "activations",
  tolerance: 2e-5,
  cases: {
    gelu: of((t) => T.gelu(t), row(-3, 3)),
    "gelu by tanh": of((t) => T.gelu(t, { approximate: "tanh" }), row(-3, 3)),
    quickGelu: of((t) => T.quickGelu(t), row(-3, 3)),
    silu: of(T.silu, row(-3, 3)),
    mish: of(T.mish, row(-3, 3)),
    "Mish of ONNX": of((t) => T.op("Mish", [t]), row(-3, 3)),
    softsign: of(T.softsign, kinked),
    relu2: of(T.relu2, kinked),
    leakyRelu: of((t) => T.leakyRelu(t, 0.1), kinked),
    elu: of((t) => T.elu(t, 0.7), kinked),
    selu: of(T.selu, kinked),
    celu: of((t) => T.celu(t, 0.7), kinked),
    thresholdedRelu: of((t) => T.thresholdedRelu(t, 0.11), kinked),
    hardSigmoid: of((t) => T.hardSigmoid(t), row(-4, 4)),
    hardSwish: of(T.hardSwish, row(-4, 4)),
    prelu: of((t, s) => T.prelu(t, s), kinked, x([4], 0.1, 0.5)),
  },
};

const binary: Family = {
  name: "functions of two numbers",
  tolerance: 2e-5,
  cases: {
    add: of(T.add, x([2, 3, 4]), x([3, 1])),
    sub: of(T.sub, x([3, 1]), x([2, 3, 4])),
    mul: of(T.mul, x([2, 3, 4]), x([4])),
    div: of(T.div, x([2, 3, 4]), x([3, 4], 0.5, 2)),
    pow: of(T.pow, row(0.2, 2), row(-2, 3)),
    "pow of negatives": of((t) => [T.pow(t, 2), T.pow(t, 3)], row(-2, 2)),
    maximum: of(T.maximum, kinked, x([3, 4])),
    minimum: of(T.minimum, kinked, x([4])),
    "max with a tie": of(T.maximum, f32(1, 2), f32(1, 3)),
    mod: of(T.mod, row(-5, 5), row(1, 2)),
    "mod of integers": flat(T.mod, i64([-7, 7, 8]), i64([3, 3, 4])),
    atan2: of(T.atan2, row(-2, 2), row(-2, 2)),
    where: of((a, b) => T.where(T.greater(a, 0), a, b), kinked, x([3, 4])),
    "when it holds": flat((a, b) => T.when(T.greater(T.sum(a), -1e9), () => T.mul(a, b), b), x([3, 4]), x([3, 4])),
    "when it does not": flat((a, b) => T.when(T.greater(T.sum(a), 1e9), () => T.mul(a, b), b), x([3, 4]), x([3, 4])),
    "where of bool": flat((a, b, c) => T.where(a, b, c), truth(0, 1, 0, 1), truth(0, 0, 1, 1), truth(1, 0, 1, 0)),
    "where of integers": flat((c, a, b) => T.where(c, a, b), truth(0, 1, 0), i64([1, 2, 3]), i64([2 ** 40, 5, -1])),
    comparisons: flat(
      (a, b) => [T.equal, T.greater, T.greaterEqual, T.less, T.lessEqual, T.notEqual].map((f) => f(a, b)),
      f32(1, 2, 3, Infinity),
      f32(2, 2, 1, 5),
    ),
    "comparisons of large integers": flat(
      (a, b) => [T.equal, T.greater, T.greaterEqual, T.less, T.lessEqual].map((f) => f(a, b)),
      i64([2 ** 40, 2 ** 40 + 1, -5]),
      i64([2 ** 40 + 1, 2 ** 40, -5]),
    ),
    logic: flat((a, b) => [T.and, T.or, T.xor].map((f) => f(a, b)), truth(0, 0, 1, 1), truth(0, 1, 0, 1)),
    bits: flat(
      (a, b) => [T.bitwiseAnd, T.bitwiseOr, T.bitwiseXor].map((f) => f(a, b)),
      bits("i32"),
      typed("i32", [3, 3, 3, 3, -1]),
    ),
    "bits of 64": flat(
      (a, b) => [T.bitwiseAnd, T.bitwiseXor].map((f) => f(a, b)),
      bits("u64"),
      typed("u64", [3, 3, 3, 3, 2 ** 40]),
    ),
    shifts: flat((a) => [T.shiftLeft(a, 3), T.shiftRight(a, 1)], bits("u32")),
    "shifts of 64": flat((a) => [T.shiftLeft(a, 40), T.shiftRight(a, 1)], bits("u64")),
    "integer arithmetic": flat(
      (a, b) => [T.add(a, b), T.sub(a, b), T.mul(a, b), T.div(a, b)],
      i64([2 ** 40, -7, 9]),
      i64([3, 2, -4]),
    ),
    "integer arithmetic in 32 bits": flat(
      (a, b) => [T.add(a, b), T.sub(a, b), T.mul(a, b), T.div(a, b)],
      typed("i32", [2 ** 20, -7, 9]),
      typed("i32", [3, 2, -4]),
    ),
  },
};

const casts: Family = {
  name: "casts",
  tolerance: 1e-6,
  cases: {
    "float to the others": flat(
      (t) => (["f64", "i64", "i32", "i8", "u8", "bool"] as const).map((d) => T.cast(t, d)),
      f32(0, 1.7, 3.5, 100.9),
    ),
    "negative float to signed": flat(
      (t) => (["i64", "i32", "i16", "i8"] as const).map((d) => T.cast(t, d)),
      f32(-1.7, -100.2),
    ),
    "through bfloat": { ...of((t) => T.cast(T.cast(t, "bf16"), "f32"), row(-2, 2)), tolerance: 1e-2 },
    "integers to the others": flat(
      (t) => (["f32", "f64", "i32", "u8", "bool"] as const).map((d) => T.cast(t, d)),
      i64([0, 1, 200]),
    ),
    "bool to the others": flat((t) => (["f32", "i64", "i32", "u8"] as const).map((d) => T.cast(t, d)), truth(0, 1)),
    "double precision": { ...of((t) => T.tanh(T.mul(T.exp(t), 1.1)), row().cast("f64")), tolerance: 1e-12 },
    "large integers": flat((t) => T.cast(T.add(t, 1), "i32"), i64([2 ** 30, -(2 ** 30)])),
  },
};

/** Which GPUs may refuse. */
export const halves: Family = {
  name: "half precision",
  tolerance: 2e-3,
  cases: {
    "as an intermediate": of((t) => T.cast(T.mul(T.cast(t, "f16"), 1.5), "f32"), row(-2, 2)),
    "as a result": flat((t) => T.cast(t, "f16"), row(-2, 2)),
    "as an argument": of((t) => T.cast(T.exp(t), "f32"), row(-2, 2).cast("f16")),
    products: of(T.matmul, x([3, 4]).cast("f16"), x([4, 2]).cast("f16")),
  },
};

export const elements: readonly Family[] = [unary, activations, binary, casts];
