import { clipGlobalNorm, globalNorm, masked, type Optimizer, type OptimizerState } from "../nn/optim/index.ts";
import { type CompileOptions, compileLoop, type Loop, type Traced } from "../runtime/index.ts";
import {
  ArgumentError,
  add,
  after,
  div,
  flattenTree,
  foldIn,
  grad,
  type HostTensor,
  isFloat,
  isHostTensor,
  isTensor,
  mapTree,
  randomKey,
  spec,
  type Tensor,
} from "../tensor/index.ts";

/** What a loss function may use besides parameters and batch. */
export interface LossContext {
  /** Seed of this micro-batch's randomness (dropout, noise); see `foldIn`. */
  readonly key: Tensor;
}

/** The scalar to minimise; the metrics, scalars as well, are logged beside it. */
export type LossResult = Tensor | { readonly loss: Tensor; readonly metrics?: Readonly<Record<string, Tensor>> };

/** Builds the loss of one micro-batch out of the trees of parameters and batch, whose leaves are symbolic. */
export type LossFunction<P, B> = (params: Traced<P>, batch: Traced<B>, context: LossContext) => LossResult;

/** What a training loop carries from step to step: trained parameters by path, and the optimizer's memory. */
export interface TrainState {
  readonly params: Record<string, HostTensor>;
  readonly optimizer: OptimizerState<HostTensor>;
}

export interface StepOptions<P, B> extends Omit<CompileOptions, "names"> {
  readonly loss: LossFunction<P, B>;
  /** Tree of host tensors, weights included. */
  readonly params: P;
  /** Which parameters are trained; all floating-point ones when absent. The others become constants of the program. */
  readonly trainable?: (path: string) => boolean;
  readonly optimizer: Optimizer;
  /** Largest global norm of the gradients; null leaves them as they are. Default 1. */
  readonly clipNorm?: number | null;
  /** Which entries of parameters are trained, `bool`, by path; see `masked`. Default all. */
  readonly masks?: Readonly<Record<string, HostTensor>>;
  /** Micro-batches whose gradients are averaged before one update. */
  readonly accumulate?: number;
  /** A micro-batch, to take types from. */
  readonly example: B;
}

/** Runs on `[micro-batches, learning rate, key]`. */
export type StepLoop = Loop<
  TrainState,
  readonly [readonly unknown[], HostTensor, HostTensor],
  Record<string, HostTensor>
>;

/** The trained parameters of a tree by path. @throws ArgumentError when there are none. */
export function trainableOf(
  params: unknown,
  wanted: (path: string) => boolean = () => true,
): Record<string, HostTensor> {
  const chosen = Object.entries(flattenTree(params, isHostTensor)).filter(
    ([path, t]) => isFloat(t.dtype) && wanted(path),
  );
  if (chosen.length === 0) throw new ArgumentError("no floating-point parameter is to be trained");
  return Object.fromEntries(chosen);
}

/** The tree of parameters with trained ones taken from `values`. */
export function withTrained<P>(params: P, values: Readonly<Record<string, unknown>>): P {
  return mapTree(params, isHostTensor, (leaf, path) => values[path] ?? leaf) as P;
}

const parts = (result: LossResult): { loss: Tensor; metrics?: Readonly<Record<string, Tensor>> } =>
  isTensor(result) ? { loss: result } : result;

/**
 * Compiles the training step: loss, gradients, clipping and update in one graph. Its result holds `loss`, `gradNorm`
 * (before clipping) and the loss function's metrics.
 */
export async function compileStep<P, B>(options: StepOptions<P, B>): Promise<StepLoop> {
  const { params, optimizer, clipNorm = 1, masks, accumulate = 1, example } = options;
  if (!Number.isInteger(accumulate) || accumulate < 1)
    throw new ArgumentError(`accumulate must be a whole number from 1, not ${accumulate}`);
  const start = trainableOf(params, options.trainable);
  const clipped = clipNorm === null ? optimizer : clipGlobalNorm(clipNorm, optimizer);
  const rule = masks ? masked(masks, clipped) : clipped;
  const step = (
    state: { params: Record<string, Tensor>; optimizer: OptimizerState<Tensor> },
    batches: readonly unknown[],
    rate: Tensor,
    key: Tensor,
  ) => {
    const tree = withTrained(params, state.params);
    let sums: Record<string, Tensor> = {};
    let totals: Record<string, Tensor> = {};
    batches.forEach((batch, i) => {
      // A micro-batch waits for the gradients before it, so that only one set of activations is alive.
      const latest = Object.values(sums).reduce<Tensor | undefined>(
        (a, b) => (a && a.node.id > b.node.id ? a : b),
        undefined,
      );
      const own = latest ? mapTree(batch, isTensor, (t) => after(t, latest)) : batch;
      const { loss, metrics = {} } = parts(options.loss(tree as Traced<P>, own as Traced<B>, { key: foldIn(key, i) }));
      const grads = grad(loss, state.params);
      const scalars: Record<string, Tensor> = { loss, ...metrics };
      sums = i === 0 ? grads : addAll(sums, grads);
      totals = i === 0 ? scalars : addAll(totals, scalars);
    });
    const average = (record: Record<string, Tensor>): Record<string, Tensor> =>
      accumulate === 1
        ? record
        : Object.fromEntries(Object.entries(record).map(([name, t]) => [name, div(t, accumulate)]));
    const grads = average(sums);
    const gradNorm = globalNorm(grads);
    // Behind all gradients, so that parameters may be updated over the memory that the backward pass reads.
    const next = rule.update(grads, state.optimizer, state.params, after(rate, gradNorm));
    return {
      state: { params: next.params, optimizer: next.state },
      result: { ...average(totals), gradNorm },
    };
  };
  const specs = [Array.from({ length: accumulate }, () => example), spec("f32", []), randomKey(0)] as const;
  const initial: TrainState = { params: start, optimizer: rule.init(start) };
  return (await compileLoop(step as never, initial, specs, {
    ...options,
    names: ["batches", "rate", "key"],
  })) as unknown as StepLoop;
}

function addAll(a: Record<string, Tensor>, b: Record<string, Tensor>): Record<string, Tensor> {
  return Object.fromEntries(Object.entries(a).map(([name, t]) => [name, add(t, b[name]!)]));
}
