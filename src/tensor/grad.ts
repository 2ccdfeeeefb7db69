import { formatShape, sameShape } from "./dims.ts";
import { isFloat } from "./dtype.ts";
import { ArgumentError, callerLine, DTypeError, GraphError, ShapeError } from "./errors.ts";
import { add, identity } from "./ops/elementwise.ts";
import { onesLike, zerosLike } from "./ops/fill.ts";
import {
  applyOp,
  asTensor,
  defineOp,
  findOp,
  isHostTensor,
  isTensor,
  Node,
  nextNodeId,
  type Tensor,
  type TensorLike,
  type TensorType,
  within,
} from "./tensor.ts";
import { leavesOf, mapTree } from "./tree.ts";

/**
 * Reverse-mode differentiation as a transformation of the graph: the cotangents it returns are tensors like any
 * other, so gradients of gradients need nothing more.
 */
function pullBack(
  outputs: readonly Tensor[],
  cotangents: readonly (Tensor | null)[],
  wrt: readonly Tensor[],
): (Tensor | null)[] {
  const path = nodesBetween(outputs, new Set(wrt));
  const pending = new Map<Tensor, Tensor>();
  const give = (t: Tensor, cotangent: Tensor): void => {
    const before = pending.get(t);
    pending.set(t, before ? add(before, cotangent) : cotangent);
  };
  outputs.forEach((t, i) => {
    const cotangent = cotangents[i];
    if (cotangent) give(t, cotangent);
  });
  const wanted = new Set(wrt);
  for (const node of path.order) {
    if (!node.outputs.some((t) => pending.has(t))) continue;
    const needs = node.inputs.map((t) => t !== null && (wanted.has(t) || path.nodes.has(t.node)) && isFloat(t.dtype));
    if (!needs.includes(true)) continue;
    const received = node.outputs.map((t) => pending.get(t) ?? null);
    const given = vjpOf(node, received, needs);
    node.inputs.forEach((t, i) => {
      const cotangent = given[i];
      if (!t || !needs[i] || !cotangent) return;
      checkCotangent(`the gradient rule of ${node.op}, for its input ${i},`, cotangent, t);
      give(t, cotangent);
    });
    for (const t of node.outputs) if (!wanted.has(t)) pending.delete(t);
  }
  return wrt.map((t) => pending.get(t) ?? null);
}

/** @throws ShapeError, DTypeError where `cotangent`, which `who` gave, is not of the type of `t`. */
function checkCotangent(who: string, cotangent: Tensor, t: Tensor): void {
  if (cotangent.dtype === t.dtype && sameShape(cotangent.shape, t.shape)) return;
  const Kind = cotangent.dtype === t.dtype ? ShapeError : DTypeError;
  const [given, wanted] = [cotangent, t].map((type) => `${type.dtype} ${formatShape(type.shape)}`);
  throw new Kind(`${who} gave ${given} where ${wanted} is needed${callerLine()}`);
}

/** Nodes on a path from `outputs` back to a tensor in `wrt`, latest first. */
function nodesBetween(outputs: readonly Tensor[], wrt: ReadonlySet<Tensor>): { nodes: Set<Node>; order: Node[] } {
  const reachable = new Set<Node>();
  // Older nodes than all of `wrt` cannot depend on it.
  const oldest = [...wrt].reduce((id, t) => Math.min(id, t.node.id), Infinity);
  const stack = outputs.map((t) => t.node);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (node.id < oldest || reachable.has(node)) continue;
    reachable.add(node);
    for (const t of node.inputs) if (t) stack.push(t.node);
  }
  const forward = [...reachable].sort((a, b) => a.id - b.id);
  const nodes = new Set<Node>();
  for (const node of forward) {
    if (node.outputs.some((t) => wrt.has(t)) || node.inputs.some((t) => t && (wrt.has(t) || nodes.has(t.node))))
      nodes.add(node);
  }
  return { nodes, order: forward.filter((n) => nodes.has(n)).reverse() };
}

function vjpOf(
  node: Node,
  cotangents: readonly (Tensor | null)[],
  needs: readonly boolean[],
): readonly (Tensor | null)[] {
  const def = findOp(node.op)!;
  if (def.flat) return [];
  return within(`gradient of ${node.op.replace(/^.*\./, "")}`, node.inputs, () => {
    if (def.vjp) {
      const input = (i: number): Tensor => node.inputs[i]!;
      return def.vjp({ node, attrs: node.attrs, outputs: node.outputs, cotangents, needs, input });
    }
    if (!def.expand) throw new GraphError(`${node.op} has no gradient rule${callerLine()}`);
    // Inputs of its own for the expansion, so that each gets what flows through its place and nothing else.
    const inputs = node.inputs.map((t, i) => (t && needs[i] ? identity(t) : t));
    const wanted = inputs.filter((_, i) => needs[i]) as Tensor[];
    const given = pullBack(def.expand(inputs, node.attrs, node.outputs.length), cotangents, wanted);
    return inputs.map((t) => given[wanted.indexOf(t!)] ?? null);
  });
}

function scalarLoss(loss: Tensor): Tensor {
  if (!isFloat(loss.dtype) || loss.rank !== 0) {
    throw new ShapeError(
      `a gradient starts from a single floating-point number, not from ${loss.dtype} ${formatShape(loss.shape)}; take its mean or sum${callerLine()}`,
    );
  }
  return onesLike(loss);
}

/**
 * Gradient of the scalar `loss` with respect to every tensor in the tree `wrt`, as a tree of the same form.
 * Leaves that the loss does not depend on get zeros.
 * @throws ShapeError when `loss` is not a floating-point scalar; GraphError at an operation without a gradient.
 */
export function grad<T>(loss: Tensor, wrt: T): T {
  return pullBackTree([loss], [scalarLoss(loss)], wrt);
}

function pullBackTree<T>(outputs: readonly Tensor[], cotangents: readonly (Tensor | null)[], wrt: T): T {
  const leaves = leavesOf(wrt, isTensor).map(({ leaf, path }) => {
    if (!isFloat(leaf.dtype)) {
      throw new GraphError(
        `cannot differentiate with respect to ${path || "a tensor"} of type ${leaf.dtype}; pass only its floating-point leaves${callerLine()}`,
      );
    }
    return leaf;
  });
  const given = pullBack(outputs, cotangents, leaves);
  let i = 0;
  return mapTree(wrt, isTensor, (leaf) => given[i++] ?? zerosLike(leaf)) as T;
}

/** `f` with the gradient of its result with respect to the tensors in its first argument. */
export function valueAndGrad<P, A extends unknown[]>(
  f: (params: P, ...rest: A) => Tensor,
): (params: P, ...rest: A) => { value: Tensor; grads: P } {
  return (params, ...rest) => {
    const value = f(params, ...rest);
    return { value, grads: grad(value, params) };
  };
}

/**
 * `f` at `primals` with its pull-back: a function from cotangents of the outputs to cotangents of the primals, each
 * taken for itself even where one was computed from another. `f` returns a tree of tensors; the pull-back takes a
 * tree of the same form.
 */
export function vjp<P extends unknown[], R>(f: (...primals: P) => R, ...primals: P): [R, (cotangents: R) => P] {
  const own = mapTree(primals, isTensor, identity) as P;
  const result = f(...own);
  const outputs = leavesOf(result, isTensor).map(({ leaf }) => leaf);
  const pull = (cotangents: R): P => {
    const given = leavesOf(cotangents, isTensor).map(({ leaf }) => leaf);
    if (given.length !== outputs.length) {
      throw new ShapeError(`the pull-back takes ${outputs.length} cotangents, not ${given.length}${callerLine()}`);
    }
    given.forEach((c, i) => {
      checkCotangent(`the caller of the pull-back, for output ${i},`, c, outputs[i]!);
    });
    return pullBackTree(outputs, given, own);
  };
  return [result, pull];
}

defineOp({
  name: "pare.StopGradient",
  arity: [1, 1],
  flat: true,
  infer: ({ input }) => [input(0)],
});

/** `x`, seen as a constant by differentiation. */
export function stopGradient(x: TensorLike): Tensor {
  return applyOp("pare.StopGradient", [asTensor(x)])[0]!;
}

type Backward = (cotangents: readonly (Tensor | null)[], needs: readonly boolean[]) => readonly (Tensor | null)[];

/** Inputs: the primals, then the results; outputs: the results, whose gradient `backward` decides. */
defineOp({
  name: "pare.CustomVjp",
  arity: [1, Infinity],
  infer: () => {
    throw new GraphError("made by customVjp only");
  },
  vjp: ({ node, cotangents, needs }) => (node.extra as Backward)(cotangents, needs),
});

function withBackward(primals: readonly Tensor[], results: readonly Tensor[], backward: Backward): readonly Tensor[] {
  return new Node("pare.CustomVjp", [...primals, ...results], {}, results, backward).outputs;
}

/**
 * A function with a gradient of its own: `forward` computes the result (one tensor) from tensors, `backward` gets
 * its cotangent, the result and the primals, and returns a cotangent (or null for zero) per primal. Straight-through
 * and trust estimators are written with it. A number among the primals takes the first tensor's element type. Tensors
 * that `forward` takes from outside of its arguments are constants to differentiation.
 */
export function customVjp<P extends TensorLike[]>(
  forward: (...primals: { [K in keyof P]: Tensor }) => Tensor,
  backward: (cotangent: Tensor, result: Tensor, ...primals: { [K in keyof P]: Tensor }) => readonly (Tensor | null)[],
): (...primals: P) => Tensor {
  return (...primals) => {
    const like = primals.find((p) => isTensor(p) || isHostTensor(p)) as TensorType | undefined;
    const tensors = primals.map((p) => asTensor(p, like)) as { [K in keyof P]: Tensor };
    const result = forward(...tensors);
    return withBackward(tensors, [result], ([cotangent]) => {
      const given = backward(cotangent!, result, ...tensors);
      if (given.length === tensors.length) return given;
      throw new ArgumentError(`the backward function gave ${given.length} cotangents for ${tensors.length} primals`);
    })[0]!;
  };
}

/**
 * Inputs: a value, then tensors that must exist first. Lowered so that the value is available only after them, which
 * keeps recomputed work from being merged with, or scheduled beside, the original.
 */
defineOp({
  name: "pare.After",
  arity: [2, Infinity],
  infer: ({ input }) => [input(0)],
  vjp: ({ cotangents }) => [cotangents[0]!],
});

/** `x`, but computed no earlier than `others`. */
export function after(x: Tensor, ...others: readonly Tensor[]): Tensor {
  return others.length === 0 ? x : applyOp("pare.After", [x, ...others])[0]!;
}

/**
 * `f`, storing only its inputs: in the backward pass its inside is computed again from them instead of being kept
 * (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"). `f` takes and returns trees of tensors.
 */
export function checkpoint<P extends unknown[], R>(f: (...args: P) => R): (...args: P) => R {
  return (...args) => {
    const start = nextNodeId();
    const result = f(...args);
    const results = leavesOf(result, isTensor).map(({ leaf }) => leaf);
    const primals = tensorsBefore(start, results);
    const outputs = withBackward(primals, results, (cotangents, needs) => {
      const present = cotangents.filter((c) => c !== null);
      const again = new Map(primals.map((t) => [t, after(t, ...present)]));
      const wanted = primals.filter((_, i) => needs[i]).map((t) => again.get(t)!);
      const given = pullBack(replay(results, again), cotangents, wanted);
      return primals.map((t) => given[wanted.indexOf(again.get(t)!)] ?? null);
    });
    let i = 0;
    return mapTree(result, isTensor, () => outputs[i++]!) as R;
  };
}

/** The computed tensors older than node `start` that `results` were made from. */
export function tensorsBefore(start: number, results: readonly Tensor[]): Tensor[] {
  const found: Tensor[] = [];
  const seen = new Set<Tensor>();
  const stack = [...results];
  while (stack.length > 0) {
    const t = stack.pop()!;
    if (seen.has(t)) continue;
    seen.add(t);
    if (t.node.id >= start) for (const source of t.node.inputs) if (source) stack.push(source);
    if (t.node.id < start && t.node.op !== "Constant") found.push(t);
  }
  return found;
}

/** The graph of `results` built again with each key of `swap` replaced by its value. */
export function replay(results: readonly Tensor[], swap: ReadonlyMap<Tensor, Tensor>): Tensor[] {
  const done = new Map<Tensor, Tensor>(swap);
  const nodes = new Set<Node>();
  const stack = results.filter((t) => !done.has(t)).map((t) => t.node);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (nodes.has(node)) continue;
    nodes.add(node);
    for (const t of node.inputs) if (t && !done.has(t)) stack.push(t.node);
  }
  for (const node of [...nodes].sort((a, b) => a.id - b.id)) {
    const inputs = node.inputs.map((t) => (t ? (done.get(t) ?? t) : null));
    const changed = inputs.some((t, i) => t !== node.inputs[i]);
    const outputs = changed
      ? new Node(node.op, inputs, node.attrs, node.outputs, rebindExtra(node, done)).outputs
      : node.outputs;
    node.outputs.forEach((t, i) => {
      if (!done.has(t)) done.set(t, outputs[i]!);
    });
  }
  return results.map((t) => done.get(t)!);
}

/** A custom gradient closes over the tensors it was made with; replayed, it sees them through the new ones. */
function rebindExtra(node: Node, swap: ReadonlyMap<Tensor, Tensor>): unknown {
  if (node.op !== "pare.CustomVjp") return node.extra;
  const backward = node.extra as Backward;
  return ((cotangents, needs) => {
    const given = backward(cotangents, needs);
    const present = given.filter((t) => t !== null);
    // The cotangents are new already: what they were made from is not to be replayed.
    const fixed = cotangents.filter((t) => t !== null).map((t) => [t, t] as const);
    const replayed = replay(present, new Map([...swap, ...fixed]));
    return given.map((t) => t && replayed[present.indexOf(t)]!);
  }) satisfies Backward;
}
