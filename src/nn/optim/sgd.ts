import { add, mul, sub } from "../../tensor/index.ts";
import { mapNamed, type Optimizer, part, zerosFor } from "./optimizer.ts";

export interface SgdOptions {
  readonly momentum?: number;
  readonly nesterov?: boolean;
  /** L2 penalty, added to the gradient. */
  readonly weightDecay?: number;
}

/** Stochastic gradient descent with optional (Nesterov) momentum. */
export function sgd({ momentum = 0, nesterov = false, weightDecay = 0 }: SgdOptions = {}): Optimizer {
  return {
    init: (params) => (momentum === 0 ? {} : { velocity: zerosFor(params) }),
    update: (grads, state, params, rate) => {
      const pull = mapNamed(grads, (g, name) => (weightDecay === 0 ? g : add(g, mul(params[name]!, weightDecay))));
      if (momentum === 0) return { params: mapNamed(params, (p, name) => sub(p, mul(pull[name]!, rate))), state: {} };
      const velocity = mapNamed(pull, (g, name) => add(mul(part(state, "velocity")[name]!, momentum), g));
      const direction = nesterov ? mapNamed(pull, (g, name) => add(g, mul(velocity[name]!, momentum))) : velocity;
      return { params: mapNamed(params, (p, name) => sub(p, mul(direction[name]!, rate))), state: { velocity } };
    },
  };
}
