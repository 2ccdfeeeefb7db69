import {
  ArgumentError,
  asTensor,
  cast,
  children,
  DTypeError,
  equal,
  formatShape,
  gather,
  HostTensor,
  isFloat,
  type Leaf,
  linear,
  mul,
  rebuild,
  reshape,
  ShapeError,
  sameShape,
  sum,
  type Tensor,
  unsqueeze,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";
import { codeBytes, packCodes, unpackTensor } from "./block-format.ts";

/**
 * A matrix of which two of every four neighbours in a row are kept (2:4 sparsity): their values and their places, two
 * bits each. It saves memory, and time on GPUs with sparse tensor cores only: onnxruntime has no product with it, so
 * that it is expanded to a plain matrix, once when a program is built around it.
 */
export class Sparse24 extends Weight {
  override readonly kind = "sparse24";
  readonly values: Leaf;
  readonly places: Leaf;

  /**
   * @param values `[out, in / 2]`, floating-point
   * @param places `u8 [out, in / 8 rounded up]`, low bits first: the place within its group of four of each value
   */
  constructor(values: Leaf, places: Leaf) {
    super();
    const [rows, kept] = values.shape as readonly [number, number];
    if (!isFloat(values.dtype))
      throw new DTypeError(`the values of a 2:4 weight must be floating-point, not ${values.dtype}`);
    const wanted = [rows, codeBytes("int2", kept)];
    if (kept % 2 !== 0 || places.dtype !== "u8" || !sameShape(places.shape, wanted))
      throw new ShapeError(
        `a 2:4 weight with values ${formatShape(values.shape)} needs places u8 ${formatShape(wanted)} of an even number, not ${places.dtype} ${formatShape(places.shape)}`,
      );
    this.values = values;
    this.places = places;
  }

  override get shape(): readonly [number, number] {
    const [rows, kept] = this.values.shape as readonly [number, number];
    return [rows, 2 * kept];
  }

  override apply(x: Tensor): Tensor {
    return linear(x, cast(this.dense(), x.dtype));
  }

  override rows(ids: Tensor): Tensor {
    return expand24(gather(this.values, ids), gather(this.places, ids));
  }

  override dense(): Tensor {
    return expand24(asTensor(this.values), asTensor(this.places));
  }

  override [children](): Record<string, Leaf> {
    return { values: this.values, places: this.places };
  }

  override [rebuild](parts: Record<string, unknown>): Sparse24 {
    return new Sparse24(parts.values as Leaf, parts.places as Leaf);
  }
}

/** `[..., n]` values with their packed places to `[..., 2 n]`. */
function expand24(values: Tensor, places: Tensor): Tensor {
  const front = values.shape.slice(0, -1);
  const kept = values.shape[values.rank - 1] as number;
  const grouped = (t: Tensor): Tensor => unsqueeze(reshape(t, [...front, kept / 2, 2], [values]), -1);
  const at = grouped(unpackTensor("int2", places, kept));
  const here = cast(equal(at, HostTensor.from([0, 1, 2, 3], { dtype: "i32" })), "f32");
  return reshape(sum(mul(here, cast(grouped(values), "f32")), { axes: [-2] }), [...front, 2 * kept], [values]);
}

/**
 * The 2:4 form of a matrix `[out, in]` that has been pruned to it already.
 * @throws ArgumentError where more than two of four entries are not zero, naming the place.
 */
export function toSparse24(matrix: HostTensor): Sparse24 {
  const [rows, columns] = matrix.shape as readonly [number, number];
  if (columns % 4 !== 0) throw new ShapeError(`rows of ${columns} entries do not divide into groups of four`);
  const from = matrix.cast("f32").data as Float32Array;
  const values = new Float32Array(from.length / 2);
  const places = new Uint8Array(values.length);
  for (let group = 0; 4 * group < from.length; group++) {
    const kept = [0, 1, 2, 3].filter((i) => from[4 * group + i] !== 0);
    if (kept.length > 2) {
      const [row, column] = [Math.floor((4 * group) / columns), (4 * group) % columns];
      throw new ArgumentError(
        `row ${row} has ${kept.length} entries that are not zero in columns ${column} to ${column + 3}; 2:4 sparsity keeps two`,
      );
    }
    // A zero fills up a group with fewer.
    for (let i = 0; kept.length < 2; i++) if (!kept.includes(i)) kept.push(i);
    kept.sort().forEach((place, i) => {
      values[2 * group + i] = from[4 * group + place]!;
      places[2 * group + i] = place;
    });
  }
  const half = columns / 2;
  return new Sparse24(
    new HostTensor("f32", [rows, half], values).cast(matrix.dtype),
    new HostTensor("u8", [rows, codeBytes("int2", half)], packCodes("int2", places, half)),
  );
}
