import type { DType } from "../dtype.ts";
import { ArgumentError, DTypeError, ShapeError } from "../errors.ts";
import { knownInts } from "../known.ts";
import {
  applyOp,
  asTensor,
  defineOp,
  ints,
  normalizeAxis,
  op,
  type Tensor,
  type TensorLike,
  type TensorType,
} from "../tensor.ts";
import { dimOf, zerosLike } from "./fill.ts";

/** What onnxruntime's kernels order. */
const ORDERED: readonly DType[] = ["f32", "f16", "f64", "i64", "i32"];

defineOp({
  name: "TopK",
  attrs: { axis: "int", largest: "int", sorted: "int" },
  arity: [2, 2],
  infer: ({ input, attrs }): readonly TensorType[] => {
    const x = input(0);
    if (!ORDERED.includes(x.dtype))
      throw new DTypeError(`it orders ${ORDERED.join(", ")}, not ${x.dtype}; cast it to one of them`);
    const axis = normalizeAxis((attrs.axis as number | undefined) ?? -1, x.rank);
    const k = knownInts(input(1))?.[0];
    if (k === undefined) throw new ShapeError("the number of elements to select depends on data");
    const have = x.shape[axis]!;
    if (typeof k === "number" && (k < 0 || (typeof have === "number" && k > have)))
      throw new ArgumentError(`${k} elements cannot be selected along axis ${axis}, which has ${have}`);
    const shape = x.shape.map((d, i) => (i === axis ? k : d));
    return [
      { dtype: x.dtype, shape },
      { dtype: "i64", shape },
    ];
  },
  vjp: ({ cotangents, input, outputs, attrs }) => {
    const dy = cotangents[0];
    if (!dy) return [];
    return [op("ScatterElements", [zerosLike(input(0)), outputs[1]!, dy], { axis: attrs.axis ?? -1 })];
  },
});

/** Selected or sorted elements, and where along the axis they came from (`i64`). */
export interface Ordered {
  readonly values: Tensor;
  readonly indices: Tensor;
}

function select(x: Tensor, count: Tensor, axis: number, largest: boolean, sorted: boolean): Ordered {
  const attrs = { axis, largest: largest ? 1 : 0, sorted: sorted ? 1 : 0 };
  const [values, indices] = applyOp("TopK", [x, count], attrs, 2);
  return { values: values!, indices: indices! };
}

/**
 * The `k` largest (or smallest) elements along `axis`, best first unless `sorted` is false. Of equal elements those
 * with lower indices come first. Gradients go to the selected elements.
 * @throws ArgumentError when the axis has fewer than `k` elements.
 */
export function topK(
  value: TensorLike,
  k: number,
  axis = -1,
  { largest = true, sorted = true }: { largest?: boolean; sorted?: boolean } = {},
): Ordered {
  return select(asTensor(value), ints([k]), axis, largest, sorted);
}

/** All elements in order along `axis`, smallest first unless `descending`; equal elements keep their order. */
export function sort(value: TensorLike, axis = -1, { descending = false }: { descending?: boolean } = {}): Ordered {
  const x = asTensor(value);
  return select(x, dimOf(x, normalizeAxis(axis, x.rank)), axis, descending, true);
}

/** Indices (`i64`) that would sort `x` along `axis`. */
export function argSort(x: TensorLike, axis = -1, options: { descending?: boolean } = {}): Tensor {
  return sort(x, axis, options).indices;
}
