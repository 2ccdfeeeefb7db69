import {
  ArgumentError,
  abs,
  add,
  argMax,
  asTensor,
  cast,
  concat,
  cumSum,
  div,
  HostTensor,
  less,
  max,
  mean,
  minimum,
  mul,
  neg,
  reshape,
  ShapeError,
  slice,
  sort,
  square,
  staticDim,
  sub,
  type Tensor,
  takeAlongAxis,
  where,
} from "../../../tensor/index.ts";
import { nearestLevel } from "./prox.ts";

/** Bits of a quantized parameter; 0 stands for ternary. */
export type LevelBits = 0 | 1 | 2 | 3 | 4;

/** How levels are found: greedy least squares, the least-squares optimum (ternary, 1 and 2 bits), or evenly spaced. */
export type LevelRule = "lsbq" | "lsbq-optimal" | "uniform";

/** Levels that `bits` give. */
export const levelCount = (bits: LevelBits): number => (bits === 0 ? 3 : 2 ** bits);

/** @throws ArgumentError for bits or a rule that do not exist, or not together. */
export function checkLevels(bits: number, rule: LevelRule): asserts bits is LevelBits {
  if (!Number.isInteger(bits) || bits < 0 || bits > 4)
    throw new ArgumentError(`bits must be 0 (ternary) or 1-4, not ${bits}`);
  if (!["lsbq", "lsbq-optimal", "uniform"].includes(rule))
    throw new ArgumentError(`levels are "lsbq", "lsbq-optimal" or "uniform", not "${rule}"`);
  if (rule === "lsbq-optimal" && bits > 2)
    throw new ArgumentError(
      `optimal LSBQ exists for ternary, 1 and 2 bits only, not for ${bits}; take "lsbq", which is greedy`,
    );
}

/**
 * The quantization levels of each row: `u [rows, n]` to `[rows, levels]`, in ascending order. Rows of zeros have levels of
 * zero; levels may repeat.
 * - `lsbq` is least-squares binary quantization (Jin et al. 2025, section 4; Pouransari et al. 2020): greedily
 *   `v_j = mean |r_j|` of what the bits before have left, levels being all `±v_1 ... ±v_b`; ternary takes `1.1 mean |u|`.
 * - `lsbq-optimal` is the optimum in squared error, which sorts the row.
 * - `uniform` spaces levels evenly around zero, up to the smaller of `bits * mean |u|` and `max |u|`.
 * @throws ArgumentError for bits and rules that do not go together
 */
export function levelsOf(u: Tensor, bits: LevelBits, rule: LevelRule = "lsbq"): Tensor {
  checkLevels(bits, rule);
  if (u.rank !== 2) throw new ShapeError(`levels are found for rows, [rows, n], not for a tensor of rank ${u.rank}`);
  if (bits === 0) return ternary(rule === "lsbq-optimal" ? keptMean(u) : mul(mean(abs(u), along), 1.1));
  if (rule === "uniform") return uniform(u, bits);
  if (rule === "lsbq-optimal" && bits === 2) return fromMagnitudes(twoMeans(u));
  return combinations(greedy(u, bits));
}

/**
 * Least-squares binary quantization of a tensor of any shape, or of each slice along its first axis (`axis: 0`; kernels
 * are flattened to `[out, in * k * k]`).
 * @returns levels `[levels]` or `[out, levels]`, and `u` at its nearest levels
 * @throws ArgumentError for bits outside of 0 to 4 and for `optimal` beyond 2 bits
 */
export function lsbq(
  u: Tensor,
  bits: LevelBits,
  { optimal = false, axis = null }: { optimal?: boolean; axis?: 0 | null } = {},
): { levels: Tensor; quantized: Tensor } {
  const rows = reshape(u, axis === 0 ? [staticDim(u, 0), -1] : [1, -1]);
  const levels = levelsOf(rows, bits, optimal ? "lsbq-optimal" : "lsbq");
  const quantized = reshape(nearestLevel(rows, levels), u.shape);
  return { levels: axis === 0 ? levels : reshape(levels, [levelCount(bits)]), quantized };
}

const along = { axes: 1, keepDims: true } as const;

/** The values `v_1 ... v_b`, `[rows, 1]` each. Sign(0) is +1 here, unlike ONNX's. */
function greedy(u: Tensor, bits: number): Tensor[] {
  const values: Tensor[] = [];
  let rest = u;
  for (let j = 0; j < bits; j++) {
    const v = mean(abs(rest), along);
    values.push(v);
    if (j < bits - 1) rest = add(rest, where(less(rest, 0), v, neg(v)));
  }
  return values;
}

/** All sums `±v_1 ... ±v_b`, sorted: `[rows, 2^b]`. */
function combinations(values: readonly Tensor[]): Tensor {
  const sums = values.reduce<Tensor[]>(
    (all, v) => (all.length === 0 ? [neg(v), v] : all.flatMap((s) => [sub(s, v), add(s, v)])),
    [],
  );
  const table = concat(sums, 1);
  // A later value may be larger than an earlier one, so that the signs do not tell the order.
  return values.length === 1 ? table : sort(table, 1).values;
}

const ternary = (a: Tensor): Tensor => concat([neg(a), mul(a, 0), a], 1);

/** Levels of which the magnitudes `[rows, 2]`, the smaller first, are known. */
function fromMagnitudes([small, large]: readonly [Tensor, Tensor]): Tensor {
  return concat([neg(large), neg(small), small, large], 1);
}

function uniform(u: Tensor, bits: number): Tensor {
  const magnitudes = abs(u);
  const top = minimum(mul(mean(magnitudes, along), bits), max(magnitudes, along));
  const half = 2 ** (bits - 1);
  const places = HostTensor.from([Array.from({ length: 2 * half }, (_, k) => k - half + 0.5)]);
  return mul(div(top, half - 0.5), places);
}

interface Sorted {
  /** Magnitudes in ascending order, `f64 [rows, n]`. */
  readonly sorted: Tensor;
  /** `f64 [rows, n]`: sums of the 1, 2, ... smallest magnitudes. */
  readonly sums: Tensor;
  /** `f64 [n]`: 1, 2, ... */
  readonly counts: HostTensor;
  readonly n: number;
}

function sortedSums(u: Tensor): Sorted {
  const n = staticDim(u, 1);
  const sorted = cast(sort(abs(u), 1).values, "f64");
  const sums = cumSum(sorted, 1);
  return { sorted, sums, counts: HostTensor.from(Float64Array.from({ length: n }, (_, i) => i + 1)), n };
}

/**
 * The optimal ternary scale: keeping the `k` largest magnitudes at their mean takes `(their sum)^2 / k` off the squared
 * error, and the best `k` makes exactly those entries nearer to the mean than to zero.
 */
function keptMean(u: Tensor): Tensor {
  const { sorted, sums, counts, n } = sortedSums(u);
  const total = slice(sums, 1, n - 1);
  const kept = add(sub(total, sums), sorted);
  const howMany = sub(n + 1, asTensor(counts));
  const best = argMax(div(square(kept), howMany), 1, { keepDims: true });
  return cast(takeAlongAxis(div(kept, howMany), best, 1), u.dtype);
}

/**
 * Means of the smaller and the larger magnitudes under the split with the least squared error, which is the optimum of
 * `±v_1 ±v_2` with `v_1, v_2` half their sum and half their difference.
 */
function twoMeans(u: Tensor): readonly [Tensor, Tensor] {
  const { sums, counts, n } = sortedSums(u);
  const total = slice(sums, 1, n - 1);
  const low = div(sums, counts);
  const others = sub(n, asTensor(counts));
  // Nothing is left behind the last split.
  const high = where(less(others, 0.5), low, div(sub(total, sums), where(less(others, 0.5), 1, others)));
  const gain = add(mul(square(low), counts), mul(square(high), others));
  const best = argMax(gain, 1, { keepDims: true });
  const take = (x: Tensor): Tensor => cast(takeAlongAxis(x, best, 1), u.dtype);
  return [take(low), take(high)];
}
