import {
  type AttrValue,
  type Branch,
  constantOf,
  dtypes,
  findOp,
  type HostTensor,
  type Node,
  type Shape,
  type Tensor,
  type TensorType,
} from "../tensor/index.ts";
import { nodesOf, type Port } from "./graph.ts";
import {
  type AttributeProto,
  attributeType,
  type GraphProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from "./schema.ts";

/** Told the name that each node gets in the file. */
export type OnNode = (node: Node, name: string) => void;

/** Names of tensors in a file. */
export type Names = Map<Tensor, string>;

/** Nodes of a graph and of the graphs inside of them as messages; names are unique throughout, constants are the graph's. */
export class NodeWriter {
  readonly initializer: TensorProto[] = [];
  readonly #constants: Names = new Map();
  readonly #taken: ReadonlySet<string>;
  readonly #onNode: OnNode | undefined;
  #count = 0;

  constructor(ports: readonly Port[], onNode: OnNode | undefined) {
    this.#taken = new Set(ports.map((p) => p.name));
    this.#onNode = onNode;
  }

  /** @param names of tensors that have one; those of the nodes' outputs are added */
  write(nodes: readonly Node[], names: Names): NodeProto[] {
    const written: NodeProto[] = [];
    for (const node of nodes) {
      const value = constantOf(node.outputs[0]);
      if (value) this.#constant(node.outputs[0]!, value);
      if (value || node.op === "pare.Input") continue;
      for (const t of node.outputs) if (!names.has(t)) names.set(t, this.#fresh("t"));
      const name = this.#fresh("n");
      this.#onNode?.(node, name);
      written.push(node.op === "pare.When" ? this.#choice(node, names, name) : this.#node(node, names, name));
    }
    return written;
  }

  nameOf(t: Tensor, names: Names): string {
    return this.#constants.get(t) ?? names.get(t)!;
  }

  copy(from: string, to: string): NodeProto {
    return { opType: "Identity", name: this.#fresh("n"), input: [from], output: [to] };
  }

  #fresh(prefix: string): string {
    let name: string;
    do name = `${prefix}${this.#count++}`;
    while (this.#taken.has(name));
    return name;
  }

  #constant(t: Tensor, value: HostTensor): void {
    if (this.#constants.has(t)) return;
    const name = this.#fresh("c");
    this.#constants.set(t, name);
    this.initializer.push(tensorProto(value, name));
  }

  #node(node: Node, names: Names, name: string): NodeProto {
    const input = node.inputs.map((t) => (t ? this.nameOf(t, names) : ""));
    while (input.at(-1) === "") input.pop();
    const dot = node.op.lastIndexOf(".");
    const kinds = findOp(node.op)!.attrs ?? {};
    return {
      input,
      output: node.outputs.map((t) => names.get(t)!),
      name,
      opType: node.op.slice(dot + 1),
      attribute: Object.entries(node.attrs).map(([key, value]) => attributeProto(key, kinds[key]!, value)),
      ...(dot > 0 ? { domain: node.op.slice(0, dot) } : {}),
    };
  }

  /** `If`, whose graphs read what is around them by its names. */
  #choice(node: Node, names: Names, name: string): NodeProto {
    const [condition, ...others] = node.inputs.map((t) => this.nameOf(t!, names));
    const { inputs, outputs } = node.extra as Branch;
    const inside: Names = new Map([...names, ...inputs.map((t, i) => [t, others[i]!] as const)]);
    const work = this.write(nodesOf(outputs), inside);
    const results = outputs.map((t) => this.nameOf(t, inside));
    const branch = (attribute: string, before: NodeProto[], from: readonly string[]): AttributeProto => {
      const to = from.map(() => this.#fresh("t"));
      const graph: GraphProto = {
        name: attribute,
        node: [...before, ...from.map((source, i) => this.copy(source, to[i]!))],
        output: node.outputs.map((t, i) => valueInfo(to[i]!, t)),
      };
      return { name: attribute, type: attributeType.graph, g: graph };
    };
    return {
      input: [condition!],
      output: node.outputs.map((t) => names.get(t)!),
      name,
      opType: "If",
      attribute: [branch("then_branch", work, results), branch("else_branch", [], others.slice(inputs.length))],
    };
  }
}

export function valueInfo(name: string, { dtype, shape }: TensorType): ValueInfoProto {
  return { name, type: { tensorType: { elemType: dtypes[dtype].onnx, shape: { dim: dimsOf(shape) } } } };
}

function dimsOf(shape: Shape): { dimValue?: number; dimParam?: string }[] {
  return shape.map((d) => (typeof d === "number" ? { dimValue: d } : { dimParam: d }));
}

/** A host tensor as an ONNX tensor over the same memory. */
export function tensorProto(value: HostTensor, name: string): TensorProto {
  return { name, dims: [...value.shape], dataType: dtypes[value.dtype].onnx, rawData: value.rawBytes() };
}

const utf8 = new TextEncoder();

function attributeProto(name: string, kind: string, value: AttrValue): AttributeProto {
  switch (kind) {
    case "int":
      return { name, type: attributeType.int, i: value as number };
    case "float":
      return { name, type: attributeType.float, f: value as number };
    case "string":
      return { name, type: attributeType.string, s: utf8.encode(value as string) };
    case "ints":
      return { name, type: attributeType.ints, ints: [...(value as readonly number[])] };
    case "floats":
      return { name, type: attributeType.floats, floats: [...(value as readonly number[])] };
    case "strings":
      return { name, type: attributeType.strings, strings: (value as readonly string[]).map((s) => utf8.encode(s)) };
    default:
      return { name, type: attributeType.tensor, t: tensorProto(value as HostTensor, name) };
  }
}
