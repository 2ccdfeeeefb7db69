import { broadcastShapes, type Dim, divideDims, formatShape, multiplyDims, type Shape, sameShape } from "../dims.ts";
import { type DType, isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import {
  type Attrs,
  asTensor,
  defineOp,
  ints,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
  type TensorType,
  within,
} from "../tensor.ts";
import { add, and, cast, greater, lessEqual, mul, sub, tanh, where } from "./elementwise.ts";
import { dimOf, iota, shapeTensor } from "./fill.ts";
import { matmul } from "./linalg.ts";
import { softmax } from "./reduce.ts";
import { concat, transpose, unsqueeze } from "./shape.ts";

// ------------------------------------------------------------------------------------------------------- masks

/**
 * What is added to the score of a key that must not be seen. Finite, so that masks add up and a query that sees
 * nothing gets a meaningless mixture instead of NaN; its exponential beside any real score is exactly 0.
 */
const hidden = (dtype: DType): number => (dtype === "f16" ? -3e4 : -1e30);

/** A boolean mask as an addition to scores; floating-point masks are one already. */
function additive(mask: Tensor, dtype: DType): Tensor {
  if (mask.dtype === "bool")
    return where(mask, asTensor(0, { dtype, shape: [] }), asTensor(hidden(dtype), { dtype, shape: [] }));
  if (!isFloat(mask.dtype)) throw new DTypeError(`a mask is bool (true: seen) or floating-point, not ${mask.dtype}`);
  return cast(mask, dtype);
}

export interface CausalMaskOptions {
  /** Positions that a query sees back, itself included; default all. */
  readonly window?: number;
  /** Element type of the scores; default `f32`. */
  readonly dtype?: DType;
  /** Tensors in whose shapes the names among the dimensions are looked up. */
  readonly sources?: readonly Tensor[];
}

/**
 * The addition `[seq, kvSeq]` that hides later keys from earlier queries. The last query stands at the last key, so
 * that `kvSeq - seq` keys of a cache are seen by all. Made of indices: with known dimensions onnxruntime folds it into
 * one constant that all layers share, and exported files stay small.
 */
export function causalMask(
  seq: Dim,
  kvSeq: Dim,
  { window, dtype = "f32", sources = [] }: CausalMaskOptions = {},
): Tensor {
  if (typeof seq === "number" && typeof kvSeq === "number" && kvSeq < seq)
    throw new ShapeError(`causal attention needs a key for each query: ${kvSeq} keys are fewer than ${seq} queries`);
  const before = sub(shapeTensor([kvSeq], sources), shapeTensor([seq], sources));
  return visibleWithin(seq, kvSeq, before, { window, dtype, sources });
}

/** The same with the number of keys before the first query given (`i64 [1]`). */
function visibleWithin(
  seq: Dim,
  kvSeq: Dim,
  before: Tensor,
  { window, dtype = "f32", sources = [] }: { [K in keyof CausalMaskOptions]?: CausalMaskOptions[K] | undefined },
): Tensor {
  if (window !== undefined && (!Number.isInteger(window) || window < 1))
    throw new ArgumentError(`an attention window is a whole number from 1, not ${window}`);
  const keys = iota(kvSeq, sources);
  const queries = unsqueeze(add(iota(seq, sources), before), 1);
  const past = lessEqual(keys, queries);
  const seen = window === undefined ? past : and(past, greater(keys, sub(queries, window)));
  return additive(seen, dtype);
}

// --------------------------------------------------------------------------------------------------- attention

export interface AttentionOptions {
  /**
   * What each query sees: `bool` (true: seen) or floating-point, added to the scores; any shape that broadcasts to
   * `[batch, heads, seq, kvSeq]`.
   */
  readonly mask?: TensorLike;
  /** Hide later keys; the last query stands at the last key (see `causalMask`). */
  readonly causal?: boolean;
  /** With `causal`: positions that a query sees back, itself included. */
  readonly window?: number;
  /** Scores are multiplied by this; default one over the root of the head's width. */
  readonly scale?: number;
  /** Scores become `softcap * tanh(score / softcap)` before masks are added (Gemma 2). */
  readonly softcap?: number;
}

interface Sizes {
  readonly heads: number;
  readonly kvHeads: number;
  readonly seq: Dim;
  readonly kvSeq: Dim;
  readonly dim: number;
}

function sizesOf(q: Tensor, k: Tensor): Sizes {
  if (!isFloat(q.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${q.dtype}`);
  if (q.dtype !== k.dtype)
    throw new DTypeError(`its inputs differ in element type (${q.dtype} and ${k.dtype}); cast one of them`);
  if (q.rank !== 4 || k.rank !== 4)
    throw new ShapeError(
      `queries and keys must be [batch, heads, seq, dim], not ${formatShape(q.shape)} and ${formatShape(k.shape)}`,
    );
  if (q.shape[0] !== k.shape[0])
    throw new ShapeError(`queries have a batch of ${q.shape[0]}, keys one of ${k.shape[0]}`);
  if (q.shape[3] !== k.shape[3])
    throw new ShapeError(`a query head has ${q.shape[3]} numbers, a key head ${k.shape[3]}`);
  const [heads, kvHeads] = [staticDim(q, 1), staticDim(k, 1)];
  if (heads % kvHeads !== 0) throw new ShapeError(`${heads} query heads do not share ${kvHeads} key heads equally`);
  return { heads, kvHeads, seq: q.shape[2]!, kvSeq: k.shape[2]!, dim: staticDim(q, 3) };
}

function checkValues(k: Tensor, v: Tensor): void {
  if (v.dtype !== k.dtype)
    throw new DTypeError(`its inputs differ in element type (${k.dtype} and ${v.dtype}); cast one of them`);
  if (v.rank !== 4 || !sameShape(v.shape.slice(0, 3), k.shape.slice(0, 3)))
    throw new ShapeError(`values ${formatShape(v.shape)} do not belong to keys ${formatShape(k.shape)}`);
}

/** Everything that is added to the scores, in one tensor small enough to broadcast; undefined where nothing is. */
function biasOf(q: Tensor, k: Tensor, { heads, seq, kvSeq }: Sizes, options: AttentionOptions): Tensor | undefined {
  const { mask, causal = false, window } = options;
  if (window !== undefined && !causal) throw new ArgumentError("an attention window needs causal: true");
  const given = mask === undefined ? undefined : additive(asTensor(mask), q.dtype);
  if (given) {
    const full = [q.shape[0]!, heads, seq, kvSeq];
    const shape = broadcastShapes(given.shape, full);
    if (!shape || !sameShape(shape, full))
      throw new ShapeError(`the mask ${formatShape(given.shape)} does not broadcast to ${formatShape(full)}`);
  }
  // A single query at the last key sees everything before it.
  if (!causal || (seq === 1 && window === undefined)) return given;
  const order = causalMask(seq, kvSeq, { ...(window !== undefined && { window }), dtype: q.dtype, sources: [q, k] });
  return given ? add(order, given) : order;
}

/** `x` under a shape in which 0 keeps a dimension; names are looked up in `sources`. */
const regroup = (x: Tensor, shape: Shape, sources: readonly Tensor[] = []): Tensor =>
  op("Reshape", [x, shapeTensor(shape, sources)]);

/**
 * Probabilities `[batch, kvHeads, group * seq, kvSeq]`: the queries of all heads that share a key head lie one below
 * the other, so that each key head takes part in a single product and nothing is copied.
 */
function groupedWeights(q: Tensor, k: Tensor, sizes: Sizes, options: AttentionOptions): Tensor {
  const { heads, kvHeads, seq, dim } = sizes;
  const { scale = 1 / Math.sqrt(dim), softcap } = options;
  if (softcap !== undefined && !(softcap > 0)) throw new ArgumentError(`softcap must be positive, not ${softcap}`);
  const group = heads / kvHeads;
  const scaled = mul(q, scale);
  const queries = group === 1 ? scaled : regroup(scaled, [0, kvHeads, -1, dim]);
  let scores = matmul(queries, transpose(k));
  if (softcap !== undefined) scores = mul(tanh(mul(scores, 1 / softcap)), softcap);
  const bias = biasOf(q, k, sizes, options);
  if (!bias) return softmax(scores);
  if (group === 1) return softmax(add(scores, bias));
  const weights = softmax(add(regroup(scores, [0, heads, seq, 0], [q]), bias));
  return regroup(weights, [0, kvHeads, multiplyDims(group, seq), 0], [q]);
}

/** Attention probabilities `[batch, heads, seq, kvSeq]` of `scaledDotProductAttention`. */
export function attentionWeights(q: TensorLike, k: TensorLike, options: AttentionOptions = {}): Tensor {
  return within("attentionWeights", [q, k], () => {
    const [queries, keys] = [asTensor(q), asTensor(k)];
    const sizes = sizesOf(queries, keys);
    const weights = groupedWeights(queries, keys, sizes, options);
    return sizes.heads === sizes.kvHeads ? weights : regroup(weights, [0, sizes.heads, sizes.seq, 0], [queries]);
  });
}

/**
 * Attention (Vaswani et al. 2017, equation 1): `softmax(q k' * scale + mask) v`, with `q [batch, heads, seq, dim]`,
 * `k [batch, kvHeads, kvSeq, dim]` and `v [batch, kvHeads, kvSeq, valueDim]`, giving `[batch, heads, seq, valueDim]`.
 * Where `heads` is a multiple of `kvHeads`, neighbouring query heads share a key head (Ainslie et al. 2023).
 * @throws ShapeError, DTypeError where the inputs do not belong together; ArgumentError for a bad option.
 */
export function scaledDotProductAttention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: AttentionOptions = {},
): Tensor {
  return within("scaledDotProductAttention", [q, k, v], () => {
    const [queries, keys, values] = [asTensor(q), asTensor(k), asTensor(v)];
    const sizes = sizesOf(queries, keys);
    checkValues(keys, values);
    const mixed = matmul(groupedWeights(queries, keys, sizes, options), values);
    return sizes.heads === sizes.kvHeads ? mixed : regroup(mixed, [0, sizes.heads, -1, staticDim(values, 3)]);
  });
}

// ------------------------------------------------------------------------------------ the standard's operation

interface AttentionInputs {
  readonly q: Tensor;
  /** All keys and values, cached ones first. */
  readonly k: Tensor;
  readonly v: Tensor;
  readonly mask: Tensor | null | undefined;
  /** Number of cached keys, `i64 [1]`. */
  readonly cached: Tensor;
  /** Whether heads lie side by side, `[batch, seq, heads * dim]`. */
  readonly merged: boolean;
}

/** Heads of `[batch, seq, heads * dim]`, as `[batch, heads, seq, dim]`. */
function separate(x: Tensor, heads: unknown): Tensor {
  if (x.rank === 4) return x;
  if (x.rank !== 3) throw new ShapeError(`its inputs have 3 or 4 dimensions, not ${formatShape(x.shape)}`);
  if (typeof heads !== "number" || heads < 1)
    throw new ArgumentError("inputs [batch, seq, heads * dim] need q_num_heads and kv_num_heads");
  if (divideDims(x.shape[2]!, heads) === undefined)
    throw new ShapeError(`${x.shape[2]} numbers do not make up ${heads} heads`);
  return transpose(op("Reshape", [x, ints([0, 0, heads, -1])]), [0, 2, 1, 3]);
}

function attentionInputs(inputs: readonly (Tensor | null)[], attrs: Attrs): AttentionInputs {
  const [q, k, v, mask, pastK, pastV] = inputs as readonly [Tensor, Tensor, Tensor, ...(Tensor | null | undefined)[]];
  if (((pastK ?? null) === null) !== ((pastV ?? null) === null))
    throw new ArgumentError("past keys and past values are given both or neither");
  const extended = (past: Tensor | null | undefined, now: Tensor): Tensor => {
    const heads = separate(now, attrs.kv_num_heads);
    return past ? concat([past, heads], 2) : heads;
  };
  return {
    q: separate(q, attrs.q_num_heads),
    k: extended(pastK, k),
    v: extended(pastV, v),
    mask,
    cached: pastK ? dimOf(pastK, 2) : ints([0]),
    merged: q.rank === 3,
  };
}

/** The standard counts queries from the end of the cache, not back from the last key. */
function expandAttention(inputs: readonly (Tensor | null)[], attrs: Attrs, outputCount: number): readonly Tensor[] {
  const { q, k, v, mask, cached, merged } = attentionInputs(inputs, attrs);
  const { scale, softcap, is_causal } = attrs as { scale?: number; softcap?: number; is_causal?: number };
  const sources = [q, k];
  const order =
    is_causal === 1 ? visibleWithin(q.shape[2]!, k.shape[2]!, cached, { dtype: q.dtype, sources }) : undefined;
  const seen = mask ? additive(mask, q.dtype) : undefined;
  const whole = order && seen ? add(order, seen) : (order ?? seen);
  const mixed = scaledDotProductAttention(q, k, v, {
    ...(whole && { mask: whole }),
    ...(scale !== undefined && { scale }),
    ...(softcap && { softcap }),
  });
  const width = multiplyDims(mixed.shape[1]!, mixed.shape[3]!) as number;
  const y = merged ? op("Reshape", [transpose(mixed, [0, 2, 1, 3]), ints([0, 0, width])]) : mixed;
  return [y, k, v].slice(0, outputCount);
}

/** Outputs: the result, then all keys and values. The scores, its fourth output in ONNX, are not offered. */
defineOp({
  name: "Attention",
  nonstandard: true,
  attrs: {
    is_causal: "int",
    kv_num_heads: "int",
    q_num_heads: "int",
    scale: "float",
    softcap: "float",
    softmax_precision: "int",
  },
  arity: [3, 6],
  infer: ({ inputs, attrs, outputCount, input }): readonly TensorType[] => {
    for (const i of [0, 1, 2]) input(i);
    if (outputCount > 3) throw new ArgumentError("its fourth output, the scores, is not supported");
    return expandAttention(inputs, attrs, outputCount);
  },
  expand: expandAttention,
});
