import { type Graph, nodesOf } from "../src/onnx/index.ts";
import { byteLength, sizeOf, type Tensor } from "../src/tensor/index.ts";

/** Operations whose result lies over their input's memory. */
const views = new Set(["Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"]);

const bytesOf = (t: Tensor): number => byteLength(t.dtype, sizeOf(t.shape) as number);

/**
 * Most bytes that intermediate results take at one moment when a graph runs in the order of its nodes and each result is
 * freed behind its last reader. Inputs, constants and outputs are not counted: they are parameters and state.
 */
export function liveActivationBytes(graph: Graph): number {
  const nodes = nodesOf(graph.outputs.map((p) => p.tensor)).filter((n) => n.op !== "pare.Input" && n.op !== "Constant");
  const owner = new Map<Tensor, Tensor>();
  const rootOf = (t: Tensor): Tensor => owner.get(t) ?? t;
  for (const node of nodes) {
    const source = node.inputs[0];
    if (views.has(node.op) && source) owner.set(node.outputs[0]!, rootOf(source));
  }
  const lastUse = new Map<Tensor, number>();
  nodes.forEach((node, i) => {
    for (const t of node.inputs) if (t) lastUse.set(rootOf(t), i);
  });
  const kept = new Set(graph.outputs.map((p) => rootOf(p.tensor)));
  const made = new Set<Tensor>();
  let [live, most] = [0, 0];
  nodes.forEach((node, i) => {
    for (const t of node.outputs) {
      if (rootOf(t) !== t || kept.has(t) || !lastUse.has(t)) continue;
      made.add(t);
      live += bytesOf(t);
    }
    most = Math.max(most, live);
    for (const t of new Set(node.inputs.map((input) => (input ? rootOf(input) : null)))) {
      if (t && made.has(t) && lastUse.get(t) === i) live -= bytesOf(t);
    }
  });
  return most;
}
