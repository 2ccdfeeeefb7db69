import {
  ArgumentError,
  add,
  asTensor,
  div,
  formatShape,
  type HostTensor,
  minimum,
  mul,
  sameShape,
  sqrt,
  sumSquares,
  type Tensor,
  where,
} from "../../tensor/index.ts";
import { mapNamed, type Named, type Optimizer, type OptimizerState, part } from "./optimizer.ts";

/** Euclidean norm over all tensors together, a scalar. */
export function globalNorm(tensors: Named<Tensor>): Tensor {
  // In the order in which the backward pass makes them, so that each is read while it is at hand.
  const ordered = Object.values(tensors).sort((a, b) => a.node.id - b.node.id);
  return sqrt(ordered.map((t) => sumSquares(t)).reduce((a, b) => add(a, b)));
}

/** Scales all gradients down together when their global norm exceeds `maxNorm` (Pascanu et al. 2013). */
export function clipGlobalNorm(maxNorm: number, inner: Optimizer): Optimizer {
  return {
    init: inner.init,
    update: (grads, state, params, rate) => {
      const scale = minimum(div(maxNorm, add(globalNorm(grads), 1e-6)), 1);
      return inner.update(
        mapNamed(grads, (g) => mul(g, scale)),
        state,
        params,
        rate,
      );
    },
  };
}

/** Applies a proximal map behind every step of `inner` (Parikh & Boyd 2014); null from `prox` leaves a parameter alone. */
export function proximal(
  prox: (param: Tensor, name: string, rate: Tensor) => Tensor | null,
  inner: Optimizer,
): Optimizer {
  return {
    init: inner.init,
    update: (grads, state, params, rate) => {
      const next = inner.update(grads, state, params, rate);
      return { params: mapNamed(next.params, (p, name) => prox(p, name, rate) ?? p), state: next.state };
    },
  };
}

/**
 * Trains only the entries of parameters where their mask is not 0. The gradients are masked before `inner` sees them, so
 * that moments and norms know nothing of the others, and these keep their very bits, weight decay or not. Parameters
 * without a mask are trained as a whole.
 * @param masks `bool`, shaped like the parameters, by name
 * @throws ArgumentError for a mask of a parameter that is not trained, or of another shape or type
 */
export function masked(masks: Named<HostTensor>, inner: Optimizer): Optimizer {
  const check = (params: Named<HostTensor | Tensor>): void => {
    for (const [name, mask] of Object.entries(masks)) {
      const param = params[name];
      if (!param)
        throw new ArgumentError(`there is a mask for "${name}", which is not among the parameters that are trained`);
      if (mask.dtype !== "bool" || !sameShape(mask.shape, param.shape))
        throw new ArgumentError(
          `the mask of "${name}" is ${mask.dtype} ${formatShape(mask.shape)}; it must be bool ${formatShape(param.shape)}`,
        );
    }
  };
  const kept = (name: string, value: Tensor, otherwise: Tensor | number): Tensor => {
    const mask = masks[name];
    return mask ? where(asTensor(mask), value, otherwise) : value;
  };
  return {
    init: (params) => {
      check(params);
      return inner.init(params);
    },
    update: (grads, state, params, rate) => {
      const next = inner.update(
        mapNamed(grads, (g, name) => kept(name, g, 0)),
        state,
        params,
        rate,
      );
      return { params: mapNamed(next.params, (p, name) => kept(name, p, params[name]!)), state: next.state };
    },
  };
}

/** Keeps an exponential moving average of the parameters in the state, under `average`. */
export function movingAverage(decay: number, inner: Optimizer): Optimizer {
  return {
    init: (params) => ({ inner: inner.init(params), average: mapNamed(params, (p) => p.clone()) }),
    update: (grads, state, params, rate) => {
      const next = inner.update(grads, state.inner as OptimizerState<Tensor>, params, rate);
      const average = mapNamed(next.params, (p, name) =>
        add(mul(part(state, "average")[name]!, decay), mul(p, 1 - decay)),
      );
      return { params: next.params, state: { inner: next.state, average } };
    },
  };
}
