import { formatShape, sameShape } from "./dims.ts";
import { ArgumentError, callerLine, DTypeError, GraphError, ShapeError } from "./errors.ts";
import { replay, tensorsBefore } from "./grad.ts";
import { defineOp, input, isTensor, Node, nextNodeId, type Tensor } from "./tensor.ts";
import { leavesOf, mapTree } from "./tree.ts";

/** What is computed if a condition holds, as a graph of its own: `inputs` stand for what it reads from around it. */
export interface Branch {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
}

/** Inputs: the condition, what the branch reads, then what is taken instead of its outputs. */
defineOp({
  name: "pare.When",
  arity: [1, Infinity],
  infer: () => {
    throw new GraphError("made by when only");
  },
});

/**
 * What `compute` returns where `condition` holds, else `otherwise`: the work of `compute` is done in the first case only,
 * unlike that of `where`. Gradients do not go through.
 * @param condition a `bool` scalar
 * @param compute a tree of tensors, from any that are there already
 * @param otherwise a tree of the same form and types
 */
export function when<R>(condition: Tensor, compute: () => R, otherwise: R): R {
  if (condition.dtype !== "bool") throw new DTypeError(`a condition is bool, not ${condition.dtype}${callerLine()}`);
  if (condition.rank !== 0)
    throw new ShapeError(`a condition is one truth, not of shape ${formatShape(condition.shape)}${callerLine()}`);
  const start = nextNodeId();
  const computed = leavesOf(compute(), isTensor);
  const kept = leavesOf(otherwise, isTensor);
  if (computed.map(({ path }) => path).join() !== kept.map(({ path }) => path).join())
    throw new ArgumentError(
      `what is computed, [${computed.map(({ path }) => path).join(", ")}], is no tree of the form of the other, [${kept.map(({ path }) => path).join(", ")}]${callerLine()}`,
    );
  computed.forEach(({ path, leaf: { dtype, shape } }, i) => {
    const other = kept[i]!.leaf;
    if (dtype !== other.dtype || !sameShape(shape, other.shape))
      throw new ShapeError(
        `${path || "what is computed"} is ${dtype} ${formatShape(shape)}, and otherwise ${other.dtype} ${formatShape(other.shape)}${callerLine()}`,
      );
  });
  const results = computed.map(({ leaf }) => leaf);
  const read = tensorsBefore(start, results);
  const inputs = read.map((t, i) => input(`outer${i}`, t));
  const outputs = replay(results, new Map(read.map((t, i) => [t, inputs[i]!])));
  const branch: Branch = { inputs, outputs };
  const node = new Node("pare.When", [condition, ...read, ...kept.map(({ leaf }) => leaf)], {}, results, branch);
  let i = 0;
  return mapTree(otherwise, isTensor, () => node.outputs[i++]!) as R;
}
