import {
  add,
  cast,
  children,
  clip,
  div,
  type Leaf,
  max,
  maximum,
  min,
  minimum,
  mul,
  neg,
  rebuild,
  round,
  stopGradient,
  sub,
  type Tensor,
} from "../../tensor/index.ts";
import { straightThrough } from "../fake-quant/rounding.ts";
import { Weight } from "../weight.ts";

/** Steps do not get smaller, so that a token of zeros has one. */
const LEAST_STEP = 1e-12;

/**
 * `x [..., n]` at 8 bits, from each token's least to its greatest number, zero included, which stays exact: with
 * `s = (max - min) / 255` and `zero = round(-min / s) - 128`, `s * (clip(round(x / s) + zero, -128, 127) - zero)`. The
 * gradient passes straight through.
 */
export function roundAffine(x: Tensor): Tensor {
  const over = { axes: [-1], keepDims: true };
  const low = stopGradient(minimum(min(x, over), 0));
  const high = stopGradient(maximum(max(x, over), 0));
  const step = maximum(div(sub(high, low), 255), LEAST_STEP);
  const zero = sub(round(div(neg(low), step)), 128);
  return straightThrough(x, (value) => mul(sub(clip(add(round(div(value, step)), zero), -128, 127), zero), step));
}

/**
 * A weight whose input is rounded to 8 bits, each token on a grid of its own that need not lie evenly around zero: the
 * activations of Llama Guard 3-1B-INT4 (Fedorov et al. 2024, arXiv:2411.17713). The product itself is `inner`'s.
 */
export class AffineInput extends Weight {
  override readonly kind = "affine-input";
  readonly inner: Weight;

  constructor(inner: Weight) {
    super();
    this.inner = inner;
  }

  override get shape(): readonly [number, number] {
    return this.inner.shape;
  }

  override apply(x: Tensor): Tensor {
    return this.inner.apply(cast(roundAffine(cast(x, "f32")), x.dtype));
  }

  override rows(ids: Tensor): Tensor {
    return this.inner.rows(ids);
  }

  override dense(): Tensor {
    return this.inner.dense();
  }

  override [children](): Record<string, Leaf | Weight> {
    return { inner: this.inner };
  }

  override [rebuild](parts: Record<string, unknown>): AffineInput {
    return new AffineInput(parts.inner as Weight);
  }
}
