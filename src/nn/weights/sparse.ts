import {
  add,
  asTensor,
  cast,
  children,
  cumSum,
  DTypeError,
  fill,
  gather,
  greater,
  HostTensor,
  isFloat,
  type Leaf,
  linear,
  maximum,
  mul,
  rebuild,
  reshape,
  ShapeError,
  scatter,
  slice,
  sub,
  type Tensor,
  where,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";
import { packCodes, unpackTensor } from "./block-format.ts";

/** Where the kept entries lie: a bit for each entry of the matrix, or their columns and how many each row has (CSR). */
export type SparseIndex = { readonly bitmap: Leaf } | { readonly columns: Leaf; readonly counts: Leaf };

/**
 * A matrix of which any entries may be missing: the values of the others, row by row, and where they are. It saves
 * memory, not time: onnxruntime has no product with it, so that it is expanded to a plain matrix, once when a program
 * is built around it.
 */
export class SparseWeight extends Weight {
  override readonly kind = "sparse";
  override readonly shape: readonly [number, number];
  readonly values: Leaf;
  readonly index: SparseIndex;

  /**
   * @param values `[kept]`, floating-point
   * @param index `bitmap u8 [out * in / 8 rounded up]`, low bits first; or `columns u16` or `i32 [kept]` and `counts i32 [out]`
   */
  constructor(shape: readonly [number, number], values: Leaf, index: SparseIndex) {
    super();
    if (!isFloat(values.dtype))
      throw new DTypeError(`the values of a sparse weight must be floating-point, not ${values.dtype}`);
    const [rows, columns] = shape;
    if ("bitmap" in index) {
      const bytes = Math.ceil((rows * columns) / 8);
      if (index.bitmap.dtype !== "u8" || index.bitmap.shape[0] !== bytes)
        throw new ShapeError(`the bitmap of a matrix [${rows}, ${columns}] must be u8 [${bytes}]`);
    } else if (index.columns.shape[0] !== values.shape[0] || index.counts.shape[0] !== rows) {
      throw new ShapeError(`${values.shape[0]} values of ${rows} rows need as many columns, and a count for every row`);
    }
    this.shape = shape;
    this.values = values;
    this.index = index;
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { shape: this.shape };
  }

  override apply(x: Tensor): Tensor {
    return linear(x, cast(this.dense(), x.dtype));
  }

  override rows(ids: Tensor): Tensor {
    return gather(this.dense(), ids);
  }

  override dense(): Tensor {
    const values = cast(asTensor(this.values), "f32");
    const flat = "bitmap" in this.index ? this.#fromBitmap(values, this.index) : this.#fromColumns(values, this.index);
    return reshape(flat, this.shape);
  }

  /** Entry `i` takes the value whose number is the count of bits before it. */
  #fromBitmap(values: Tensor, { bitmap }: { bitmap: Leaf }): Tensor {
    const kept = unpackTensor("binary", asTensor(bitmap), this.shape[0] * this.shape[1]);
    return where(greater(kept, 0), gather(values, maximum(sub(cumSum(kept), 1), 0)), 0);
  }

  /** Value `n` lies in as many rows as end at or before it: ones put where rows start, added up. */
  #fromColumns(values: Tensor, { columns, counts }: { columns: Leaf; counts: Leaf }): Tensor {
    const [rows, width] = this.shape;
    const kept = values.shape[0] as number;
    // Rows may start behind the last value, where a further place takes their ones.
    const ends = slice(cumSum(asTensor(counts)), 0, 0, rows - 1);
    const marks = scatter(fill(0, [kept + 1], "i32"), ends, fill(1, [rows - 1], "i32"), { axis: 0, reduction: "add" });
    const row = slice(cumSum(marks), 0, 0, kept);
    const place = add(mul(row, width), cast(columns, "i32"));
    return scatter(fill(0, [rows * width]), place, values, { axis: 0 });
  }

  override [children](): Record<string, Leaf> {
    return { values: this.values, ...this.index };
  }

  override [rebuild](parts: Record<string, unknown>): SparseWeight {
    const { values, ...index } = parts;
    return new SparseWeight(this.shape, values as Leaf, index as unknown as SparseIndex);
  }
}

/** The entries of a matrix `[out, in]` that are not zero, with the smaller of both indices. */
export function toSparse(matrix: HostTensor): SparseWeight {
  if (matrix.shape.length !== 2)
    throw new ShapeError(`a weight matrix has two dimensions, not [${matrix.shape.join(", ")}]`);
  const shape = matrix.shape as readonly [number, number];
  const [rows, width] = shape;
  const from = matrix.cast("f32").data as Float32Array;
  const kept = Int32Array.from(from.keys()).filter((i) => from[i] !== 0);
  const values = HostTensor.from(Float32Array.from(kept, (i) => from[i]!)).cast(matrix.dtype);
  const narrow = width <= 2 ** 16;
  // A bitmap's expansion reads a first value.
  if (kept.length === 0 || kept.length * (narrow ? 2 : 4) + 4 * rows < from.length / 8) {
    const columns = HostTensor.zeros(narrow ? "u16" : "i32", [kept.length]);
    const counts = new Int32Array(rows);
    kept.forEach((i, n) => {
      columns.set(n, i % width);
      counts[Math.floor(i / width)]!++;
    });
    return new SparseWeight(shape, values, { columns, counts: HostTensor.from(counts) });
  }
  const bits = Uint8Array.from(from, (value) => (value === 0 ? 0 : 1));
  return new SparseWeight(shape, values, { bitmap: HostTensor.from(packCodes("binary", bits, bits.length)) });
}
