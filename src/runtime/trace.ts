import { type Graph, makeGraph } from "../onnx/index.ts";
import {
  ArgumentError,
  asTensor,
  GraphError,
  type HostTensor,
  input,
  isHostTensor,
  isTensor,
  leavesOf,
  mapTree,
  type Tensor,
  TensorSpec,
  type TreeNode,
} from "../tensor/index.ts";

/** A declared or example value of an input; an example lends its type only. */
export type SpecLeaf = TensorSpec | HostTensor;

export function isSpecLeaf(value: unknown): value is SpecLeaf {
  return value instanceof TensorSpec || isHostTensor(value);
}

/** A tree of specs as the traced function sees it: every leaf a symbolic tensor. */
export type Traced<T> = T extends SpecLeaf | Tensor
  ? Tensor
  : T extends TreeNode
    ? T
    : T extends object
      ? { [K in keyof T]: Traced<T[K]> }
      : T;

/** A tree as it comes in and goes out of a compiled program: every leaf a host tensor. */
export type Hosted<T> = T extends SpecLeaf | Tensor
  ? HostTensor
  : T extends TreeNode
    ? T
    : T extends object
      ? { [K in keyof T]: Hosted<T[K]> }
      : T;

/** A traced function: its graph, and the trees that its flat inputs and outputs came from. */
export interface Trace {
  readonly graph: Graph;
  readonly specs: readonly unknown[];
  /** Name of each argument, the first part of its inputs' names. */
  readonly names: readonly string[];
  /** What the function returned, leaves replaced by the names of the graph's outputs. */
  readonly result: unknown;
}

/** A leaf of a result tree: the output that belongs in its place. */
export class OutputName {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

export const isOutputName = (value: unknown): value is OutputName => value instanceof OutputName;

const isOutput = (value: unknown): value is Tensor | HostTensor => isTensor(value) || isHostTensor(value);

export const portName = (argument: string, path: string): string => (path === "" ? argument : `${argument}.${path}`);

/**
 * Calls `fn` once with symbolic tensors in place of the leaves of `specs` and records what it does.
 * @param names names of the arguments; `arg0`, `arg1`, ... when absent.
 */
export function trace(fn: (...args: never[]) => unknown, specs: readonly unknown[], names?: readonly string[]): Trace {
  const args = specs.map((_, i) => names?.[i] ?? `arg${i}`);
  // Examples lend their type and are let go, so that a program does not keep their numbers alive.
  const types = specs.map((tree) => mapTree(tree, isSpecLeaf, ({ dtype, shape }) => new TensorSpec(dtype, shape)));
  if (names && names.length !== specs.length)
    throw new ArgumentError(`${names.length} names were given for ${specs.length} arguments`);
  const inputs: { name: string; tensor: Tensor }[] = [];
  const symbols = specs.map((tree, i) =>
    mapTree(tree, isSpecLeaf, (leaf, path) => {
      const name = portName(args[i]!, path);
      const tensor = input(name, leaf);
      inputs.push({ name, tensor });
      return tensor;
    }),
  );
  const returned = fn(...(symbols as never[]));
  if (returned instanceof Promise)
    throw new GraphError("the traced function is asynchronous; it must build its graph and return at once");
  const outputs: { name: string; tensor: Tensor }[] = [];
  const taken = new Set(inputs.map((p) => p.name));
  const result = mapTree(returned, isOutput, (leaf, path) => {
    let name = path === "" ? "result" : path;
    while (taken.has(name)) name = `${name}_out`;
    taken.add(name);
    outputs.push({ name, tensor: asTensor(leaf) });
    return new OutputName(name);
  });
  if (outputs.length === 0) throw new GraphError("the traced function returned no tensor");
  return { graph: makeGraph(inputs, outputs), specs: types, names: args, result };
}

/** Inputs of one argument by port name, in the order of the graph. */
export function specsOf(trace: Trace): Map<string, SpecLeaf> {
  const specs = new Map<string, SpecLeaf>();
  trace.specs.forEach((tree, i) => {
    for (const { path, leaf } of leavesOf(tree, isSpecLeaf)) specs.set(portName(trace.names[i]!, path), leaf);
  });
  return specs;
}
