import { type Graph, nodesOf } from "../onnx/index.ts";
import { type Node, sameShape, type Tensor } from "../tensor/index.ts";

/** Results that onnxruntime may lay over the memory of their input. */
const VIEWS = new Set(["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"]);
/** Operations that have read element `i` of each input when they write element `i`. */
const ELEMENTWISE = new Set([
  "Add",
  "Sub",
  "Mul",
  "Div",
  "Where",
  "Max",
  "Min",
  "Clip",
  "Neg",
  "Sqrt",
  "Abs",
  "Sign",
  "Pow",
]);

/**
 * Whether `next` may be written over the memory of the input `current` while the graph runs: everything that reads
 * `current` must come before the node that makes `next`, in any order that a scheduler may choose, and that node itself may only
 * read it element by element.
 */
export function mayOverwrite(graph: Graph, current: Tensor, next: Tensor): boolean {
  if (next.node.op === "Constant" || next.node.op === "pare.Input" || VIEWS.has(next.node.op)) return false;
  const before = new Set(nodesOf([next]));
  const aliases = new Set([current]);
  for (const node of nodesOf(graph.outputs.map((p) => p.tensor))) {
    if (!node.inputs.some((t) => t && aliases.has(t))) continue;
    if (VIEWS.has(node.op)) for (const t of node.outputs) aliases.add(t);
    if (node === next.node ? !readsElementwise(node, aliases, next) : !before.has(node)) return false;
  }
  return !graph.outputs.some(({ tensor }) => aliases.has(tensor));
}

function readsElementwise(node: Node, aliases: ReadonlySet<Tensor>, result: Tensor): boolean {
  return (
    ELEMENTWISE.has(node.op) && node.inputs.every((t) => !t || !aliases.has(t) || sameShape(t.shape, result.shape))
  );
}
