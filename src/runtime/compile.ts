import { type Graph, type LowerOptions, lower } from "../onnx/index.ts";
import { type Bindings, type HostTensor, isHostTensor, leavesOf, mapTree } from "../tensor/index.ts";
import { type Device, type DeviceOptions, defaultDevice } from "./device.ts";
import { DisposedError, FeedError } from "./errors.ts";
import { type Execution, type ExecutionPlan, openHere, planOf } from "./execution.ts";
import { checkFeed, checkPortType } from "./feeds.ts";
import {
  type Hosted,
  isOutputName,
  portName,
  type SpecLeaf,
  specsOf,
  type Trace,
  type Traced,
  trace,
} from "./trace.ts";
import { forWebGpu } from "./webgpu.ts";

export interface CompileOptions extends DeviceOptions {
  /** Names of the arguments, used for inputs and in messages; `arg0`, `arg1`, ... when absent. */
  readonly names?: readonly string[];
  /** `worker` runs off this thread, so that a page or a server stays responsive; values are copied to and fro. */
  readonly thread?: "here" | "worker";
}

/** A compiled program: called with host tensors in the trees it was declared with, it returns the function's tree. */
export interface Program<S extends readonly unknown[], R> {
  (...args: { [K in keyof S]: Hosted<S[K]> }): Promise<Hosted<R>>;
  /** The device it really runs on. */
  readonly device: Device;
  /** What is run, in plain ONNX operators. */
  readonly graph: Graph;
  /** Frees the session (a shared session when its last program goes). Calling the program afterwards is an error. */
  dispose(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Compiles `fn`, an ordinary function over symbolic tensors, into a program that onnxruntime runs.
 * @param specs one tree per argument, with `spec(dtype, shape)` or example host tensors as leaves. Host tensors that
 *   `fn` reaches otherwise become constants of the program, which is faster for weights that do not change.
 * @throws ShapeError, DTypeError while tracing; DeviceError when the device is missing.
 */
export async function compile<const S extends readonly unknown[], R>(
  fn: (...args: { -readonly [K in keyof S]: Traced<S[K]> }) => R,
  specs: S,
  options: CompileOptions = {},
): Promise<Program<S, R>> {
  const traced = trace(fn as (...args: never[]) => unknown, specs, options.names);
  for (const { name, tensor } of [...traced.graph.inputs, ...traced.graph.outputs]) checkPortType(name, tensor);
  const graph = lower(traced.graph, targetOf(options));
  const execution = await open(planOf(graph, []), options);
  const wanted = specsOf(traced);
  let disposed = false;

  const run = async (...args: unknown[]): Promise<unknown> => {
    if (disposed) throw new DisposedError("this program has been disposed of");
    const results = await execution.run(checkArguments(traced, wanted, args));
    return mapTree(traced.result, isOutputName, ({ name }) => results[name]!);
  };
  const dispose = async (): Promise<void> => {
    if (disposed) return;
    disposed = true;
    await execution.close();
  };
  return Object.assign(run, {
    device: execution.device,
    graph,
    dispose,
    [Symbol.asyncDispose]: dispose,
  }) as unknown as Program<S, R>;
}

/** How to lower for the devices that a program may land on; what a GPU can run, the others can too. */
export function targetOf({ device = defaultDevice(), fallback }: DeviceOptions): LowerOptions {
  return device === "webgpu" || fallback === "webgpu" ? forWebGpu : {};
}

/** Opens a session in this thread or in a worker, as asked. */
export async function open(plan: ExecutionPlan, { thread = "here", ...options }: CompileOptions): Promise<Execution> {
  if (thread === "here") return openHere(plan, options);
  const { openInWorker } = await import("./worker-client.ts");
  return openInWorker(plan, options);
}

/**
 * The host tensors of a call by input name, checked one by one.
 * @throws FeedError for a missing, unexpected, or unfitting value.
 */
export function checkArguments(
  { specs, names }: Pick<Trace, "specs" | "names">,
  wanted: ReadonlyMap<string, SpecLeaf>,
  args: readonly unknown[],
): Record<string, HostTensor> {
  if (args.length !== specs.length)
    throw new FeedError(`the program takes ${specs.length} arguments, not ${args.length}`);
  const bindings: Bindings = new Map();
  const values: Record<string, HostTensor> = {};
  args.forEach((tree, i) => {
    for (const { path, leaf } of leavesOf(tree, isHostTensor)) {
      const name = portName(names[i]!, path);
      const want = wanted.get(name);
      if (!want) throw new FeedError(`the program has no input "${name}"; it takes ${[...wanted.keys()].join(", ")}`);
      checkFeed(name, want, leaf, bindings);
      values[name] = leaf;
    }
  });
  for (const name of wanted.keys()) if (!values[name]) throw new FeedError(`the input "${name}" was not given`);
  return values;
}
