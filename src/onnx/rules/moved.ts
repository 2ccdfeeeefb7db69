import {
  ArgumentError,
  type AttrKind,
  type Attrs,
  constant,
  findOp,
  HostTensor,
  ints,
  scalar,
  type Tensor,
} from "../../tensor/index.ts";
import { apply, before, type Kinds, type Rule, without } from "./rule.ts";

/** An attribute's value as an input; a number takes the element type of the node's first input. */
function asInput(value: Attrs[string] | undefined, kind: AttrKind, like: Tensor): Tensor | null {
  if (value === undefined) return null;
  switch (kind) {
    case "int":
      return ints([value as number]);
    case "ints":
      return ints(value as readonly number[]);
    case "float":
      return scalar(value as number, like.dtype);
    default:
      return constant(HostTensor.from(Float32Array.from(value as readonly number[])));
  }
}

/** Operators whose attributes `kinds` became, in this order, inputs behind the first one with operator set `set`. */
function movedToInputs(set: number, names: readonly string[], kinds: Kinds, build: Rule["build"] = apply): Rule {
  return {
    names,
    arity: [1, Math.max(...names.map((name) => findOp(name)?.arity[1] ?? 0), 1 + Object.keys(kinds).length)],
    attrs: before(set, kinds),
    build: (node) => {
      if (node.version >= set) return build(node);
      const x = node.inputs[0]!;
      const moved = Object.entries(kinds).map(([name, kind]) => asInput(node.attrs[name], kind, x));
      return build({ ...node, inputs: [x, ...moved], attrs: without(node.attrs, ...Object.keys(kinds)) });
    },
  };
}

const reductions = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"];

/** What once was an attribute is an input today. */
export const movedRules: readonly Rule[] = [
  movedToInputs(5, ["Reshape"], { shape: "ints" }),
  movedToInputs(10, ["Slice"], { starts: "ints", ends: "ints", axes: "ints" }),
  movedToInputs(10, ["TopK"], { k: "int" }),
  movedToInputs(11, ["Clip"], { min: "float", max: "float" }),
  movedToInputs(11, ["Pad"], { pads: "ints", value: "float" }),
  movedToInputs(13, ["Squeeze", "Unsqueeze", "ReduceSum"], { axes: "ints" }),
  movedToInputs(
    18,
    reductions.map((name) => `Reduce${name}`),
    { axes: "ints" },
  ),
  movedToInputs(13, ["Split"], { split: "ints" }, (node) => {
    const { inputs, attrs, outputCount } = node;
    if (inputs[1]) return apply(node);
    const parts = (attrs.num_outputs as number | undefined) ?? outputCount;
    if (parts !== outputCount) throw new ArgumentError(`it splits into ${parts} parts but has ${outputCount} outputs`);
    return apply({ ...node, inputs: inputs.slice(0, 1), attrs: { ...attrs, num_outputs: parts } });
  }),
];
