import { type Graph, lower, makeGraph } from "../onnx/index.ts";
import {
  flattenTree,
  formatShape,
  GraphError,
  type HostTensor,
  isHostTensor,
  mapTree,
  sameShape,
  type Tensor,
} from "../tensor/index.ts";
import { type CompileOptions, checkArguments, open, targetOf } from "./compile.ts";
import type { Device } from "./device.ts";
import { DisposedError, FeedError } from "./errors.ts";
import { planOf, type Slot } from "./execution.ts";
import { checkFeed, checkPortType } from "./feeds.ts";
import { mayOverwrite } from "./in-place.ts";
import {
  type Hosted,
  isOutputName,
  isSpecLeaf,
  type OutputName,
  portName,
  type SpecLeaf,
  specsOf,
  type Traced,
  trace,
} from "./trace.ts";

/** A program with memory: each run takes inputs and the state that the run before left. */
export interface Loop<St, I extends readonly unknown[], R> {
  /** Runs once and moves on to the next state. */
  run(...inputs: { [K in keyof I]: Hosted<I[K]> }): Promise<Hosted<R>>;
  /** A copy of the present state, in the tree it was started with. */
  state(): Promise<St>;
  /** Copies of the parts of the present state whose paths are wanted, by path. */
  read(wanted: (path: string) => boolean): Promise<Record<string, HostTensor>>;
  /** Replaces the state. @throws FeedError where a tensor is missing, unknown or does not fit. */
  load(state: St): Promise<void>;
  readonly device: Device;
  readonly graph: Graph;
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Compiles `fn(state, ...inputs)`, which returns the next state and a result, into a loop whose state stays with the
 * session: written in place on the CPU where that is safe, kept in device memory on WebGPU. A training step is one.
 * @param initial the first state, a tree of host tensors; it is copied.
 * @throws GraphError where the next state has another form than the first.
 */
export async function compileLoop<St, const I extends readonly unknown[], R>(
  fn: (state: Traced<St>, ...inputs: { -readonly [K in keyof I]: Traced<I[K]> }) => { state: unknown; result: R },
  initial: St,
  specs: I,
  options: CompileOptions = {},
): Promise<Loop<St, I, R>> {
  const names = ["state", ...(options.names ?? specs.map((_, i) => `arg${i}`))];
  const traced = trace(fn as (...args: never[]) => unknown, [initial, ...specs], names);
  const { state: nextTree, result } = traced.result as { state: unknown; result: unknown };
  const nextNames = flattenTree(nextTree, isOutputName);
  const form = traced.specs[0];
  const types = flattenTree(form, isSpecLeaf);
  checkState(types, nextNames, new Map(traced.graph.outputs.map((p) => [p.name, p.tensor])));
  for (const { name, tensor } of [...traced.graph.inputs, ...traced.graph.outputs]) checkPortType(name, tensor);

  const inputOf = (path: string): string => portName("state", path);
  const { graph, slots } = planSlots(
    lower(traced.graph, targetOf(options)),
    Object.keys(types).map((path) => [inputOf(path), nextNames[path]!.name]),
  );
  const execution = await open(planOf(graph, slots), options);
  const named = (values: Readonly<Record<string, HostTensor>>): Record<string, HostTensor> =>
    Object.fromEntries(Object.keys(types).map((path) => [inputOf(path), values[path]!]));
  await execution.write(named(flattenTree(initial, isHostTensor)));

  const wanted = specsOf(traced);
  for (const { input } of slots) wanted.delete(input);
  const inputs = { specs: traced.specs.slice(1), names: traced.names.slice(1) };
  let disposed = false;
  const check = (): void => {
    if (disposed) throw new DisposedError("this program has been disposed of");
  };

  return {
    async run(...args) {
      check();
      const results = await execution.run(checkArguments(inputs, wanted, args));
      return mapTree(result, isOutputName, ({ name }) => results[name]!) as Hosted<R>;
    },
    async state() {
      check();
      const values = await execution.read();
      return mapTree(form, isSpecLeaf, (_leaf, path) => values[inputOf(path)]!) as St;
    },
    async read(wanted) {
      check();
      const paths = Object.keys(types).filter(wanted);
      const values = await execution.read(paths.map(inputOf));
      return Object.fromEntries(paths.map((path) => [path, values[inputOf(path)]!]));
    },
    async load(next) {
      check();
      const given = flattenTree(next, isHostTensor);
      for (const [path, want] of Object.entries(types)) {
        if (!given[path]) throw new FeedError(`the state to load lacks "${path}"`);
        checkFeed(inputOf(path), want, given[path], new Map());
      }
      const extra = Object.keys(given).find((path) => !Object.hasOwn(types, path));
      if (extra !== undefined)
        throw new FeedError(`the state to load has "${extra}", which this program does not know`);
      await execution.write(named(given));
    },
    device: execution.device,
    graph,
    dispose,
    [Symbol.asyncDispose]: dispose,
  };

  async function dispose(): Promise<void> {
    if (disposed) return;
    disposed = true;
    await execution.close();
  }
}

/** Which outputs become which inputs of the next run; state that a run does not change is not computed at all. */
function planSlots(lowered: Graph, pairs: readonly (readonly [string, string])[]): { graph: Graph; slots: Slot[] } {
  const current = new Map(lowered.inputs.map((p) => [p.name, p.tensor]));
  const next = new Map(lowered.outputs.map((p) => [p.name, p.tensor]));
  const still = new Set(
    pairs.filter(([input, output]) => current.get(input) === next.get(output)).map(([, output]) => output),
  );
  const graph = makeGraph(
    lowered.inputs,
    lowered.outputs.filter((p) => !still.has(p.name)),
  );
  const slots = pairs.map(
    ([input, output]): Slot =>
      still.has(output)
        ? { input, output: null, inPlace: false }
        : { input, output, inPlace: mayOverwrite(graph, current.get(input)!, next.get(output)!) },
  );
  return { graph, slots };
}

function checkState(
  start: Record<string, SpecLeaf>,
  next: Record<string, OutputName>,
  tensors: ReadonlyMap<string, Tensor>,
): void {
  const missing = Object.keys(start).find((path) => !next[path]);
  if (missing !== undefined) throw new GraphError(`the next state lacks "${missing}", which the first state has`);
  for (const [path, { name }] of Object.entries(next)) {
    const [first, tensor] = [start[path], tensors.get(name)!];
    if (!first) throw new GraphError(`the next state has "${path}", which the first state lacks`);
    if (first.dtype !== tensor.dtype || !sameShape(first.shape, tensor.shape)) {
      throw new GraphError(
        `"${path}" of the state changes from ${first.dtype} ${formatShape(first.shape)} to ${tensor.dtype} ${formatShape(tensor.shape)}`,
      );
    }
  }
}
