import {
  ArgumentError,
  type Attrs,
  asTensor,
  constant,
  type Dim,
  type DType,
  DTypeError,
  didYouMean,
  dtypeFromOnnx,
  evaluateDim,
  formatShape,
  type HostTensor,
  input,
  knownInts,
  listOps,
  normalizeDim,
  PareError,
  type Shape,
  ShapeError,
  type Tensor,
  type TensorLike,
  termsOf,
} from "../tensor/index.ts";
import { checkModel } from "./check.ts";
import { OnnxError } from "./errors.ts";
import { type Graph, makeGraph } from "./graph.ts";
import { domainOf, operatorOf, opsetsOf } from "./opsets.ts";
import { describeNode, sortNodes } from "./order.ts";
import { readAttributes } from "./read-attributes.ts";
import { countElements, type ExternalData, MAX_ELEMENTS, readTensor } from "./read-tensor.ts";
import type { GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto } from "./schema.ts";
import { signatureOf, upgrade } from "./upgrade.ts";
import { decodeModel } from "./wire.ts";

export interface FromOnnxOptions {
  /** Fetches weights that lie in a file beside the model; in Node, `readOnnxFile` does it. */
  readonly externalData?: ExternalData;
  /** Most elements that a tensor of the model, weight or result, may have; default 2^32. */
  readonly maxElements?: number;
}

/** An input or output as the file declares it. */
export interface ModelPort {
  readonly name: string;
  readonly dtype: DType;
  /** Absent where the file leaves even the number of dimensions open. */
  readonly shape: Shape | undefined;
}

/** A node whose attributes have been read. */
interface Step {
  readonly where: string;
  readonly op: string;
  readonly version: number;
  readonly inputs: readonly string[];
  readonly attrs: Attrs;
  readonly outputs: readonly string[];
}

/**
 * Reads an ONNX model of any producer.
 * @throws OnnxError where the file is damaged, breaks a rule of the format, or uses what pare does not know.
 */
export function fromOnnx(bytes: Uint8Array, options: FromOnnxOptions = {}): OnnxModel {
  const { maxElements: limit = MAX_ELEMENTS, externalData } = options;
  const model = decodeModel(bytes);
  if (!model.graph) throw new OnnxError("the file has no graph: it is empty, cut off, or not an ONNX model");
  const graph: GraphProto = { ...model.graph, node: sortNodes(model.graph) };
  checkModel({ ...model, graph }, { maxElements: limit });
  const opsets = opsetsOf(model);
  const nodes = neededNodes(graph);
  refuseUnknown(nodes, opsets);
  const read = new Set([...nodes.flatMap((n) => n.input ?? []), ...(graph.output ?? []).map((p) => p.name!)]);
  const initializers = new Map<string, HostTensor>();
  for (const tensor of graph.initializer ?? []) {
    const name = tensor.name!;
    const what = `the initializer "${name}"`;
    if (read.has(name)) initializers.set(name, readTensor(tensor, { what, limit, externalData }));
  }
  return new OnnxModel(
    model,
    nodes.map((node) => stepOf(node, opsets, limit)),
    initializers,
    limit,
  );
}

/**
 * A model that was read from a file: an ordinary function over tensors, `call`, and a bag of named weights. It can be
 * compiled, differentiated with respect to its weights, given compressed ones, or written again.
 */
export class OnnxModel {
  readonly inputs: readonly ModelPort[];
  readonly outputs: readonly ModelPort[];
  /** What the model has learned, by name: its initializers but for those in `constants`. */
  readonly weights: Readonly<Record<string, HostTensor>>;
  /** Initializers that say how to compute: shapes, axes, indices, scale factors. */
  readonly constants: Readonly<Record<string, HostTensor>>;
  readonly metadata: Readonly<Record<string, string>>;
  readonly producer: string;
  /** Version of the standard operator set that the file was written for. */
  readonly opset: number;
  readonly #steps: readonly Step[];
  readonly #initializers: ReadonlyMap<string, HostTensor>;
  readonly #limit: number;

  /** Made by `fromOnnx`. */
  constructor(model: ModelProto, steps: readonly Step[], initializers: ReadonlyMap<string, HostTensor>, limit: number) {
    const { graph, metadataProps = [], producerName = "" } = model;
    const isConstant = constantTest(steps);
    const all = [...initializers];
    this.inputs = portsOf(graph!.input, graph!.initializer);
    this.outputs = portsOf(graph!.output);
    this.weights = Object.fromEntries(all.filter(([name, value]) => !isConstant(name, value)));
    this.constants = Object.fromEntries(all.filter(([name, value]) => isConstant(name, value)));
    this.metadata = Object.fromEntries(metadataProps.map(({ key = "", value = "" }) => [key, value]));
    this.producer = producerName;
    this.opset = opsetsOf(model).get("") ?? 0;
    this.#steps = steps;
    this.#initializers = initializers;
    this.#limit = limit;
  }

  /**
   * The outputs by name, as a graph over the inputs. `weights` replace initializers of the same names: pass tensors to
   * differentiate with respect to them; those left out are constants.
   * @throws ArgumentError for a missing or unknown name; ShapeError, DTypeError, OnnxError where types do not fit.
   */
  call(
    inputs: Readonly<Record<string, TensorLike>>,
    weights: Readonly<Record<string, TensorLike>> = {},
  ): Record<string, Tensor> {
    const values = new Map<string, Tensor>();
    for (const [name, value] of this.#initializers) values.set(name, constant(value));
    for (const [name, value] of Object.entries(weights)) {
      const stored = this.#initializers.get(name);
      if (!stored) throw new ArgumentError(`the model has no weight "${name}"`);
      values.set(name, asTensor(value, stored));
    }
    for (const [name, tensor] of bindInputs(this.inputs, inputs)) values.set(name, tensor);
    for (const step of this.#steps) {
      const results = this.#run(
        step,
        step.inputs.map((name) => (name === "" ? null : values.get(name)!)),
      );
      step.outputs.forEach((name, i) => {
        if (name !== "") values.set(name, results[i]!);
      });
    }
    return Object.fromEntries(this.outputs.map((port) => [port.name, this.#result(port, values.get(port.name)!)]));
  }

  /**
   * The graph at the declared input shapes, with all weights as constants.
   * @param dims numbers for named dimensions, `{ batch: 1 }`; the others keep their names.
   * @throws ArgumentError for a name that no input has.
   */
  graph(dims: Readonly<Record<string, number>> = {}): Graph {
    const bindings = new Map(Object.entries(dims));
    const declared = this.inputs.flatMap((p) => p.shape ?? []);
    const named = new Set(declared.flatMap((d) => termsOf(d).flatMap((term) => term.names)));
    const unknown = Object.keys(dims).find((name) => !named.has(name));
    if (unknown !== undefined) throw new ArgumentError(`no input has the dimension "${unknown}"`);
    const ports = this.inputs.map(({ name, dtype, shape }) => {
      if (!shape)
        throw new ShapeError(`the file does not say the shape of the input "${name}"; build the graph with call`);
      return { name, tensor: input(name, { dtype, shape: shape.map((d) => evaluateDim(d, bindings) ?? d) }) };
    });
    const taken = new Set(this.inputs.map((p) => p.name));
    const outputs = Object.entries(this.call(Object.fromEntries(ports.map((p) => [p.name, p.tensor])))).map(
      ([name, tensor]) => {
        // An input that is returned as it is needs a second name.
        return { name: taken.has(name) ? `${name}_out` : name, tensor };
      },
    );
    return makeGraph(ports, outputs);
  }

  #run(step: Step, inputs: readonly (Tensor | null)[]): readonly Tensor[] {
    try {
      const results = upgrade({ ...step, inputs, outputCount: step.outputs.length });
      if (results.length < step.outputs.length)
        throw new ArgumentError(`it has ${results.length} outputs, not ${step.outputs.length}`);
      for (const t of results) {
        checkResult(t, this.#limit);
        // Looked up now, while what it depends on is at hand: chains of any length stay shallow.
        knownInts(t);
      }
      return results;
    } catch (error) {
      if (!(error instanceof PareError)) throw error;
      throw new OnnxError(`${step.where}: ${error.message}`, { cause: error });
    }
  }

  #result({ name, dtype }: ModelPort, tensor: Tensor): Tensor {
    if (tensor.dtype !== dtype)
      throw new OnnxError(`the output "${name}" is declared as ${dtype} but computed as ${tensor.dtype}`);
    return tensor;
  }
}

// --------------------------------------------------------------------------------------------------- loading

/** The nodes that the outputs depend on, in order. */
function neededNodes(graph: GraphProto): NodeProto[] {
  const wanted = new Set((graph.output ?? []).map((p) => p.name));
  const needed: NodeProto[] = [];
  for (const node of (graph.node ?? []).toReversed()) {
    if (!(node.output ?? []).some((name) => wanted.has(name))) continue;
    needed.push(node);
    for (const name of node.input ?? []) if (name !== "") wanted.add(name);
  }
  return needed.reverse();
}

/** Operators that no table of tensor operations will ever have, and why. */
const REASONS: readonly (readonly [RegExp, string])[] = [
  [/^(If|Loop|Scan)$/, "control flow is not supported; export the model with fixed sizes, or simplify it first"],
  [/^(Random|Bernoulli|Multinomial)/, "random numbers come in as inputs"],
  [/^(Sequence|Optional|SplitToSequence|ConcatFromSequence)/, "sequences and optionals are not supported"],
  [
    /^(String|RegexFullMatch|TfIdfVectorizer|com\.microsoft\.extensions\.)/,
    "text and files are read outside of the model",
  ],
  [/^ai\.onnx\.ml\./, "classical machine learning is not supported"],
];

/** @throws OnnxError naming every operator that pare does not know, with the reason or the nearest name. */
function refuseUnknown(nodes: readonly NodeProto[], opsets: ReadonlyMap<string, number>): void {
  const unknown = new Map<string, NodeProto>();
  for (const node of nodes) {
    const op = operatorOf(node);
    if (!unknown.has(op) && !signatureOf(op, opsets.get(domainOf(node))!)) unknown.set(op, node);
  }
  if (unknown.size === 0) return;
  const lines = [...unknown].map(([op, node]) => {
    const reason = REASONS.find(([pattern]) => pattern.test(op))?.[1];
    return `${op}, first used by ${describeNode(node)}${reason ? ` (${reason})` : didYouMean(op, listOps())}`;
  });
  throw new OnnxError(`the model uses operators that pare does not know: ${lines.join("; ")}`);
}

function stepOf(node: NodeProto, opsets: ReadonlyMap<string, number>, limit: number): Step {
  const op = operatorOf(node);
  const version = opsets.get(domainOf(node))!;
  const where = describeNode(node);
  const attrs = readAttributes(node, signatureOf(op, version)!.attrs, where, limit);
  return { where, op, version, inputs: node.input ?? [], attrs, outputs: node.output ?? [] };
}

/** Inputs that decide the shape of a result and must be known while tracing, whatever their type. */
const STRUCTURAL: Readonly<Record<string, readonly number[]>> = { Resize: [1, 2], Upsample: [1] };

function constantTest(steps: readonly Step[]): (name: string, value: HostTensor) => boolean {
  const structural = new Set(steps.flatMap(({ op, inputs }) => (STRUCTURAL[op] ?? []).map((i) => inputs[i])));
  return (name, { dtype }) => dtype === "i64" || dtype === "i32" || dtype === "bool" || structural.has(name);
}

/** The ports among `infos` that have no value in the file. */
function portsOf(infos: readonly ValueInfoProto[] = [], initializers: readonly TensorProto[] = []): ModelPort[] {
  const valued = new Set(initializers.map((t) => t.name));
  const taken = new Set<string>();
  return infos
    .filter(({ name }) => !valued.has(name))
    .map(({ name = "", type }) => {
      const { elemType, shape } = type!.tensorType!;
      return { name, dtype: dtypeFromOnnx(elemType!)!, shape: shape && dimsOf(name, shape.dim ?? [], taken) };
    });
}

/** Dimensions as numbers and names; what is no name, or unnamed, gets a name of its own. */
function dimsOf(port: string, dims: readonly { dimValue?: number; dimParam?: string }[], taken: Set<string>): Dim[] {
  return dims.map(({ dimValue, dimParam }, axis) => {
    if (dimValue !== undefined) return dimValue;
    if (dimParam && /^[A-Za-z_][\w.:]*( *[+*] *(\d+|[A-Za-z_][\w.:]*))*$/.test(dimParam)) return normalizeDim(dimParam);
    let name = `${port.replaceAll(/\W/g, "_")}_dim${axis}`;
    while (taken.has(name)) name += "_";
    taken.add(name);
    return name;
  });
}

// --------------------------------------------------------------------------------------------------- calling

/** The given inputs as tensors, checked against their declarations. @throws ArgumentError, DTypeError, ShapeError */
function bindInputs(ports: readonly ModelPort[], given: Readonly<Record<string, TensorLike>>): [string, Tensor][] {
  const names = ports.map((p) => p.name).join(", ");
  const unknown = Object.keys(given).find((name) => !ports.some((p) => p.name === name));
  if (unknown !== undefined) throw new ArgumentError(`the model has no input "${unknown}"; it takes ${names}`);
  const bound = new Map<string, Dim>();
  return ports.map(({ name, dtype, shape }) => {
    if (!Object.hasOwn(given, name))
      throw new ArgumentError(`the input "${name}" was not given; the model takes ${names}`);
    const tensor = asTensor(given[name]!, { dtype, shape: [] });
    if (tensor.dtype !== dtype) throw new DTypeError(`the input "${name}" takes ${dtype}, not ${tensor.dtype}`);
    if (shape && !bindShape(shape, tensor.shape, bound)) {
      const known = [...bound].map(([dim, value]) => `${dim} = ${value}`).join(", ");
      throw new ShapeError(
        `the input "${name}" takes ${formatShape(shape)}, but ${formatShape(tensor.shape)} was given${known && ` (with ${known})`}`,
      );
    }
    return [name, tensor];
  });
}

/** Whether a shape fits a declaration; names in it are bound on the way. */
function bindShape(declared: Shape, shape: Shape, bound: Map<string, Dim>): boolean {
  return (
    declared.length === shape.length &&
    declared.every((want, i) => {
      if (typeof want === "number") return want === shape[i];
      // Sums and products are left to the operations that need them.
      if (/[+*]/.test(want)) return true;
      if (!bound.has(want)) bound.set(want, shape[i]!);
      return bound.get(want) === shape[i];
    })
  );
}

const MAX_RANK = 64;
/** Longest name of a dimension; arithmetic on names can make it grow without end. */
const MAX_NAME = 1024;

/** @throws ShapeError for a result that no machine could hold. */
function checkResult({ shape, dtype }: Tensor, limit: number): void {
  const what = `a result of type ${dtype}`;
  if (shape.length > MAX_RANK) throw new ShapeError(`${what} has ${shape.length} dimensions`);
  if (shape.some((d) => typeof d === "string" && d.length > MAX_NAME))
    throw new ShapeError(`${what} has a dimension without a readable name`);
  countElements(
    shape.filter((d) => typeof d === "number"),
    limit,
    what,
  );
}
