import { type Dim, formatShape, normalizeDim, type Shape } from "./dims.ts";
import { type DType, dtypes } from "./dtype.ts";
import { ArgumentError, callerLine, DTypeError, GraphError, ShapeError } from "./errors.ts";
import { HostTensor } from "./host.ts";

/** What is known of a tensor before it exists: element type and shape. */
export interface TensorType {
  readonly dtype: DType;
  readonly shape: Shape;
}

/** The declared type of an input: `spec("i64", ["batch", "seq"])`. */
export class TensorSpec implements TensorType {
  readonly dtype: DType;
  readonly shape: Shape;

  constructor(dtype: DType, shape: Shape) {
    this.dtype = dtype;
    this.shape = shape.map(normalizeDim);
  }
}

/** Declares an input of element type `dtype`; a dimension is a number or, in inference graphs, a name. */
export function spec(dtype: DType, shape: Shape): TensorSpec {
  return new TensorSpec(dtype, shape);
}

export type AttrValue = number | string | readonly number[] | readonly string[] | HostTensor;
export type Attrs = Readonly<Record<string, AttrValue>>;

let created = 0;

/** The id that the next node will get: what is older was there before. */
export function nextNodeId(): number {
  return created;
}

/** One operation of the graph. Ids grow with creation, so that they order a graph topologically. */
export class Node {
  readonly id: number = created++;
  readonly op: string;
  readonly inputs: readonly (Tensor | null)[];
  readonly attrs: Attrs;
  readonly outputs: readonly Tensor[];
  /** What only the library's own operations carry (a custom gradient, an input's name). */
  readonly extra: unknown;

  constructor(
    op: string,
    inputs: readonly (Tensor | null)[],
    attrs: Attrs,
    types: readonly TensorType[],
    extra?: unknown,
  ) {
    this.op = op;
    this.inputs = inputs;
    this.attrs = attrs;
    this.extra = extra;
    this.outputs = types.map((type, i) => new Tensor(this, i, type));
  }
}

/**
 * A tensor that does not exist yet: the `index`-th result of an operation in a graph under construction.
 * It knows its element type and shape; `compile` makes a program of it.
 */
export class Tensor implements TensorType {
  readonly node: Node;
  readonly index: number;
  readonly dtype: DType;
  readonly shape: Shape;

  constructor(node: Node, index: number, type: TensorType) {
    this.node = node;
    this.index = index;
    this.dtype = type.dtype;
    this.shape = type.shape;
  }

  get rank(): number {
    return this.shape.length;
  }

  toString(): string {
    return `Tensor(${this.dtype} ${formatShape(this.shape)} from ${this.node.op})`;
  }
}

/** Anything that a tensor operation takes: a symbolic tensor, a host tensor (a constant), or a number. */
export type TensorLike = Tensor | HostTensor | number;

export function isTensor(value: unknown): value is Tensor {
  return value instanceof Tensor;
}

export function isHostTensor(value: unknown): value is HostTensor {
  return value instanceof HostTensor;
}

/** A tensor, symbolic or on the host: a leaf of parameter trees. */
export type Leaf = Tensor | HostTensor;

export function isLeaf(value: unknown): value is Leaf {
  return isTensor(value) || isHostTensor(value);
}

// ---------------------------------------------------------------------------------------------- operations

export type AttrKind = "int" | "float" | "string" | "ints" | "floats" | "strings" | "tensor";

/** What a shape rule sees. It throws ShapeError, DTypeError or ArgumentError with the bare reason. */
export interface InferContext {
  readonly inputs: readonly (Tensor | null)[];
  readonly attrs: Attrs;
  /** Number of outputs asked for; only operations with optional or variadic outputs look at it. */
  readonly outputCount: number;
  /** Input `i`, which the operation cannot do without. */
  input(i: number): Tensor;
}

/** What a gradient rule sees. */
export interface VjpContext {
  readonly node: Node;
  readonly attrs: Attrs;
  readonly outputs: readonly Tensor[];
  /** Input `i`, known to be present. */
  input(i: number): Tensor;
  /** Cotangent of each output; null stands for zero. */
  readonly cotangents: readonly (Tensor | null)[];
  /** Which inputs need a cotangent; a rule may skip the others. */
  readonly needs: readonly boolean[];
}

/**
 * An operation: its attributes, its shape rule, its gradient. Names are ONNX's (`MatMul`, or
 * `com.microsoft.FusedMatMul` outside the standard domain); `pare.*` operations vanish while lowering.
 */
export interface OpDef {
  readonly name: string;
  readonly attrs?: Readonly<Record<string, AttrKind>>;
  /** Input counts: [least, most]. Optional inputs may be null. */
  readonly arity: readonly [number, number];
  infer(context: InferContext): readonly TensorType[];
  /** Cotangents of the inputs; null or a missing entry is zero. Absent: `expand` is differentiated, or nothing flows. */
  vjp?(context: VjpContext): readonly (Tensor | null)[];
  /** The same operation made of simpler ones: its portable form, and the source of its gradient where `vjp` is absent. */
  expand?(inputs: readonly (Tensor | null)[], attrs: Attrs, outputCount: number): readonly Tensor[];
  /** True for a kernel that onnxruntime adds to the standard domain; portable files get its expansion. */
  readonly nonstandard?: boolean;
  /** True where the gradient is zero by definition (comparisons, rounding, indices). */
  readonly flat?: boolean;
}

const registry = new Map<string, OpDef>();

/** Adds an operation to the table. @throws GraphError when the name is taken. */
export function defineOp(def: OpDef): void {
  if (registry.has(def.name)) throw new GraphError(`the operation ${def.name} is defined twice`);
  registry.set(def.name, def);
}

export function findOp(name: string): OpDef | undefined {
  return registry.get(name);
}

/** Names of all operations, sorted. */
export function listOps(): string[] {
  return [...registry.keys()].sort();
}

function describe(inputs: readonly (TensorLike | null)[]): string {
  return inputs.map((t) => (isLeaf(t) ? `${t.dtype} ${formatShape(t.shape)}` : `${t ?? "none"}`)).join(", ");
}

/** Errors that say already which operation they are about. */
const named = new WeakSet<Error>();

/**
 * What `build` returns. Errors about shapes, types and arguments that it raises with the bare reason are raised again
 * naming the operation, the types it was given and the caller's line.
 */
export function within<R>(name: string, inputs: readonly (TensorLike | null)[], build: () => R): R {
  try {
    return build();
  } catch (error) {
    if (!(error instanceof ShapeError || error instanceof DTypeError || error instanceof ArgumentError)) throw error;
    if (named.has(error)) throw error;
    const Kind = error.constructor as new (message: string) => Error;
    const place = callerLine();
    const reason = error.message.endsWith(place) ? error.message : `${error.message}${place}`;
    const full = new Kind(`${name}(${describe(inputs)}): ${reason}`);
    named.add(full);
    throw full;
  }
}

function checkAttrs(def: OpDef, attrs: Attrs): void {
  for (const [key, value] of Object.entries(attrs)) {
    const kind = def.attrs?.[key];
    if (!kind) throw new ArgumentError(`it has no attribute "${key}"`);
    const fits =
      kind === "int"
        ? Number.isSafeInteger(value)
        : kind === "float"
          ? typeof value === "number"
          : kind === "string"
            ? typeof value === "string"
            : kind === "tensor"
              ? value instanceof HostTensor
              : Array.isArray(value) &&
                (value as unknown[]).every((v) =>
                  kind === "ints" ? Number.isSafeInteger(v) : typeof v === (kind === "floats" ? "number" : "string"),
                );
    if (!fits) throw new ArgumentError(`its attribute "${key}" must be of kind ${kind}, not ${String(value)}`);
  }
}

/**
 * Adds an operation to the graph and returns its outputs. Errors of the shape rule are raised here, naming the
 * operation, the types it was given and the caller's line.
 */
export function applyOp(
  name: string,
  inputs: readonly (Tensor | null)[],
  attrs: Attrs = {},
  outputCount = 1,
): readonly Tensor[] {
  const def = registry.get(name);
  if (!def) throw new GraphError(`there is no operation called ${name}`);
  return within(name.replace(/^.*\./, ""), inputs, () => {
    const [least, most] = def.arity;
    if (inputs.length < least || inputs.length > most) {
      const count = most === Infinity ? `${least} or more` : least === most ? least : `${least} to ${most}`;
      throw new ArgumentError(`it takes ${count} inputs, not ${inputs.length}`);
    }
    checkAttrs(def, attrs);
    const input = (i: number): Tensor => {
      const t = inputs[i];
      if (!t) throw new ArgumentError(`its input ${i} is missing`);
      return t;
    };
    return new Node(name, inputs, attrs, def.infer({ inputs, attrs, outputCount, input })).outputs;
  });
}

/** `applyOp` for operations with one output. */
export function op(name: string, inputs: readonly (Tensor | null)[], attrs: Attrs = {}): Tensor {
  return applyOp(name, inputs, attrs)[0]!;
}

// ------------------------------------------------------------------------------------- inputs and constants

defineOp({
  name: "pare.Input",
  arity: [0, 0],
  infer: () => {
    throw new GraphError("inputs are made by compile and input(), not by applyOp");
  },
});

/** A named graph input. Programs get theirs from `compile`; this is for building graphs by hand. */
export function input(name: string, type: TensorType): Tensor {
  return new Node("pare.Input", [], {}, [{ dtype: type.dtype, shape: type.shape.map(normalizeDim) }], name).outputs[0]!;
}

/** Name of a graph input, or undefined for any other tensor. */
export function inputName(t: Tensor): string | undefined {
  return t.node.op === "pare.Input" ? (t.node.extra as string) : undefined;
}

defineOp({
  name: "Constant",
  attrs: { value: "tensor" },
  arity: [0, 0],
  infer: ({ attrs }) => [attrs.value as HostTensor],
});

const constants = new WeakMap<HostTensor, Tensor>();

/** A host tensor as a constant of the graph; the same host tensor always gives the same symbolic tensor. */
export function constant(value: HostTensor): Tensor {
  let found = constants.get(value);
  if (!found) {
    found = op("Constant", [], { value });
    constants.set(value, found);
  }
  return found;
}

/** The value of a constant tensor, or undefined where it is computed. */
export function constantOf(t: Tensor | null | undefined): HostTensor | undefined {
  return t?.node.op === "Constant" ? (t.node.attrs.value as HostTensor) : undefined;
}

/** A scalar constant of element type `dtype`. */
export function scalar(value: number, dtype: DType = "f32"): Tensor {
  const host = HostTensor.zeros(dtype, []);
  host.set(0, value);
  return constant(host);
}

/** A constant vector of `i64`, as ONNX wants shapes, axes and repeats. @throws ArgumentError for a fraction */
export function ints(values: readonly number[]): Tensor {
  const fraction = values.find((v) => !Number.isSafeInteger(v));
  if (fraction !== undefined) throw new ArgumentError(`${fraction} is not a whole number${callerLine()}`);
  return constant(new HostTensor("i64", [values.length], BigInt64Array.from(values, BigInt)));
}

/** A symbolic tensor of whatever an operation was given; a bare number takes the element type of `like`. */
export function asTensor(value: TensorLike, like?: TensorType): Tensor {
  if (value instanceof Tensor) return value;
  if (value instanceof HostTensor) return constant(value);
  if (typeof value === "number") {
    const dtype = like?.dtype ?? "f32";
    if (dtypes[dtype].kind !== "float" && !Number.isInteger(value)) {
      throw new DTypeError(`${value} is not a whole number, as ${dtype} needs${callerLine()}`);
    }
    return scalar(value, dtype);
  }
  throw new ArgumentError(
    `expected a tensor or a number, not ${value === null ? "null" : typeof value}${callerLine()}`,
  );
}

/** `axis` counted from the front. @throws ArgumentError when it is out of range. */
export function normalizeAxis(axis: number, rank: number): number {
  if (!Number.isInteger(axis) || axis < -rank || axis >= rank) {
    throw new ArgumentError(`axis ${axis} is outside of a tensor with ${rank} dimensions`);
  }
  return axis < 0 ? axis + rank : axis;
}

/** Dimension `axis` of `t` as a number. @throws ShapeError where it is only a name. */
export function staticDim(t: TensorType, axis: number): number {
  const dim: Dim = t.shape[normalizeAxis(axis, t.shape.length)]!;
  if (typeof dim !== "number") throw new ShapeError(`dimension ${axis} must be a number here, but it is "${dim}"`);
  return dim;
}
