import { add, div, HostTensor, mul, pow, sqrt, sub, type Tensor } from "../../tensor/index.ts";
import { mapNamed, type Optimizer, part, zerosFor } from "./optimizer.ts";

export interface AdamWOptions {
  readonly beta1?: number;
  readonly beta2?: number;
  readonly epsilon?: number;
  /** Decoupled decay: each step also takes `rate * weightDecay * parameter`. */
  readonly weightDecay?: number;
  /** Which parameters decay; default: those with two dimensions or more. */
  readonly decays?: (name: string, param: Tensor) => boolean;
}

/** Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv:1711.05101). */
export function adamw({
  beta1 = 0.9,
  beta2 = 0.999,
  epsilon = 1e-8,
  weightDecay = 0.01,
  decays = (_name, p) => p.rank >= 2,
}: AdamWOptions = {}): Optimizer {
  return {
    init: (params) => ({ step: HostTensor.from(0), m: zerosFor(params), v: zerosFor(params) }),
    update: (grads, state, params, rate) => {
      const step = add(state.step as Tensor, 1);
      // The moments are kept as plain decayed sums; their factors `1 - beta` and both bias corrections go into two scalars,
      // which spares four passes over every parameter.
      const correction = sqrt(div(sub(1, pow(beta2, step)), 1 - beta2));
      const size = mul(mul(rate, correction), div(1 - beta1, sub(1, pow(beta1, step))));
      const floor = mul(correction, epsilon);
      const keep = sub(1, mul(rate, weightDecay));
      const m = mapNamed(grads, (g, name) => add(mul(part(state, "m")[name]!, beta1), g));
      const v = mapNamed(grads, (g, name) => add(mul(part(state, "v")[name]!, beta2), mul(g, g)));
      return {
        params: mapNamed(params, (p, name) => {
          const decayed = weightDecay !== 0 && decays(name, p) ? mul(p, keep) : p;
          return sub(decayed, mul(div(m[name]!, add(sqrt(v[name]!), floor)), size));
        }),
        state: { step, m, v },
      };
    },
  };
}
