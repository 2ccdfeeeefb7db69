import { ArgumentError, type HostTensor, mul, type Tensor } from "../../tensor/index.ts";
import type { Named, Optimizer, OptimizerState } from "./optimizer.ts";

export interface ParameterGroup {
  /** Parameters that belong here; each goes to the first group that takes it. */
  readonly match: (name: string, shape: readonly number[]) => boolean;
  readonly optimizer: Optimizer;
  /** Factor of the learning rate. Default 1. */
  readonly rate?: number;
}

/** Different rules or rates for different parameters. @throws ArgumentError for a parameter that no group takes. */
export function groups(list: readonly ParameterGroup[]): Optimizer {
  const assign = <T extends HostTensor | Tensor>(params: Named<T>): Record<string, T>[] => {
    const parts = list.map((): Record<string, T> => ({}));
    for (const [name, param] of Object.entries(params)) {
      const i = list.findIndex((group) => group.match(name, param.shape as readonly number[]));
      if (i < 0) throw new ArgumentError(`the parameter "${name}" belongs to no group of the optimizer`);
      parts[i]![name] = param;
    }
    return parts;
  };
  return {
    init: (params) => {
      const parts = assign(params);
      return Object.fromEntries(list.map((group, i) => [`group${i}`, group.optimizer.init(parts[i]!)]));
    },
    update: (grads, state, params, rate) => {
      const parts = assign(params);
      const updates = list.map((group, i) => {
        const mine = Object.fromEntries(Object.keys(parts[i]!).map((name) => [name, grads[name]!]));
        const scaled = group.rate === undefined ? rate : mul(rate, group.rate);
        return group.optimizer.update(mine, (state[`group${i}`] ?? {}) as OptimizerState<Tensor>, parts[i]!, scaled);
      });
      const together = Object.assign({}, ...updates.map((u) => u.params)) as Record<string, Tensor>;
      return {
        params: Object.fromEntries(Object.keys(params).map((name) => [name, together[name]!])),
        state: Object.fromEntries(updates.map((u, i) => [`group${i}`, u.state])),
      };
    },
  };
}
