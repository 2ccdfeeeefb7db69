import { latent, mapNamed, type Optimizer, part, proximal, sgd } from "../../../nn/optim/index.ts";
import { add, div, HostTensor, mul, sqrt, square, sub, type Tensor } from "../../../tensor/index.ts";
import type { PiecewiseAffine } from "./regularizer.ts";

/**
 * The aggregate proximal method for `f + lambda Psi` (Jin et al. 2025, algorithm 1): gradients at `w` move `u`, and
 * `w = prox` of `u` with the weight `lambda` times the sum of all learning rates so far. Because that grows, weights
 * settle on levels, where plain proximal steps, whose weight shrinks with the rate, let go of them.
 */
export function aprox(regularizer: PiecewiseAffine, lambda: number): Optimizer {
  return latent(
    {
      matches: () => true,
      init: () => ({ travelled: HostTensor.from(0) }),
      apply: (u, state, rate) => {
        const travelled = add(state.travelled as Tensor, rate);
        const scale = mul(travelled, lambda);
        return { params: mapNamed(u, (x) => regularizer.prox(x, scale)), state: { travelled } };
      },
    },
    sgd(),
  );
}

/** Proximal stochastic gradient descent on `f + lambda Psi`, for comparison: `w = prox` of the step, with its own rate. */
export function proxSgd(regularizer: PiecewiseAffine, lambda: number): Optimizer {
  return proximal((w, _name, rate) => regularizer.prox(w, mul(rate, lambda)), sgd());
}

/**
 * FISTA on `f + lambda Psi` (Beck & Teboulle 2009): with gradients of all the data and a constant rate of at most the
 * inverse of their Lipschitz constant, the reference for the optimum. Parameters are the extrapolated points at which
 * gradients are taken; the iterates are in the state under `iterate`.
 */
export function fista(regularizer: PiecewiseAffine, lambda: number): Optimizer {
  return {
    init: (params) => ({ iterate: mapNamed(params, (p) => p.clone()), momentum: HostTensor.from(1) }),
    update: (grads, state, params, rate) => {
      const t = state.momentum as Tensor;
      const next = div(add(1, sqrt(add(1, mul(4, square(t))))), 2);
      const iterate = mapNamed(params, (y, name) =>
        regularizer.prox(sub(y, mul(grads[name]!, rate)), mul(rate, lambda)),
      );
      const before = part(state, "iterate");
      const ahead = div(sub(t, 1), next);
      return {
        params: mapNamed(iterate, (w, name) => add(w, mul(sub(w, before[name]!), ahead))),
        state: { iterate, momentum: next },
      };
    },
  };
}
