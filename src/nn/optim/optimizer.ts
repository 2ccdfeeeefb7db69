import { HostTensor, type Tensor } from "../../tensor/index.ts";

/** Tensors by name: parameters, gradients, moments. */
export type Named<T> = Readonly<Record<string, T>>;

/** What an optimizer remembers between steps: records of tensors by name, nested as it likes. */
export type OptimizerState<T> = { readonly [key: string]: T | OptimizerState<T> };

/**
 * An update rule. `init` makes the state on the host; `update` is traced into the training program, so that a step
 * is one graph. Rules wrap one another: clipping, groups, averages and proximal maps are optimizers around optimizers.
 */
export interface Optimizer {
  init(params: Named<HostTensor>): OptimizerState<HostTensor>;
  /** @param rate learning rate of this step, a scalar. */
  update(grads: Named<Tensor>, state: OptimizerState<Tensor>, params: Named<Tensor>, rate: Tensor): Update;
}

export interface Update {
  readonly params: Named<Tensor>;
  readonly state: OptimizerState<Tensor>;
}

/** One zero tensor per parameter, for moments. */
export function zerosFor(params: Named<HostTensor>): Named<HostTensor> {
  return mapNamed(params, (p) => HostTensor.zeros(p.dtype, p.shape));
}

/** A record with every value changed. */
export function mapNamed<T, U>(record: Named<T>, change: (value: T, name: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, change(value, name)]));
}

/** A part of a state that is a record of tensors by name. */
export function part<T>(state: OptimizerState<T>, key: string): Named<T> {
  return state[key] as Named<T>;
}
