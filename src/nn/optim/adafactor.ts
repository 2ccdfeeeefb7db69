import {
  add,
  div,
  HostTensor,
  maximum,
  mean,
  mul,
  pow,
  rsqrt,
  sqrt,
  square,
  sub,
  type Tensor,
  unsqueeze,
} from "../../tensor/index.ts";
import { mapNamed, type Named, type Optimizer, part } from "./optimizer.ts";

export interface AdafactorOptions {
  /** The second moment forgets with `1 - step^-decay`. */
  readonly decay?: number;
  readonly epsilon?: number;
  /** Updates whose root mean square exceeds this are scaled down to it. */
  readonly clip?: number;
  readonly weightDecay?: number;
}

const rms = (x: Tensor): Tensor => sqrt(mean(square(x)));
const isMatrix = (shape: readonly unknown[]): boolean => shape.length === 2;

/**
 * Adafactor (Shazeer & Stern 2018, arXiv:1804.04235): the second moment of a matrix is kept as one row and one column, so
 * the state takes next to no memory. Without momentum; the learning rate is absolute, as given.
 */
export function adafactor({
  decay = 0.8,
  epsilon = 1e-30,
  clip = 1,
  weightDecay = 0,
}: AdafactorOptions = {}): Optimizer {
  const pick = (
    params: Named<HostTensor>,
    shape: (s: readonly number[]) => readonly number[] | undefined,
  ): Named<HostTensor> =>
    Object.fromEntries(
      Object.entries(params).flatMap(([name, p]) => {
        const s = shape(p.shape);
        return s ? [[name, HostTensor.zeros(p.dtype, s)]] : [];
      }),
    );
  return {
    init: (params) => ({
      step: HostTensor.from(0),
      rows: pick(params, (s) => (isMatrix(s) ? [s[0]!] : undefined)),
      columns: pick(params, (s) => (isMatrix(s) ? [s[1]!] : undefined)),
      full: pick(params, (s) => (isMatrix(s) ? undefined : s)),
    }),
    update: (grads, state, params, rate) => {
      const step = add(state.step as Tensor, 1);
      const keep = sub(1, pow(step, -decay));
      const rows: Record<string, Tensor> = {};
      const columns: Record<string, Tensor> = {};
      const full: Record<string, Tensor> = {};
      const blend = (old: Tensor, fresh: Tensor): Tensor => add(mul(old, keep), mul(fresh, sub(1, keep)));
      const next = mapNamed(params, (p, name) => {
        const g = grads[name]!;
        const squared = add(square(g), epsilon);
        let update: Tensor;
        if (isMatrix(p.shape)) {
          rows[name] = blend(part(state, "rows")[name]!, mean(squared, { axes: 1 }));
          columns[name] = blend(part(state, "columns")[name]!, mean(squared, { axes: 0 }));
          const across = rsqrt(div(rows[name], mean(rows[name])));
          update = mul(mul(g, unsqueeze(across, 1)), unsqueeze(rsqrt(columns[name]), 0));
        } else {
          full[name] = blend(part(state, "full")[name]!, squared);
          update = mul(g, rsqrt(full[name]));
        }
        update = div(update, maximum(div(rms(update), clip), 1));
        const decayed = weightDecay === 0 ? p : sub(p, mul(p, mul(rate, weightDecay)));
        return sub(decayed, mul(update, rate));
      });
      return { params: next, state: { step, rows, columns, full } };
    },
  };
}
