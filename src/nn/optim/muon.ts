import { add, div, matmul, mul, norm2, sub, type Tensor, transpose } from "../../tensor/index.ts";
import { type AdamWOptions, adamw } from "./adamw.ts";
import { groups } from "./groups.ts";
import { mapNamed, type Named, type Optimizer, part, zerosFor } from "./optimizer.ts";

/** Coefficients of the quintic iteration, chosen to lift small singular values fastest (Jordan et al. 2024). */
const A = 3.4445;
const B = -4.775;
const C = 2.0315;

/**
 * The nearest matrix with singular values around 1, by `steps` Newton-Schulz iterations: `U V^T` of the singular value
 * decomposition, up to a factor within about [0.7, 1.2]. `x [..., rows, columns]`.
 */
export function orthogonalize(x: Tensor, steps = 5): Tensor {
  const wide = (x.shape[x.rank - 2] as number) <= (x.shape[x.rank - 1] as number);
  let y = wide ? x : transpose(x);
  y = div(y, add(norm2(y, { axes: [-2, -1], keepDims: true }), 1e-7));
  for (let i = 0; i < steps; i++) {
    const gram = matmul(y, transpose(y));
    const mix = add(mul(gram, B), mul(matmul(gram, gram), C));
    y = add(mul(y, A), matmul(mix, y));
  }
  return wide ? y : transpose(y);
}

export interface MuonOptions {
  readonly momentum?: number;
  readonly nesterov?: boolean;
  readonly steps?: number;
  readonly weightDecay?: number;
  /** Which parameters are matrices to orthogonalise; default: two dimensions, embeddings and output heads excepted. */
  readonly matrices?: (name: string, shape: readonly number[]) => boolean;
  /** Rule of all other parameters. */
  readonly others?: AdamWOptions;
  /** Factor of the learning rate for the other parameters, which want a smaller one. Default 0.1. */
  readonly otherRate?: number;
}

const hiddenMatrix = (name: string, shape: readonly number[]): boolean =>
  shape.length === 2 && !/embed|lm_head/.test(name);

/**
 * Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024), AdamW for the rest. Updates
 * are scaled by `sqrt(max(1, rows / columns))`, so that one learning rate fits matrices of all shapes.
 */
export function muon({
  matrices = hiddenMatrix,
  others = {},
  otherRate = 0.1,
  ...options
}: MuonOptions = {}): Optimizer {
  return groups([
    { match: matrices, optimizer: matrixRule(options) },
    { match: () => true, optimizer: adamw(others), rate: otherRate },
  ]);
}

function matrixRule({
  momentum = 0.95,
  nesterov = true,
  steps = 5,
  weightDecay = 0,
}: Omit<MuonOptions, "matrices" | "others" | "otherRate">): Optimizer {
  return {
    init: (params) => ({ velocity: zerosFor(params) }),
    update: (grads, state, params, rate) => {
      const velocity = mapNamed(grads, (g, name) => add(mul(part(state, "velocity")[name]!, momentum), g));
      const direction: Named<Tensor> = nesterov
        ? mapNamed(grads, (g, name) => add(g, mul(velocity[name]!, momentum)))
        : velocity;
      return {
        params: mapNamed(params, (p, name) => {
          const [rows, columns] = p.shape.slice(-2) as [number, number];
          const scale = Math.sqrt(Math.max(1, rows / columns));
          const decayed = weightDecay === 0 ? p : sub(p, mul(p, mul(rate, weightDecay)));
          return sub(decayed, mul(orthogonalize(direction[name]!, steps), mul(rate, scale)));
        }),
        state: { velocity },
      };
    },
  };
}
