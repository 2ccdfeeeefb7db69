import { add, HostTensor, mul, sub, type Tensor } from "../../tensor/index.ts";
import { mapNamed, type Named, type Optimizer, type OptimizerState, part } from "./optimizer.ts";

/** What a model computes with, made of the latent parameters that an optimizer moves. */
export interface LatentMap {
  /** Whether a parameter has a latent one behind it. */
  readonly matches: (name: string, shape: readonly number[]) => boolean;
  /** The map's own memory, for the latent parameters of the start. */
  init(latent: Named<HostTensor>): OptimizerState<HostTensor>;
  /** @param rate learning rate of the step just made, a scalar */
  apply(latent: Named<Tensor>, state: OptimizerState<Tensor>, rate: Tensor): LatentUpdate;
}

export interface LatentUpdate {
  /** The parameters `w` that the model computes with, by name. */
  readonly params: Named<Tensor>;
  readonly state: OptimizerState<Tensor>;
}

/**
 * Trains latent parameters `u` by `inner`, while the model computes with `w = map(u)`: gradients are taken at `w` and
 * applied to `u`. The first step starts from `w = u`. Parameters that the map does not match are trained as they are.
 * The latent ones are in the state under `latent`, so that a checkpoint holds them.
 */
export function latent(map: LatentMap, inner: Optimizer): Optimizer {
  return {
    init: (params) => {
      const chosen = Object.fromEntries(Object.entries(params).filter(([name, p]) => map.matches(name, p.shape)));
      return {
        latent: mapNamed(chosen, (p) => p.clone()),
        map: map.init(chosen),
        inner: inner.init(params),
      };
    },
    update: (grads, state, params, rate) => {
      const hidden = part(state, "latent");
      const behind = mapNamed(params, (p, name) => hidden[name] ?? p);
      const next = inner.update(grads, state.inner as OptimizerState<Tensor>, behind, rate);
      const moved = mapNamed(hidden, (_, name) => next.params[name]!);
      const seen = map.apply(moved, (state.map ?? {}) as OptimizerState<Tensor>, rate);
      return {
        params: mapNamed(next.params, (p, name) => seen.params[name] ?? p),
        state: { latent: moved, map: seen.state, inner: next.state },
      };
    },
  };
}

/**
 * Decoupled weight decay whose strength follows the step: before each step of `inner`, parameters lose
 * `rate * decay(step)` of themselves. `inner` should have no decay of its own.
 * @param decay of the step, an `f32` scalar counted from 1
 */
export function scheduledDecay(
  decay: (step: Tensor) => Tensor,
  matches: (name: string, shape: readonly number[]) => boolean,
  inner: Optimizer,
): Optimizer {
  return {
    init: (params) => ({ step: HostTensor.from(0), inner: inner.init(params) }),
    update: (grads, state, params, rate) => {
      const step = add(state.step as Tensor, 1);
      const keep = sub(1, mul(rate, decay(step)));
      const decayed = mapNamed(params, (p, name) => (matches(name, p.shape as readonly number[]) ? mul(p, keep) : p));
      const next = inner.update(grads, state.inner as OptimizerState<Tensor>, decayed, rate);
      return { params: next.params, state: { step, inner: next.state } };
    },
  };
}
