import {
  ArgumentError,
  abs,
  asTensor,
  cast,
  children,
  div,
  formatShape,
  type Leaf,
  max,
  maximum,
  rebuild,
  ShapeError,
  stopGradient,
  type Tensor,
} from "../../tensor/index.ts";
import { LEAST_STEP, roundOnto } from "../fake-quant/rounding.ts";
import { Weight } from "../weight.ts";

/**
 * `x [..., n]` rounded to `bits`-bit whole numbers around zero, `-2^(b-1) + 1` to `2^(b-1) - 1`, with a step for each token
 * from its largest magnitude, or from a fixed `range` beyond which inputs are cut off. The gradient passes straight
 * through where nothing is cut off.
 */
export function roundInput(x: Tensor, bits: number, range?: Leaf): Tensor {
  const largest = 2 ** (bits - 1) - 1;
  const values = cast(x, "f32");
  const extent = range ? cast(asTensor(range), "f32") : max(abs(values), { axes: [-1], keepDims: true });
  const step = stopGradient(maximum(div(extent, largest), LEAST_STEP));
  return cast(roundOnto(values, step, -largest, largest), x.dtype);
}

/**
 * A weight whose input is rounded to `bits`-bit whole numbers around zero before the product: what a kernel on whole
 * numbers would be given. The step follows from the largest magnitude of each token, or from a `range` fixed beforehand
 * beyond which inputs are cut off. The product itself is `inner`'s.
 */
export class RoundedInput extends Weight {
  override readonly kind = "rounded-input";
  readonly inner: Weight;
  readonly bits: number;
  readonly range: Leaf | undefined;

  /**
   * @param bits 2 to 8
   * @param range largest magnitude of the whole input, a floating-point scalar; absent: each token's own
   */
  constructor(inner: Weight, { bits, range }: { bits: number; range?: Leaf | undefined }) {
    super();
    if (!(Number.isInteger(bits) && bits >= 2 && bits <= 8))
      throw new ArgumentError(`inputs are rounded to 2 to 8 bits, not ${bits}`);
    if (range && range.shape.length !== 0)
      throw new ShapeError(`the range of an input is one number, not ${formatShape(range.shape)}`);
    this.inner = inner;
    this.bits = bits;
    this.range = range;
  }

  override get shape(): readonly [number, number] {
    return this.inner.shape;
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { bits: this.bits };
  }

  override apply(x: Tensor): Tensor {
    return this.inner.apply(roundInput(x, this.bits, this.range));
  }

  override rows(ids: Tensor): Tensor {
    return this.inner.rows(ids);
  }

  override dense(): Tensor {
    return this.inner.dense();
  }

  override [children](): Record<string, Leaf | Weight> {
    return { inner: this.inner, ...(this.range && { range: this.range }) };
  }

  override [rebuild](parts: Record<string, unknown>): RoundedInput {
    return new RoundedInput(parts.inner as Weight, { bits: this.bits, range: parts.range as Leaf | undefined });
  }
}
