import { ArgumentError } from "../tensor/errors.ts";
import type { Node, Tensor } from "../tensor/tensor.ts";

/** A program: named inputs and outputs with the graph between them. */
export interface Graph {
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

/** A tensor at the border of a graph, under the name it is fed or fetched by. */
export interface Port {
  readonly name: string;
  readonly tensor: Tensor;
}

/** The graph between `inputs` and `outputs`. @throws ArgumentError where a name repeats or an input was left out. */
export function makeGraph(inputs: readonly Port[], outputs: readonly Port[]): Graph {
  const names = new Set<string>();
  for (const { name } of [...inputs, ...outputs]) {
    if (name === "") throw new ArgumentError("an input or output of the graph has an empty name");
    if (names.has(name)) throw new ArgumentError(`two inputs or outputs of the graph are called "${name}"`);
    names.add(name);
  }
  const known = new Set(inputs.map((p) => p.tensor));
  for (const node of nodesOf(outputs.map((p) => p.tensor))) {
    if (node.op === "pare.Input" && !known.has(node.outputs[0]!)) {
      throw new ArgumentError(
        `the graph uses the input "${String(node.extra)}", which is not among its inputs: a tensor of another trace was used`,
      );
    }
  }
  return { inputs, outputs };
}

/** All nodes that `outputs` depend on, in the order of their creation, which is topological. */
export function nodesOf(outputs: readonly Tensor[]): Node[] {
  const seen = new Set<Node>();
  const stack = outputs.map((t) => t.node);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (seen.has(node)) continue;
    seen.add(node);
    for (const t of node.inputs) if (t) stack.push(t.node);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}
