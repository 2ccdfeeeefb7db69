import { ArgumentError, expand, flatten, reshape, type Tensor, unsqueeze } from "../../tensor/index.ts";
import { apply, before, type Rule, without } from "./rule.ts";

/** Names of the element types in files before set 6, with the numbers that came after them. */
const TYPE_NAMES = [
  "UNDEFINED",
  "FLOAT",
  "UINT8",
  "INT8",
  "UINT16",
  "INT16",
  "INT32",
  "INT64",
  "STRING",
  "BOOL",
  "FLOAT16",
  "DOUBLE",
  "UINT32",
  "UINT64",
];

/** Operators that meant something else in older operator sets. */
export const changedRules: readonly Rule[] = [
  /** Before set 7, the second operand's axes began at `axis` of the first's when `broadcast` was set. */
  {
    names: ["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"],
    attrs: before(7, { broadcast: "int", axis: "int" }),
    build: (node) => {
      const { broadcast, axis, ...attrs } = node.attrs;
      const [a, b] = node.inputs;
      if (broadcast !== 1 || axis === undefined || !a || !b) return apply({ ...node, attrs });
      const at = (axis as number) < 0 ? (axis as number) + a.rank : (axis as number);
      const behind = Math.max(0, a.rank - at - b.rank);
      const aligned = unsqueeze(
        b,
        Array.from({ length: behind }, (_, i) => b.rank + i),
      );
      return apply({ ...node, inputs: [a, aligned], attrs });
    },
  },
  {
    names: ["Gemm"],
    attrs: before(7, { broadcast: "int" }),
    build: (node) => apply({ ...node, attrs: without(node.attrs, "broadcast") }),
  },
  /** Before set 13, these saw their input as a matrix: the axes before `axis` were rows, the others one column axis. */
  {
    names: ["Softmax", "LogSoftmax", "Hardmax"],
    build: (node) => {
      if (node.version >= 13) return apply(node);
      const x = node.inputs[0]!;
      const axis = (node.attrs.axis as number | undefined) ?? 1;
      const at = axis < 0 ? axis + x.rank : axis;
      if (at === x.rank - 1) return apply({ ...node, attrs: { axis: at } });
      if (at < 0 || at >= x.rank)
        throw new ArgumentError(`axis ${axis} is outside of a tensor with ${x.rank} dimensions`);
      const [y] = apply({ ...node, inputs: [flatten(x, at)], attrs: { axis: -1 } });
      return [reshape(y!, x.shape, [x])];
    },
  },
  {
    names: ["Cast"],
    attrs: before(6, { to: "string" }),
    build: (node) => {
      const { to } = node.attrs;
      return apply(typeof to === "string" ? { ...node, attrs: { to: TYPE_NAMES.indexOf(to) } } : node);
    },
  },
  /** Before set 7 one slope per channel came as a vector. */
  {
    names: ["PRelu"],
    build: (node) => {
      const [x, slope] = node.inputs as [Tensor, Tensor];
      if (node.version >= 7 || slope.rank !== 1 || slope.shape[0] === 1) return apply(node);
      return apply({
        ...node,
        inputs: [
          x,
          unsqueeze(
            slope,
            x.shape.slice(2).map((_, i) => i + 1),
          ),
        ],
      });
    },
  },
  /** Before set 21 scale and bias had one entry per group. */
  {
    names: ["GroupNormalization"],
    build: (node) => {
      if (node.version >= 21) return apply(node);
      const [x, ...affine] = node.inputs;
      const channels = x!.shape[1]!;
      const repeated = affine.map((t) => {
        const groups = t!.shape[0]!;
        if (typeof channels !== "number" || typeof groups !== "number")
          throw new ArgumentError("its channels must be a number");
        const each = channels / groups;
        return reshape(expand(unsqueeze(t!, 1), [groups, each]), [channels]);
      });
      return apply({ ...node, inputs: [x!, ...repeated] });
    },
  },
  /** Set 20 shortened the names of the modes. */
  {
    names: ["GridSample"],
    build: (node) => {
      const mode = ((node.attrs.mode as string | undefined) ?? "linear").replace(/^bi(linear|cubic)$/, "$1");
      return apply({ ...node, attrs: { ...node.attrs, mode } });
    },
  },
  /** Set 16 moved the default places by half an entry. */
  {
    names: ["RoiAlign"],
    build: (node) => {
      const old = node.version < 16 ? { coordinate_transformation_mode: "output_half_pixel" } : {};
      return apply({ ...node, attrs: { ...old, ...node.attrs } });
    },
  },
];
