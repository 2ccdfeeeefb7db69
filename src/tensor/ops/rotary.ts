import { type Dim, formatShape, sameShape } from "../dims.ts";
import { type DType, isFloat } from "../dtype.ts";
import { ArgumentError, DTypeError, GraphError, ShapeError } from "../errors.ts";
import { HostTensor } from "../host.ts";
import { knownNumbers } from "../known.ts";
import {
  type Attrs,
  asTensor,
  defineOp,
  ints,
  isTensor,
  op,
  staticDim,
  type Tensor,
  type TensorLike,
  within,
} from "../tensor.ts";
import { add, cast, cos as cosine, mul, neg, sin as sine } from "./elementwise.ts";
import { iota } from "./fill.ts";
import { gather } from "./gather.ts";
import { concat, split, unsqueeze } from "./shape.ts";
import { slice } from "./slice.ts";

// ------------------------------------------------------------------------------------------------- the angles

/** How the frequencies are slowed down for contexts longer than the one trained on. */
export type RotaryScaling =
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalPositions: number;
    }
  /** Each of the `dim / 2` frequencies is divided by its own factor. */
  | { readonly type: "factors"; readonly factors: readonly number[] };

export interface RotaryOptions {
  /** Ratio of the lowest to the highest wavelength; default 10,000. */
  readonly base?: number;
  readonly scaling?: RotaryScaling | null;
  /** Element type of the table; default `f32`. */
  readonly dtype?: DType;
}

/**
 * The `dim / 2` angular frequencies, in radians per position, at which pairs of a head's numbers turn
 * (Su et al. 2021, "RoFormer", section 3.2.2; the scaling called llama3 is that of Llama 3.1's release).
 */
export function rotaryFrequencies(dim: number, { base = 10000, scaling = null }: RotaryOptions = {}): Float64Array {
  if (!Number.isInteger(dim) || dim < 2 || dim % 2 !== 0)
    throw new ArgumentError(`rotary positions turn pairs of numbers: the dimension must be even, not ${dim}`);
  const plain = Float64Array.from({ length: dim / 2 }, (_, i) => base ** ((-2 * i) / dim));
  if (!scaling) return plain;
  if (scaling.type === "factors") {
    const { factors } = scaling;
    if (factors.length !== plain.length)
      throw new ArgumentError(
        `${factors.length} factors were given for the ${plain.length} frequencies of ${dim} numbers`,
      );
    return plain.map((f, i) => f / factors[i]!);
  }
  const { factor } = scaling;
  if (scaling.type === "linear") return plain.map((f) => f / factor);
  const { lowFrequencyFactor: low, highFrequencyFactor: high, originalPositions } = scaling;
  return plain.map((f) => {
    // Turns within the context trained on: many stay, few are slowed down, those in between are blended.
    const turns = (originalPositions * f) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return f * (kept + (1 - kept) / factor);
  });
}

/** Cosines and sines of the angles by which positions turn pairs: `[positions, dim / 2]` each. */
export interface RotaryTable<T = HostTensor> {
  readonly cos: T;
  readonly sin: T;
}

/**
 * The table of the positions 0 to below `positions`, on the host; or, for a tensor of positions (whole numbers, any
 * shape), its rows computed in the graph.
 */
export function rotaryTable(positions: number, dim: number, options?: RotaryOptions): RotaryTable;
export function rotaryTable(positions: Tensor, dim: number, options?: RotaryOptions): RotaryTable<Tensor>;
export function rotaryTable(
  positions: number | Tensor,
  dim: number,
  options: RotaryOptions = {},
): RotaryTable<HostTensor | Tensor> {
  const frequencies = rotaryFrequencies(dim, options);
  const { dtype = "f32" } = options;
  if (isTensor(positions)) {
    const wide = dtype === "f64" ? "f64" : "f32";
    const angle = mul(unsqueeze(cast(positions, wide), -1), HostTensor.from(frequencies).cast(wide));
    return { cos: cast(cosine(angle), dtype), sin: cast(sine(angle), dtype) };
  }
  const table = (f: (angle: number) => number): HostTensor => {
    const values = new Float64Array(positions * frequencies.length);
    for (let i = 0; i < values.length; i++)
      values[i] = f(Math.floor(i / frequencies.length) * frequencies[i % frequencies.length]!);
    return HostTensor.from(values, { shape: [positions, frequencies.length] }).cast(dtype);
  };
  return { cos: table(Math.cos), sin: table(Math.sin) };
}

// ----------------------------------------------------------------------------------------------- the rotation

/** How a head's numbers lie in the input of a rotation. */
interface Heads {
  /** Numbers of a head, and those of them that are turned. */
  readonly dim: number;
  readonly turned: number;
  /** Number of heads where the input is `[batch, seq, heads * dim]`; absent for `[batch, heads, seq, dim]`. */
  readonly merged: number | undefined;
  readonly batch: Dim;
  readonly seq: Dim;
}

function headsOf(x: Tensor, cos: Tensor, sin: Tensor, attrs: Attrs): Heads {
  if (!isFloat(x.dtype)) throw new DTypeError(`it takes floating-point numbers, not ${x.dtype}`);
  if (cos.dtype !== x.dtype || sin.dtype !== x.dtype)
    throw new DTypeError(`its tables must be ${x.dtype} as its input, not ${cos.dtype} and ${sin.dtype}`);
  if (cos.rank < 2 || !sameShape(cos.shape, sin.shape))
    throw new ShapeError(
      `cosines and sines must be [positions, pairs] both, not ${formatShape(cos.shape)} and ${formatShape(sin.shape)}`,
    );
  if (x.rank !== 3 && x.rank !== 4)
    throw new ShapeError(`it takes [batch, heads, seq, dim] or [batch, seq, heads * dim], not ${formatShape(x.shape)}`);
  const width = 2 * staticDim(cos, -1);
  const last = staticDim(x, -1);
  const partial = (attrs.rotary_embedding_dim as number | undefined) || undefined;
  const count = (attrs.num_heads as number | undefined) || (partial ? undefined : last / width);
  const merged = x.rank === 3 ? count : undefined;
  if (x.rank === 3 && (merged === undefined || !Number.isInteger(merged) || last % merged !== 0))
    throw new ShapeError(`${last} numbers do not make up heads; say how many there are, or give tables of their width`);
  const dim = merged === undefined ? last : last / merged;
  if (width !== (partial ?? dim) || width > dim)
    throw new ShapeError(
      `tables of ${width / 2} pairs turn ${width} numbers of a head, but ${partial ?? dim} of ${dim} are to be turned`,
    );
  return { dim, turned: width, merged, batch: x.shape[0]!, seq: x.shape[x.rank === 3 ? 1 : 2]! };
}

/** `x` turned by the angles of each of its positions: `cos` and `sin` are `[seq, pairs]` or `[batch, seq, pairs]`. */
function turn(x: Tensor, cos: Tensor, sin: Tensor, { dim, turned, merged }: Heads, interleaved: boolean): Tensor {
  const heads = merged === undefined ? x : op("Reshape", [x, ints([0, 0, merged, dim])]);
  const pairs = turned / 2;
  // Each number times its cosine, plus its partner times its sine, negative for the first of a pair.
  const spread = (first: Tensor, second: Tensor): Tensor => {
    const wide = interleaved
      ? op("Reshape", [
          concat([unsqueeze(first, -1), unsqueeze(second, -1)], -1),
          ints([...first.shape.slice(0, -1).map(() => 0), turned]),
        ])
      : concat([first, second], -1);
    if (merged !== undefined) return unsqueeze(wide, -2);
    return wide.rank === 3 ? unsqueeze(wide, 1) : wide;
  };
  const [head, ...rest] = turned === dim ? [heads] : split(heads, [turned, dim - turned], -1);
  const couples = interleaved ? op("Reshape", [head!, ints([0, 0, 0, pairs, 2])]) : head!;
  const [first, second] = split(couples, 2, -1) as [Tensor, Tensor];
  const swapped = concat([second, first], -1);
  const partners = interleaved ? op("Reshape", [swapped, ints([0, 0, 0, turned])]) : swapped;
  const result = concat([add(mul(head!, spread(cos, cos)), mul(partners, spread(neg(sin), sin))), ...rest], -1);
  return merged === undefined ? result : op("Reshape", [result, ints([0, 0, merged * dim])]);
}

/** Rows of a table at `positions`: the first ones, or those behind an offset `[1]`, or at positions `[batch, seq]`. */
function rowsAt(table: Tensor, positions: Tensor, seq: Dim, x: Tensor): Tensor {
  if (positions.rank === 2) return gather(table, positions);
  const [offset] = knownNumbers(positions) ?? [];
  if (offset !== undefined && typeof seq === "number") return slice(table, 0, offset, offset + seq);
  return gather(table, add(iota(seq, [x]), positions));
}

function checkPositions(positions: Tensor, rows: Dim, { batch, seq }: Heads): void {
  if (positions.dtype !== "i64") throw new DTypeError(`its positions must be i64, not ${positions.dtype}`);
  const [first, second] = positions.shape;
  if (!(positions.rank === 1 && first === 1) && !(positions.rank === 2 && first === batch && second === seq))
    throw new ShapeError(
      `its positions must be one offset [1] or ${formatShape([batch, seq])}, not ${formatShape(positions.shape)}`,
    );
  const last = positions.rank === 1 && typeof seq === "number" ? knownNumbers(positions)?.map((p) => p + seq)[0] : 0;
  if (last !== undefined && typeof rows === "number" && last > rows)
    throw new ShapeError(`its tables end at position ${rows}, but the last of these ${seq} is ${last - 1}`);
}

const kinds = { interleaved: "int", num_heads: "int", rotary_embedding_dim: "int" } as const;

const KERNEL = "com.microsoft.RotaryEmbedding";

function expandRotary(inputs: readonly (Tensor | null)[], attrs: Attrs): Tensor {
  const [x, positions, cos, sin] = inputs as readonly [Tensor, Tensor, Tensor, Tensor];
  const heads = headsOf(x, cos, sin, attrs);
  const rows = (table: Tensor): Tensor => rowsAt(table, positions, heads.seq, x);
  return turn(x, rows(cos), rows(sin), heads, attrs.interleaved === 1);
}

defineOp({
  name: KERNEL,
  attrs: kinds,
  arity: [4, 4],
  infer: ({ input, attrs }) => {
    const [x, positions, cos, sin] = [input(0), input(1), input(2), input(3)];
    if (cos.rank !== 2) throw new ShapeError(`its tables must be [positions, pairs], not ${formatShape(cos.shape)}`);
    checkPositions(positions, cos.shape[0]!, headsOf(x, cos, sin, attrs));
    return [x];
  },
  expand: (inputs, attrs) => [expandRotary(inputs, attrs)],
  vjp: ({ cotangents, input, attrs, needs }) => {
    if (needs[2] || needs[3])
      throw new GraphError("a rotation's tables of cosines and sines are constants; no gradient reaches them");
    // Turning back is turning by the negative angle.
    return [op(KERNEL, [cotangents[0]!, input(1), input(2), neg(input(3))], attrs)];
  },
});

/** The standard's form of it (since operator set 23): without positions, the tables have a row for each token. */
defineOp({
  name: "RotaryEmbedding",
  nonstandard: true,
  attrs: kinds,
  arity: [3, 4],
  infer: ({ input, inputs, attrs }) => {
    const [x, cos, sin, positions] = [input(0), input(1), input(2), inputs[3]];
    const heads = headsOf(x, cos, sin, attrs);
    if (positions) checkPositions(positions, cos.shape[0]!, heads);
    else if (cos.rank !== 3 || cos.shape[0] !== heads.batch || cos.shape[1] !== heads.seq)
      throw new ShapeError(
        `without positions its tables must be ${formatShape([heads.batch, heads.seq, "pairs"])}, not ${formatShape(cos.shape)}`,
      );
    return [x];
  },
  expand: ([x, cos, sin, positions], attrs) => {
    const heads = headsOf(x!, cos!, sin!, attrs);
    const [c, s] = [cos!, sin!].map((table) => (positions ? rowsAt(table, positions, heads.seq, x!) : table));
    return [turn(x!, c!, s!, heads, attrs.interleaved === 1)];
  },
});

/**
 * Rotary position embedding of queries or keys: pairs of each head's numbers turn by an angle that grows with the
 * position. `x` is `[batch, heads, seq, dim]` or `[batch, seq, heads * dim]`, `cos` and `sin` are `[positions, pairs]`
 * tables. Pairs are the two halves of a head (as in Hugging Face's models) or, `interleaved`, neighbours (as in the
 * paper). Where the tables hold fewer pairs than half a head, the rest of the head stays as it is.
 * @param options.positions row of the tables for each token: `i64 [batch, seq]`, or an offset `[1]`; default 0, 1, ...
 * @param options.heads number of heads, needed only for a partial rotation of `[batch, seq, heads * dim]`.
 */
export function rotary(
  x: TensorLike,
  cos: TensorLike,
  sin: TensorLike,
  { positions, interleaved = false, heads }: { positions?: TensorLike; interleaved?: boolean; heads?: number } = {},
): Tensor {
  return within("rotary", [x, cos, sin], () => {
    const t = asTensor(x);
    const at = positions === undefined ? ints([0]) : asTensor(positions);
    const [c, s] = [cast(cos, t.dtype), cast(sin, t.dtype)];
    const turned = 2 * staticDim(c, -1);
    const count = heads ?? (t.rank === 4 && t.shape[3] !== turned ? staticDim(t, 1) : undefined);
    const attrs = {
      interleaved: interleaved ? 1 : 0,
      ...(count === undefined ? {} : { num_heads: count, rotary_embedding_dim: turned }),
    };
    const inputs = [t, at, c, s];
    const kernel = op(KERNEL, inputs, attrs);
    // onnxruntime's CPU has the kernel in single precision only.
    return t.dtype === "f64" ? expandRotary(inputs, attrs) : kernel;
  });
}
