import { lower, toOnnx, type Graph } from "../onnx/index.ts";
import { isHostTensor, leavesOf, mapTree, type Bindings, type HostTensor } from "../tensor/index.ts";
import { loadDevice, type Device, type DeviceOptions } from "./device.ts";
import { DisposedError, FeedError } from "./errors.ts";
import { checkFeed, checkPortType, fromOrt, toOrt } from "./feeds.ts";
import { openSession } from "./session.ts";
import { OutputName, portName, specsOf, trace, type Hosted, type SpecLeaf, type Trace, type Traced } from "./trace.ts";

export interface CompileOptions extends DeviceOptions {
  /** Names of the arguments, used for inputs and in messages; `arg0`, `arg1`, ... when absent. */
  readonly names?: readonly string[];
}

/** A compiled program: called with host tensors in the trees it was declared with, it returns the function's tree. */
export interface Program<S extends readonly unknown[], R> {
  (...args: { [K in keyof S]: Hosted<S[K]> }): Promise<Hosted<R>>;
  /** The device it really runs on. */
  readonly device: Device;
  /** What is run, in plain ONNX operators. */
  readonly graph: Graph;
  /** Frees the session (shared sessions when their last program goes). Calling the program afterwards is an error. */
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
  const loaded = await loadDevice(options);
  const graph = lower(traced.graph, { portable: loaded.device !== "cpu" });
  const session = await openSession(toOnnx(graph, { lowered: true }), loaded);
  const wanted = specsOf(traced);
  let disposed = false;

  const run = async (...args: unknown[]): Promise<unknown> => {
    if (disposed) throw new DisposedError("this program has been disposed of");
    const feeds: Parameters<typeof session.run>[0] = {};
    for (const [name, value] of checkArguments(traced, wanted, args)) feeds[name] = toOrt(loaded.ort, value);
    const results = await session.run(feeds);
    return mapTree(traced.result, isOutputName, ({ name }) => fromOrt(results[name]!));
  };
  const dispose = async (): Promise<void> => {
    if (disposed) return;
    disposed = true;
    await session.release();
  };
  return Object.assign(run, { device: loaded.device, graph, dispose, [Symbol.asyncDispose]: dispose }) as unknown as Program<S, R>;
}

const isOutputName = (value: unknown): value is OutputName => value instanceof OutputName;

/**
 * The host tensors of a call by input name, checked one by one.
 * @throws FeedError for a missing, unexpected, or unfitting value.
 */
export function checkArguments(traced: Trace, wanted: ReadonlyMap<string, SpecLeaf>, args: readonly unknown[]): Map<string, HostTensor> {
  if (args.length !== traced.specs.length) throw new FeedError(`the program takes ${traced.specs.length} arguments, not ${args.length}`);
  const bindings: Bindings = new Map();
  const values = new Map<string, HostTensor>();
  args.forEach((tree, i) => {
    for (const { path, leaf } of leavesOf(tree, isHostTensor)) {
      const name = portName(traced.names[i]!, path);
      const want = wanted.get(name);
      if (!want) throw new FeedError(`the program has no input "${name}"; it takes ${[...wanted.keys()].join(", ")}`);
      checkFeed(name, want, leaf, bindings);
      values.set(name, leaf);
    }
  });
  for (const name of wanted.keys()) if (!values.has(name)) throw new FeedError(`the input "${name}" was not given`);
  return values;
}
