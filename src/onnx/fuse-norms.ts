import { applyOp, isTensor, leavesOf, mapTree, Node, sameShape, type Tensor } from "../tensor/index.ts";
import { nodesOf } from "./graph.ts";

const NORM = "SimplifiedLayerNormalization";
const SKIP_NORM = "com.microsoft.SkipSimplifiedLayerNormalization";

/**
 * The same tensors with each addition and the RMS norm behind it as one operation, for which onnxruntime has a kernel.
 * It belongs in programs that only run: what training reads of a norm besides is left out.
 * @param outputs a tree of symbolic tensors
 */
export function fuseNorms<T>(outputs: T): T {
  const done = new Map<Tensor, Tensor>();
  const newest = (t: Tensor): Tensor => done.get(t) ?? t;
  for (const node of nodesOf(leavesOf(outputs, isTensor).map(({ leaf }) => leaf))) {
    const inputs = node.inputs.map((t) => t && newest(t));
    const pair = skipNorm(node, inputs);
    if (pair) {
      done.set(node.outputs[0]!, pair[0]!);
      done.set(node.inputs[0]!, pair[3]!);
    } else if (inputs.some((t, i) => t !== node.inputs[i])) {
      const { outputs: moved } = new Node(node.op, inputs, node.attrs, node.outputs, node.extra);
      for (const [i, t] of node.outputs.entries()) done.set(t, moved[i]!);
    }
  }
  return mapTree(outputs, isTensor, newest) as T;
}

/** The outputs of a norm together with the addition before it, where `node` is such a norm. */
function skipNorm(node: Node, [sum, scale]: readonly (Tensor | null)[]): readonly Tensor[] | undefined {
  if (node.op !== NORM || sum!.node.op !== "Add" || scale!.rank !== 1) return undefined;
  const [x, skip] = sum!.node.inputs as readonly [Tensor, Tensor];
  if (sum!.dtype !== "f32" || sum!.rank !== 3 || !sameShape(x.shape, skip.shape)) return undefined;
  const { epsilon } = node.attrs;
  return applyOp(SKIP_NORM, [x, skip, scale!], epsilon === undefined ? {} : { epsilon }, 4);
}
