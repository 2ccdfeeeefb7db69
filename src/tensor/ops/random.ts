import { type Dim, divideDims, formatShape, type Shape, sizeOf } from "../dims.ts";
import { type DType, isFloat } from "../dtype.ts";
import { ArgumentError, callerLine, DTypeError, ShapeError } from "../errors.ts";
import { HostTensor } from "../host.ts";
import { asTensor, constant, type Tensor, type TensorLike } from "../tensor.ts";
import {
  add,
  bitwiseOr,
  bitwiseXor,
  cast,
  cos,
  greaterEqual,
  less,
  log,
  mul,
  neg,
  shiftRight,
  sin,
  sqrt,
} from "./elementwise.ts";
import { fill, iota } from "./fill.ts";
import { concat, reshape, split, unsqueeze } from "./shape.ts";
import { slice } from "./slice.ts";

/*
 * Random numbers without state: element i of a draw is a hash of i under a key. The hash is SplitMix64 (Steele, Lea and
 * Flood 2014) with its multipliers by Stafford: a key is where a sequence of 64-bit numbers starts and the odd step it
 * takes, and each number is mixed by itself. A hash of 64 bits makes two numbers of 32 bits, which halves its cost;
 * it is made of integer operations that onnxruntime has on the CPU and in WebAssembly, exact and equal everywhere.
 */

const GOLDEN = 0x9e3779b97f4a7c15n;
const MIX = [0xbf58476d1ce4e5b9n, 0x94d049bb133111ebn] as const;
/** What the start and the step of a key move by from one derived key to the next. */
const DERIVE = [GOLDEN, 0xd1342543de82ef95n] as const;

const words = (...values: bigint[]): HostTensor =>
  new HostTensor(
    "u64",
    [values.length],
    BigUint64Array.from(values, (v) => BigInt.asUintN(64, v)),
  );

const word = (value: bigint): Tensor => constant(words(value));

function mixOnHost(value: bigint): bigint {
  const cut = (v: bigint): bigint => BigInt.asUintN(64, v);
  let z = cut(value);
  z = cut((z ^ (z >> 30n)) * MIX[0]);
  z = cut((z ^ (z >> 27n)) * MIX[1]);
  return z ^ (z >> 32n);
}

/**
 * The key `[start, step]` (`u64 [2]`) of a seed, to be fed to a compiled program: a fresh one per step gives fresh
 * noise from the same graph. Neighbouring seeds give unrelated keys.
 * @param seed a whole number, exactly representable.
 */
export function randomKey(seed: number): HostTensor {
  if (!Number.isSafeInteger(seed)) throw new ArgumentError(`a seed is a whole number below 2^53, not ${seed}`);
  const [first, second] = DERIVE.map((d) => mixOnHost((BigInt(seed) + 1n) * d)) as [bigint, bigint];
  return words(first, second | 1n);
}

function keyOf(key: TensorLike): Tensor {
  const t = asTensor(key, { dtype: "u64", shape: [2] });
  if (t.dtype !== "u64" || t.rank !== 1 || t.shape[0] !== 2)
    throw new (t.dtype === "u64" ? ShapeError : DTypeError)(
      `a random key is u64 [2], as randomKey(seed) makes it, not ${t.dtype} ${formatShape(t.shape)}${callerLine()}`,
    );
  return t;
}

/** Mixes each number by itself; what is left to do is to fold the upper half, returned too, onto the lower. */
function mix(z: Tensor): { product: Tensor; upper: Tensor } {
  const folded = (t: Tensor, by: bigint): Tensor => bitwiseXor(t, shiftRight(t, word(by)));
  const product = mul(folded(mul(folded(z, 30n), word(MIX[0])), 27n), word(MIX[1]));
  return { product, upper: shiftRight(product, word(32n)) };
}

/** `count` numbers of the sequence of `key`, mixed. */
function hashes(key: Tensor, count: Dim, sources: readonly Tensor[]): { product: Tensor; upper: Tensor } {
  const [start, step] = [slice(key, 0, 0, 1), slice(key, 0, 1, 2)];
  return mix(add(mul(cast(iota(count, sources), "u64"), step), start));
}

/** Two vectors of random 32-bit numbers (`u32 [count]`) that are independent of each other. */
function twoWords(key: Tensor, count: Dim, sources: readonly Tensor[]): [Tensor, Tensor] {
  const { product, upper } = hashes(key, count, sources);
  return [cast(upper, "u32"), cast(bitwiseXor(product, upper), "u32")];
}

/** Half of the elements of `shape`, or undefined where they do not halve. */
const halfOf = (shape: Shape): Dim | undefined => divideDims(sizeOf(shape), 2);

/** Random 32-bit numbers: `u32` of any shape. */
function bits32(key: Tensor, shape: Shape, sources: readonly Tensor[]): Tensor {
  const half = halfOf(shape);
  const flat = half === undefined ? twoWords(key, sizeOf(shape), sources)[0] : concat(twoWords(key, half, sources), 0);
  return reshape(flat, shape, sources);
}

/** Bits of the significand, the leading one included. */
const PRECISION: Partial<Record<DType, number>> = { f64: 53, f32: 24, f16: 11, bf16: 8 };

/**
 * Equally spaced fractions of one, as many as the element type tells apart: from 0 to below 1 or, when `open`, midway
 * between those of half as many, never 0 nor 1.
 */
function fractions(key: Tensor, shape: Shape, dtype: DType, open: boolean, sources: readonly Tensor[]): Tensor {
  const precision = PRECISION[dtype];
  if (precision === undefined)
    throw new DTypeError(`random fractions are floating-point numbers, not ${dtype}${callerLine()}`);
  const kept = open ? precision - 1 : precision;
  let grid: Tensor;
  if (dtype === "f64") {
    const { product, upper } = hashes(key, sizeOf(shape), sources);
    const whole = shiftRight(bitwiseXor(product, upper), word(BigInt(64 - kept)));
    grid = reshape(cast(whole, "f64"), shape, sources);
  } else {
    grid = cast(shiftRight(bits32(key, shape, sources), 32 - kept), "f32");
  }
  return cast(mul(open ? add(grid, 0.5) : grid, 2 ** -kept), dtype);
}

/** How a draw is shaped. */
export interface DrawOptions {
  /** Floating-point element type; default `f32`. */
  readonly dtype?: DType;
  /** Tensors in whose shapes the names in the draw's shape are looked up. */
  readonly sources?: readonly Tensor[];
}

/** Uniform random numbers from 0 to below 1, at all fractions that the type spaces equally (2^24 in `f32`). */
export function uniform(key: TensorLike, shape: Shape, { dtype = "f32", sources = [] }: DrawOptions = {}): Tensor {
  return fractions(keyOf(key), shape, dtype, false, sources);
}

/**
 * Standard normal random numbers, in pairs by the transformation of Box and Muller (1958); they reach out to 6.7
 * standard deviations.
 */
export function normal(key: TensorLike, shape: Shape, { dtype = "f32", sources = [] }: DrawOptions = {}): Tensor {
  if (!isFloat(dtype)) throw new DTypeError(`normal random numbers are floating-point, not ${dtype}${callerLine()}`);
  const half = halfOf(shape);
  const [first, second] = twoWords(keyOf(key), half ?? sizeOf(shape), sources);
  const wide = dtype === "f64" ? "f64" : "f32";
  const radius = sqrt(mul(log(mul(add(cast(first, wide), 0.5), 2 ** -32)), -2));
  const angle = mul(cast(second, wide), 2 * Math.PI * 2 ** -32);
  const across = mul(radius, cos(angle));
  const flat = half === undefined ? across : concat([across, mul(radius, sin(angle))], 0);
  return cast(reshape(flat, shape, sources), dtype);
}

/**
 * Standard Gumbel random numbers `-log(-log(u))`: the largest of `logits + gumbel` along an axis is a sample of
 * `softmax(logits)`. In `f32` they lie between -2.9 and 16.7.
 */
export function gumbel(key: TensorLike, shape: Shape, { dtype = "f32", sources = [] }: DrawOptions = {}): Tensor {
  const wide = dtype === "f16" || dtype === "bf16" ? "f32" : dtype;
  return cast(neg(log(neg(log(fractions(keyOf(key), shape, wide, true, sources))))), dtype);
}

/** The 32-bit number that a fraction `p` (0 < p < 1) of all lie below. */
const thresholdOf = (p: number): number => Math.min(2 ** 32 - 1, Math.max(1, Math.round(p * 2 ** 32)));

/** True with probability `p` (a number, or a floating-point tensor that broadcasts to `shape`): `bool`. */
export function bernoulli(
  key: TensorLike,
  p: TensorLike,
  shape: Shape,
  { sources = [] }: Pick<DrawOptions, "sources"> = {},
): Tensor {
  const from = keyOf(key);
  if (typeof p !== "number") {
    const chance = asTensor(p);
    return less(fractions(from, shape, chance.dtype, false, [...sources, chance]), chance);
  }
  if (!(p >= 0 && p <= 1)) throw new ArgumentError(`a probability lies between 0 and 1, not at ${p}${callerLine()}`);
  if (p === 0 || p === 1) return fill(p, shape, "bool", sources);
  return less(bits32(from, shape, sources), thresholdOf(p));
}

/**
 * Dropout (Srivastava et al. 2014): each element of `x` becomes 0 with probability `rate`, the others are scaled so
 * that the mean stays. A rate of 0 returns `x` itself.
 */
export function dropout(x: TensorLike, rate: number, key: TensorLike): Tensor {
  const t = asTensor(x);
  if (!(rate >= 0 && rate < 1))
    throw new ArgumentError(`a dropout rate is at least 0 and below 1, not ${rate}${callerLine()}`);
  if (rate === 0) return t;
  const threshold = thresholdOf(rate);
  const kept = greaterEqual(bits32(keyOf(key), t.shape, [t]), threshold);
  return mul(t, mul(cast(kept, t.dtype), 1 / (1 - threshold / 2 ** 32)));
}

/** Keys `[..., 2]` that belong to whole numbers `[..., 1]` under `key`. */
function derive(key: Tensor, numbers: Tensor): Tensor {
  const { product, upper } = mix(add(mul(add(numbers, 1), constant(words(...DERIVE))), key));
  // The step must be odd, or the sequence would not visit every number.
  return bitwiseOr(bitwiseXor(product, upper), constant(words(0n, 1n)));
}

/**
 * The key that belongs to the whole number `data` under `key`: one per layer, step or sample. Use a key either to draw
 * or to derive others from.
 */
export function foldIn(key: TensorLike, data: TensorLike): Tensor {
  const number = asTensor(data, { dtype: "i64", shape: [] });
  if (isFloat(number.dtype) || number.dtype === "bool")
    throw new DTypeError(`a key is derived with a whole number, not with ${number.dtype}${callerLine()}`);
  return derive(keyOf(key), cast(reshape(number, [1]), "u64"));
}

/** `count` keys derived from one: `foldIn(key, 0)`, `foldIn(key, 1)`, ... */
export function splitKey(key: TensorLike, count: number): Tensor[] {
  if (!Number.isInteger(count) || count < 1)
    throw new ArgumentError(`a key is split into one or more keys, not ${count}${callerLine()}`);
  const keys = derive(keyOf(key), cast(unsqueeze(iota(count), 1), "u64"));
  return split(keys, count, 0).map((k) => reshape(k, [2]));
}
