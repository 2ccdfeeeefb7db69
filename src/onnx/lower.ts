import {
  type Attrs,
  type Branch,
  cast,
  constant,
  constantOf,
  findOp,
  HostTensor,
  ints,
  isStatic,
  knownNumbers,
  Node,
  op,
  reshape,
  type Tensor,
} from "../tensor/index.ts";
import { type Graph, makeGraph } from "./graph.ts";
import { simplify } from "./simplify.ts";

export interface LowerOptions {
  /** Keep to the standard operators, without `com.microsoft` kernels. */
  readonly portable?: boolean;
  /** Leave out what onnxruntime adds to the standard domain, or what came to it after the operator set of files. */
  readonly strict?: boolean;
  /** Which operations give way to their expansions; default: those that `portable` and `strict` leave out. */
  readonly expands?: (node: Node) => boolean;
}

/**
 * A graph of plain ONNX operators that computes the same: the library's own operations are taken out, constants
 * folded, equal work shared, dead work dropped, and transpositions taken into the products that read them.
 */
export function lower(graph: Graph, options: LowerOptions = {}): Graph {
  const lowering = new Lowering(options);
  for (const { tensor } of graph.inputs) lowering.keep(tensor);
  const outputs = graph.outputs.map(({ name, tensor }) => ({ name, tensor: lowering.visit(tensor) }));
  return makeGraph(graph.inputs, outputs);
}

class Lowering {
  readonly #done = new Map<Tensor, Tensor>();
  readonly #shared = new Map<string, Node>();
  readonly #numbers = new Map<Tensor, number>();
  readonly #constants = new Map<string, Tensor>();
  readonly #portable: boolean;
  readonly #expands: (node: Node) => boolean;

  constructor({ portable = false, strict = portable, expands }: LowerOptions) {
    this.#portable = portable;
    this.#expands =
      expands ??
      (({ op: name }) => (name.startsWith("com.microsoft.") ? portable : strict && findOp(name)!.nonstandard === true));
  }

  /** Marks a tensor as being in its final form. */
  keep(t: Tensor): Tensor {
    this.#done.set(t, t);
    return t;
  }

  /** The lowered form of `t`; everything that it depends on is lowered first. */
  visit(t: Tensor): Tensor {
    const open: Node[] = [];
    const seen = new Set<Node>();
    const stack = [t];
    while (stack.length > 0) {
      const next = stack.pop()!;
      if (this.#done.has(next) || seen.has(next.node)) continue;
      seen.add(next.node);
      open.push(next.node);
      for (const source of next.node.inputs) if (source) stack.push(source);
    }
    for (const node of open.sort((a, b) => a.id - b.id)) this.#lowerNode(node);
    return this.#done.get(t)!;
  }

  #lowerNode(node: Node): void {
    const inputs = node.inputs.map((t) => (t ? this.#done.get(t)! : null));
    const results = this.#lowered(node, inputs);
    node.outputs.forEach((t, i) => {
      const result = results[i];
      if (result) this.#done.set(t, result);
    });
  }

  /** The final forms of a node's outputs; an output that nobody can ask for may be missing. */
  #lowered(node: Node, inputs: readonly (Tensor | null)[]): readonly (Tensor | undefined)[] {
    switch (node.op) {
      case "Constant":
        return [this.#constant(node.outputs[0]!)];
      case "pare.Input":
        return [this.keep(node.outputs[0]!)];
      case "pare.StopGradient":
        return [inputs[0]!];
      case "pare.CustomVjp":
        return inputs.slice(inputs.length - node.outputs.length) as Tensor[];
      case "pare.After":
        return [this.#delay(inputs[0]!, inputs.slice(1) as Tensor[])];
      case "pare.When":
        return this.#when(node, inputs);
    }
    const { expand } = findOp(node.op)!;
    if (expand && this.#expands(node)) return expand(inputs, node.attrs, node.outputs.length).map((t) => this.visit(t));
    const simpler = simplify(node, inputs, { portable: this.#portable });
    return simpler ? [this.visit(simpler)] : this.#emit(node, inputs);
  }

  /** The node with lowered inputs, or an equal one that exists already. */
  #emit(node: Node, inputs: readonly (Tensor | null)[]): readonly Tensor[] {
    const { dtype, shape } = node.outputs[0]!;
    // Nothing is to be computed of a tensor without elements, and onnxruntime folds some of them wrongly.
    if (node.outputs.length === 1 && isStatic(shape) && shape.includes(0)) {
      return [this.#constant(constant(HostTensor.zeros(dtype, shape)))];
    }
    const numbers = node.outputs.length === 1 ? knownNumbers(node.outputs[0]) : undefined;
    // Beyond 2^53 a number is not exactly the integer that the graph would compute.
    if (numbers?.every(Number.isSafeInteger)) {
      return [this.#constant(constant(HostTensor.from(numbers, { dtype, shape: shape as number[] })))];
    }
    const key = `${node.op}|${inputs.map((t) => (t ? this.#number(t) : "-")).join(",")}|${attrsKey(node.attrs)}|${node.outputs.length}`;
    let shared = this.#shared.get(key);
    if (!shared) {
      const same = inputs.every((t, i) => t === node.inputs[i]);
      shared = same ? node : new Node(node.op, inputs, node.attrs, node.outputs, node.extra);
      this.#shared.set(key, shared);
      for (const t of shared.outputs) this.keep(t);
    }
    return shared.outputs;
  }

  /** One tensor for all small constants of equal value. */
  #constant(t: Tensor): Tensor {
    const value = constantOf(t)!;
    if (value.size > 64) return this.keep(t);
    const key = `${value.dtype}[${value.shape.join(",")}]${Array.from(value.rawBytes()).join(",")}`;
    const known = this.#constants.get(key);
    if (known) return known;
    this.#constants.set(key, t);
    return this.keep(t);
  }

  /** `x` plus a zero that is computed from `others`, so that no scheduler can have it before them. */
  #delay(x: Tensor, others: readonly Tensor[]): Tensor {
    const never = others
      .map((other) => {
        const first = op("Slice", [reshape(other, [-1]), ints([0]), ints([1]), ints([0])]);
        const self = op("Equal", [first, first]);
        return op("And", [self, op("Not", [self])]);
      })
      .reduce((a, b) => op("Or", [a, b]));
    const fitting = x.rank === 0 ? reshape(never, []) : never;
    const delayed = x.dtype === "bool" ? op("Or", [x, fitting]) : op("Add", [x, cast(fitting, x.dtype)]);
    return this.visit(delayed);
  }

  /** A choice with its branch lowered, as a graph of its own. */
  #when(node: Node, inputs: readonly (Tensor | null)[]): readonly Tensor[] {
    const branch = node.extra as Branch;
    const named = (tensors: readonly Tensor[], name: string) =>
      tensors.map((tensor, i) => ({ name: `${name}${i}`, tensor }));
    const graph = makeGraph(named(branch.inputs, "in"), named(branch.outputs, "out"));
    const lowered = lower(graph, { portable: this.#portable, expands: this.#expands });
    const outputs = lowered.outputs.map(({ tensor }) => tensor);
    const choice = new Node(node.op, inputs, {}, node.outputs, { inputs: branch.inputs, outputs } satisfies Branch);
    return choice.outputs.map((t) => this.keep(t));
  }

  #number(t: Tensor): number {
    let number = this.#numbers.get(t);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(t, number);
    }
    return number;
  }
}

const hostTensors = new WeakMap<HostTensor, number>();
let hostCount = 0;

function attrsKey(attrs: Attrs): string {
  return JSON.stringify(attrs, (_key, value: unknown) => {
    if (!(value instanceof HostTensor)) return value;
    if (!hostTensors.has(value)) hostTensors.set(value, hostCount++);
    return `tensor ${hostTensors.get(value)}`;
  });
}
