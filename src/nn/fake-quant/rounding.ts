import {
  and,
  cast,
  clip,
  customVjp,
  div,
  greaterEqual,
  type HostTensor,
  lessEqual,
  mul,
  round,
  type Tensor,
} from "../../tensor/index.ts";
import type { Weight } from "../weight.ts";

/** Numbers that are learned beside a matrix, by name: `scale`, say. None is called `latent`. */
export type Learned<T> = Readonly<Record<string, T>>;

/** A matrix at the end of training. */
export interface RoundedMatrix {
  /** What was trained, `f32 [out, in]`. */
  readonly latent: HostTensor;
  /** The same on the grid, as the model computed with it, `f32 [out, in]`. */
  readonly rounded: HostTensor;
  readonly learned: Learned<HostTensor>;
}

/** How a matrix is rounded while it is trained: onto a grid forward, with a gradient of its own backward. */
export interface WeightRounding {
  /** With its settings, for reports. */
  readonly name: string;
  /** What is learned beside the matrix `f32 [out, in]`, to begin with. Default: nothing. */
  start?(latent: HostTensor): Learned<HostTensor>;
  /** The matrix `[out, in]` on the grid. */
  apply(latent: Tensor, learned: Learned<Tensor>): Tensor;
  /** The same matrix in few bits. */
  pack(matrix: RoundedMatrix): Weight;
}

/** How the inputs of a matrix are rounded, while it is trained and after. */
export interface InputRounding {
  readonly name: string;
  /** What is learned, to begin with, under names that the matrix's rounding does not use. Default: nothing. */
  start?(): Learned<HostTensor>;
  /** `x [..., in]` on the grid. */
  apply(x: Tensor, learned: Learned<Tensor>): Tensor;
  /** A weight that rounds its input in the same way before `weight` is applied. */
  pack(weight: Weight, learned: Learned<HostTensor>): Weight;
}

/**
 * `onto(x)` forward; backward, the gradient as if nothing had happened (the straight-through estimator, Bengio et al.
 * 2013, arXiv:1308.3432), times `mask(x)` where there is one.
 */
export function straightThrough(
  x: Tensor,
  onto: (x: Tensor) => Tensor,
  mask?: (x: Tensor, result: Tensor) => Tensor,
): Tensor {
  return customVjp(
    (value: Tensor) => onto(value),
    (dy, result, value) => [mask ? mul(dy, mask(value, result)) : dy],
  )(x);
}

/** Steps of a grid do not get smaller, so that a block, or a token, of zeros has one. */
export const LEAST_STEP = 1e-12;

/** `step * clip(round(x / step), low, high)`, the gradient straight through where nothing is cut off. */
export function roundOnto(x: Tensor, step: Tensor, low: number, high: number): Tensor {
  return straightThrough(
    x,
    (value) => mul(clip(round(div(value, step)), low, high), step),
    (value) => {
      const position = div(value, step);
      return cast(and(greaterEqual(position, low - 0.5), lessEqual(position, high + 0.5)), value.dtype);
    },
  );
}
