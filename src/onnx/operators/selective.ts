import {
  type Dim,
  formatShape,
  gather,
  normalizeAxis,
  type OpDef,
  op,
  reshape,
  ShapeError,
  sizeOf,
  squeeze,
  type Tensor,
  type TensorType,
} from "../../tensor/index.ts";

let counted = 0;

/** A name for a length that only the data decide. */
const lengthOf = (what: string): Dim => `${what}_${counted++}`;

const axisOf = (axis: unknown, x: Tensor): number | undefined =>
  axis === undefined ? undefined : normalizeAxis(axis as number, x.rank);

/** Operations that keep a part of their input, as large as the data say: its length gets a name of its own. */
export const selectiveOperators: readonly OpDef[] = [
  {
    name: "NonZero",
    arity: [1, 1],
    flat: true,
    infer: ({ input }) => [{ dtype: "i64", shape: [Math.max(1, input(0).rank), lengthOf("nonzero")] }],
  },
  {
    name: "Compress",
    attrs: { axis: "int" },
    arity: [2, 2],
    infer: ({ input, attrs }) => {
      const [x, condition] = [input(0), input(1)];
      if (condition.dtype !== "bool" || condition.rank !== 1)
        throw new ShapeError(
          `its condition must be a bool vector, not ${condition.dtype} ${formatShape(condition.shape)}`,
        );
      const axis = axisOf(attrs.axis, x);
      const kept = lengthOf("compressed");
      return [{ dtype: x.dtype, shape: axis === undefined ? [kept] : x.shape.map((d, i) => (i === axis ? kept : d)) }];
    },
    expand: ([x, condition], attrs) => {
      const axis = axisOf(attrs.axis, x!);
      const kept = squeeze(op("NonZero", [condition!]), 0);
      return [axis === undefined ? gather(reshape(x!, [sizeOf(x!.shape)]), kept) : gather(x!, kept, axis)];
    },
  },
  {
    name: "Unique",
    attrs: { axis: "int", sorted: "int" },
    arity: [1, 1],
    flat: true,
    infer: ({ input, attrs, outputCount }) => {
      const x = input(0);
      const axis = axisOf(attrs.axis, x);
      const kept = lengthOf("unique");
      const shape = axis === undefined ? [kept] : x.shape.map((d, i) => (i === axis ? kept : d));
      const inverse = axis === undefined ? sizeOf(x.shape) : x.shape[axis]!;
      const types: TensorType[] = [
        { dtype: x.dtype, shape },
        { dtype: "i64", shape: [kept] },
        { dtype: "i64", shape: [inverse] },
        { dtype: "i64", shape: [kept] },
      ];
      return types.slice(0, outputCount);
    },
  },
  {
    name: "NonMaxSuppression",
    attrs: { center_point_box: "int" },
    arity: [2, 5],
    flat: true,
    infer: ({ input }) => {
      const [boxes, scores] = [input(0), input(1)];
      if (boxes.rank !== 3 || scores.rank !== 3 || boxes.shape[2] !== 4)
        throw new ShapeError(
          `it takes boxes [batch, boxes, 4] and scores [batch, classes, boxes], not ${formatShape(boxes.shape)} and ${formatShape(scores.shape)}`,
        );
      return [{ dtype: "i64", shape: [lengthOf("selected"), 3] }];
    },
  },
];
