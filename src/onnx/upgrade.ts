import {
  add,
  applyOp,
  ArgumentError,
  type Attrs,
  type AttrKind,
  cast,
  constant,
  constantOf,
  defineOp,
  div,
  expand,
  fill,
  findOp,
  flatten,
  HostTensor,
  identity,
  ints,
  maximum,
  minimum,
  reshape,
  scalar,
  staticDim,
  type Tensor,
  transpose,
  unsqueeze,
} from "../tensor/index.ts";
import { importedOperators } from "./operators/index.ts";
import { nllLoss, softmaxCrossEntropy } from "./operators/losses.ts";

for (const def of importedOperators) defineOp(def);

/** An operation as a file of any age has it, its inputs traced already. */
export interface ForeignNode {
  /** Name with its domain: `Conv`, `com.microsoft.FusedMatMul`. */
  readonly op: string;
  /** Operator set of its domain. */
  readonly version: number;
  readonly inputs: readonly (Tensor | null)[];
  readonly attrs: Attrs;
  readonly outputCount: number;
}

type Kinds = Readonly<Record<string, AttrKind>>;

export interface Signature {
  readonly attrs: Kinds;
  /** Least and most number of inputs. */
  readonly arity: readonly [number, number];
}

/** How an operator that is not, or was not always, as in the table of operations becomes operations of the table. */
interface Rule {
  /** Attributes in the operator set `version` that the table does not have. */
  attrs?(version: number): Kinds;
  /** Number of inputs where it is not the table's. */
  readonly arity?: readonly [number, number];
  build(node: ForeignNode): readonly Tensor[];
}

/** What an operator of a file may look like, or undefined where it is unknown. */
export function signatureOf(op: string, version: number): Signature | undefined {
  const def = op.startsWith("pare.") ? undefined : findOp(op);
  const rule = rules.get(op);
  const arity = rule?.arity ?? def?.arity;
  if (!arity) return undefined;
  const legacy: Kinds = version < 6 ? { consumed_inputs: "ints" } : {};
  return { attrs: { ...def?.attrs, ...legacy, ...rule?.attrs?.(version) }, arity };
}

/** The outputs of a node of any operator set as operations of the table. @throws ArgumentError, ShapeError, DTypeError */
export function upgrade(node: ForeignNode): readonly Tensor[] {
  const [least] = signatureOf(node.op, node.version)!.arity;
  for (let i = 0; i < least; i++) if (!node.inputs[i]) throw new ArgumentError(`its input ${i} is missing`);
  const { consumed_inputs: _advice, ...attrs } = node.attrs;
  const bare = { ...node, attrs };
  return rules.get(node.op)?.build(bare) ?? apply(bare);
}

function apply({ op, inputs, attrs, outputCount }: ForeignNode): readonly Tensor[] {
  return applyOp(op, inputs, attrs, outputCount);
}

const rules = new Map<string, Rule>();

function define(names: readonly string[], rule: Rule): void {
  for (const name of names) rules.set(name, rule);
}

const before = (set: number, kinds: Kinds) => (version: number) => (version < set ? kinds : {});

const without = (attrs: Attrs, ...names: readonly string[]): Attrs =>
  Object.fromEntries(Object.entries(attrs).filter(([name]) => !names.includes(name)));

// ---------------------------------------------------------------------------- attributes that became inputs

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
function movedToInputs(set: number, names: readonly string[], kinds: Kinds, build = apply): void {
  define(names, {
    arity: [1, Math.max(...names.map((name) => findOp(name)?.arity[1] ?? 0), 1 + Object.keys(kinds).length)],
    attrs: before(set, kinds),
    build: (node) => {
      if (node.version >= set) return build(node);
      const x = node.inputs[0]!;
      const moved = Object.entries(kinds).map(([name, kind]) => asInput(node.attrs[name], kind, x));
      return build({ ...node, inputs: [x, ...moved], attrs: without(node.attrs, ...Object.keys(kinds)) });
    },
  });
}

movedToInputs(5, ["Reshape"], { shape: "ints" });
movedToInputs(10, ["Slice"], { starts: "ints", ends: "ints", axes: "ints" });
movedToInputs(10, ["TopK"], { k: "int" });
movedToInputs(11, ["Clip"], { min: "float", max: "float" });
movedToInputs(11, ["Pad"], { pads: "ints", value: "float" });
movedToInputs(13, ["Squeeze", "Unsqueeze", "ReduceSum"], { axes: "ints" });
movedToInputs(
  18,
  ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare"].map((kind) => `Reduce${kind}`),
  { axes: "ints" },
);
movedToInputs(13, ["Split"], { split: "ints" }, (node) => {
  const { inputs, attrs, outputCount } = node;
  if (inputs[1]) return apply(node);
  const parts = (attrs.num_outputs as number | undefined) ?? outputCount;
  if (parts !== outputCount) throw new ArgumentError(`it splits into ${parts} parts but has ${outputCount} outputs`);
  return apply({ ...node, inputs: inputs.slice(0, 1), attrs: { ...attrs, num_outputs: parts } });
});

// ----------------------------------------------------------------------------------- changed meanings and names

/** Before set 7, the second operand's axes began at `axis` of the first's when `broadcast` was set. */
define(["Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less"], {
  attrs: before(7, { broadcast: "int", axis: "int" }),
  build: (node) => {
    const { broadcast, axis, ...attrs } = node.attrs;
    const [a, b] = node.inputs;
    if (broadcast !== 1 || axis === undefined || !a || !b) return apply({ ...node, attrs });
    const at = (axis as number) < 0 ? (axis as number) + a.rank : (axis as number);
    const behind = Math.max(0, a.rank - at - b.rank);
    const aligned = unsqueeze(b, Array.from({ length: behind }, (_, i) => b.rank + i));
    return apply({ ...node, inputs: [a, aligned], attrs });
  },
});

define(["Gemm"], {
  attrs: before(7, { broadcast: "int" }),
  build: (node) => apply({ ...node, attrs: without(node.attrs, "broadcast") }),
});

/** Before set 13, these saw their input as a matrix: the axes before `axis` were rows, the others one column axis. */
define(["Softmax", "LogSoftmax", "Hardmax"], {
  build: (node) => {
    if (node.version >= 13) return apply(node);
    const x = node.inputs[0]!;
    const axis = (node.attrs.axis as number | undefined) ?? 1;
    const at = axis < 0 ? axis + x.rank : axis;
    if (at === x.rank - 1) return apply({ ...node, attrs: { axis: at } });
    if (at < 0 || at >= x.rank) throw new ArgumentError(`axis ${axis} is outside of a tensor with ${x.rank} dimensions`);
    const [y] = apply({ ...node, inputs: [flatten(x, at)], attrs: { axis: -1 } });
    return [reshape(y!, x.shape, [x])];
  },
});

/** Names of the element types in files before set 6, with the numbers that came after them. */
const TYPE_NAMES = ["UNDEFINED", "FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "FLOAT16", "DOUBLE", "UINT32", "UINT64"];

define(["Cast"], {
  attrs: before(6, { to: "string" }),
  build: (node) => {
    const { to } = node.attrs;
    return apply(typeof to === "string" ? { ...node, attrs: { to: TYPE_NAMES.indexOf(to) } } : node);
  },
});

define(["CastLike"], {
  arity: [2, 2],
  attrs: () => ({ saturate: "int" }),
  build: ({ inputs: [x, like] }) => [cast(x!, like!.dtype)],
});

/** Running statistics only: what training updates has no place in a function. */
define(["BatchNormalization"], {
  attrs: (version) => ({ ...before(7, { is_test: "int" })(version), ...before(9, { spatial: "int" })(version) }),
  build: (node) => {
    if (node.attrs.spatial === 0) throw new ArgumentError("it normalizes each place on its own (spatial = 0), which is not supported");
    if (node.attrs.training_mode === 1 || node.outputCount > 1)
      throw new ArgumentError("it is in training mode; export the model for inference");
    return apply({ ...node, attrs: without(node.attrs, "is_test", "spatial", "momentum", "training_mode") });
  },
});

define(["Dropout"], {
  arity: [1, 3],
  attrs: (version) => ({ ...before(12, { ratio: "float", is_test: "int" })(version), seed: "int" }),
  build: ({ inputs, outputCount, version }) => {
    const x = inputs[0]!;
    const training = inputs[2];
    if (training && constantOf(training)?.at(0) !== 0)
      throw new ArgumentError("it is in training mode; export the model for inference");
    const kept = identity(x);
    return outputCount === 1 ? [kept] : [kept, fill(1, x.shape, version < 10 ? x.dtype : "bool", [x])];
  },
});

/** As in set 10: places count from the first entry, and the nearest is the one before (behind, where it shrinks). */
function resizeAsIn10(node: ForeignNode, x: Tensor, scales: Tensor): readonly Tensor[] {
  const factors = constantOf(scales)?.toArray();
  if (!factors) throw new ArgumentError("its scales depend on data");
  const shrinks = factors.some((f) => f < 1);
  if (shrinks && factors.some((f) => f > 1)) throw new ArgumentError("it enlarges some axes and shrinks others, which set 10 left open");
  const attrs = {
    mode: node.attrs.mode ?? "nearest",
    coordinate_transformation_mode: "asymmetric",
    nearest_mode: shrinks ? "ceil" : "floor",
  };
  return applyOp("Resize", [x, null, scales], attrs);
}

define(["Resize"], {
  build: (node) => {
    const [x, scales] = node.inputs;
    if (node.version < 11) return resizeAsIn10(node, x!, scales!);
    if (node.attrs.coordinate_transformation_mode === "tf_half_pixel_for_nn")
      throw new ArgumentError('its coordinates "tf_half_pixel_for_nn" left the format with set 13');
    return apply(node);
  },
});

movedToInputs(9, ["Upsample"], { scales: "floats" }, (node) => resizeAsIn10(node, node.inputs[0]!, node.inputs[1]!));
define(["Upsample"], { ...rules.get("Upsample")!, attrs: (version) => ({ mode: "string", ...before(9, { scales: "floats" })(version) }) });

define(["Scatter"], {
  arity: [3, 3],
  attrs: () => ({ axis: "int" }),
  build: (node) => apply({ ...node, op: "ScatterElements" }),
});

/** Before set 21 scale and bias had one entry per group. */
define(["GroupNormalization"], {
  build: (node) => {
    if (node.version >= 21) return apply(node);
    const [x, ...affine] = node.inputs;
    const channels = x!.shape[1]!;
    const repeated = affine.map((t) => {
      const groups = t!.shape[0]!;
      if (typeof channels !== "number" || typeof groups !== "number") throw new ArgumentError("its channels must be a number");
      const each = channels / groups;
      return reshape(expand(unsqueeze(t!, 1), [groups, each]), [channels]);
    });
    return apply({ ...node, inputs: [x!, ...repeated] });
  },
});

/** Before set 7 one slope per channel came as a vector. */
define(["PRelu"], {
  build: (node) => {
    const [x, slope] = node.inputs as [Tensor, Tensor];
    if (node.version >= 7 || slope.rank !== 1 || slope.shape[0] === 1) return apply(node);
    return apply({ ...node, inputs: [x, unsqueeze(slope, x.shape.slice(2).map((_, i) => i + 1))] });
  },
});

/** Kernels know sequences with the length first only. */
define(["RNN", "GRU", "LSTM"], {
  attrs: () => ({ layout: "int" }),
  build: (node) => {
    const { layout, ...attrs } = node.attrs;
    if (layout !== 1) return apply({ ...node, attrs });
    const swap = (t: Tensor | null | undefined): Tensor | null => (t ? transpose(t, [1, 0, 2]) : null);
    const [x, w, r, b = null, lengths = null, h, c, ...peepholes] = node.inputs;
    const inputs = [swap(x), w!, r!, b, lengths, swap(h), ...(node.op === "LSTM" ? [swap(c), ...peepholes] : [])];
    const [all, ...last] = apply({ ...node, inputs, attrs });
    return [transpose(all!, [2, 0, 1, 3]), ...last.map((t) => swap(t)!)];
  },
});

/** The size of the result may be given in place of the padding, half of which (the larger, by default) goes behind. */
define(["ConvTranspose"], {
  attrs: () => ({ output_shape: "ints" }),
  build: (node) => {
    const { output_shape, auto_pad, ...attrs } = node.attrs;
    if (output_shape === undefined) return apply(node);
    const [x, w] = node.inputs as [Tensor, Tensor];
    const list = (name: string, byDefault: number, i: number): number => (attrs[name] as readonly number[] | undefined)?.[i] ?? byDefault;
    const totals = (output_shape as readonly number[]).map((size, i) => {
      const reach = list("dilations", 1, i) * (staticDim(w, i + 2) - 1) + 1;
      return list("strides", 1, i) * (staticDim(x, i + 2) - 1) + list("output_padding", 0, i) + reach - size;
    });
    // What the windows do not reach is added as padding of the output.
    const halves = totals.map((t) => Math.max(0, t)).map((t): [number, number] => [Math.floor(t / 2), Math.ceil(t / 2)]);
    const pads = halves.map(([less, more]) => (auto_pad === "SAME_UPPER" || auto_pad === undefined ? [less, more] : [more, less]));
    const output_padding = totals.map((t, i) => list("output_padding", 0, i) + Math.max(0, -t));
    return apply({ ...node, attrs: { ...attrs, pads: [...pads.map((p) => p[0]!), ...pads.map((p) => p[1]!)], output_padding } });
  },
});

/** `...` stands for the leading axes that all operands with it share; each gets a letter of its own. */
define(["Einsum"], {
  build: (node) => {
    const equation = (node.attrs.equation as string | undefined)?.replaceAll(" ", "");
    if (!equation?.includes("...")) return apply(node);
    const terms = equation.split("->")[0]!.split(",");
    const ranks = terms.map((term, i) => (term.includes("...") ? node.inputs[i]!.rank - term.length + 3 : 0));
    const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"].filter((letter) => !equation.includes(letter));
    const most = Math.max(...ranks);
    if (most > letters.length || terms.some((term, i) => term.includes("...") && ranks[i] !== most))
      throw new ArgumentError(`its operands have different numbers of axes in "${equation}"`);
    return apply({ ...node, attrs: { equation: equation.replaceAll("...", letters.slice(0, most).join("")) } });
  },
});

/** Set 20 shortened the names of the modes. */
define(["GridSample"], {
  build: (node) => {
    const mode = ((node.attrs.mode as string | undefined) ?? "linear").replace(/^bi(linear|cubic)$/, "$1");
    return apply({ ...node, attrs: { ...node.attrs, mode } });
  },
});

/** Set 16 moved the default places by half an entry. */
define(["RoiAlign"], {
  build: (node) => {
    const old = node.version < 16 ? { coordinate_transformation_mode: "output_half_pixel" } : {};
    return apply({ ...node, attrs: { ...old, ...node.attrs } });
  },
});

// ------------------------------------------------------------------------------------ any number of operands

const present = (inputs: readonly (Tensor | null)[]): Tensor[] => inputs.filter((t): t is Tensor => t !== null);

const folded = (pair: (a: Tensor, b: Tensor) => Tensor): Rule => ({
  arity: [1, Number.POSITIVE_INFINITY],
  build: ({ inputs }) => [present(inputs).reduce(pair)],
});

define(["Sum"], folded(add));
// In pairs, as their gradient wants them.
define(["Max"], folded(maximum));
define(["Min"], folded(minimum));
define(["Mean"], {
  arity: [1, Number.POSITIVE_INFINITY],
  build: ({ inputs }) => [div(present(inputs).reduce((a, b) => add(a, b)), present(inputs).length)],
});

// ------------------------------------------------------------------------------------------------------ losses

const lossAttrs = (): Kinds => ({ ignore_index: "int", reduction: "string" });

define(["NegativeLogLikelihoodLoss"], {
  arity: [2, 3],
  attrs: lossAttrs,
  build: ({ inputs: [scores, target, weight], attrs }) => [nllLoss(scores!, target!, weight, attrs)],
});
define(["SoftmaxCrossEntropyLoss"], {
  arity: [2, 3],
  attrs: lossAttrs,
  build: ({ inputs: [scores, target, weight], attrs }) => softmaxCrossEntropy(scores!, target!, weight, attrs),
});

// --------------------------------------------------------------------------------------------------- constants

define(["Constant"], {
  attrs: () => ({ value_float: "float", value_floats: "floats", value_int: "int", value_ints: "ints" }),
  build: ({ attrs }) => {
    const { value, value_float, value_floats, value_int, value_ints } = attrs;
    const given = [value, value_float, value_floats, value_int, value_ints].filter((v) => v !== undefined);
    if (given.length !== 1) throw new ArgumentError(`it has ${given.length} values`);
    if (value !== undefined) return [constant(value as HostTensor)];
    if (value_ints !== undefined) return [ints(value_ints as readonly number[])];
    if (value_int !== undefined) return [scalar(value_int as number, "i64")];
    if (value_float !== undefined) return [scalar(value_float as number)];
    return [constant(HostTensor.from(Float32Array.from(value_floats as readonly number[])))];
  },
});
