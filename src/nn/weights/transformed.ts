import {
  ArgumentError,
  asTensor,
  cast,
  children,
  type Leaf,
  mul,
  rebuild,
  ShapeError,
  sameShape,
  type Tensor,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";
import { hadamard } from "./hadamard.ts";

/**
 * A weight `W = A H diag(s)` of which `A` is what is kept: the input is scaled per channel by `s` and turned by a
 * blockwise Hadamard transform `H` before it meets `A`. Scales even out channels (AWQ, SmoothQuant) and the transform
 * spreads outliers over a block (QuaRot's online form), so that `A` and its input are easier to round than `W`.
 */
export class TransformedWeight extends Weight {
  override readonly kind = "transformed";
  readonly inner: Weight;
  readonly scales: Leaf | undefined;
  /** Length of the blocks that are turned, a power of two; 0: none. */
  readonly hadamard: number;

  /** @param scales `[in]`, floating-point */
  constructor(inner: Weight, { scales, hadamard: size = 0 }: { scales?: Leaf | undefined; hadamard?: number }) {
    super();
    const width = inner.shape[1];
    if (scales && !sameShape(scales.shape, [width]))
      throw new ShapeError(`the scales of this input must be [${width}], not [${scales.shape.join(", ")}]`);
    if (size !== 0 && (!Number.isInteger(Math.log2(size)) || width % size !== 0))
      throw new ArgumentError(`an input of ${width} entries cannot be turned in blocks of ${size}`);
    this.inner = inner;
    this.scales = scales;
    this.hadamard = size;
  }

  override get shape(): readonly [number, number] {
    return this.inner.shape;
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { hadamard: this.hadamard };
  }

  /** The same transform before another weight. */
  around(inner: Weight): TransformedWeight {
    return new TransformedWeight(inner, { scales: this.scales, hadamard: this.hadamard });
  }

  override apply(x: Tensor): Tensor {
    return this.inner.apply(this.#turn(this.#scale(x)));
  }

  override rows(ids: Tensor): Tensor {
    return this.#scale(this.#turn(this.inner.rows(ids)));
  }

  override dense(): Tensor {
    return this.#scale(this.#turn(this.inner.dense()));
  }

  #scale(x: Tensor): Tensor {
    return this.scales ? mul(x, cast(asTensor(this.scales), x.dtype)) : x;
  }

  #turn(x: Tensor): Tensor {
    return this.hadamard === 0 ? x : hadamard(x, this.hadamard);
  }

  override [children](): Record<string, Leaf | Weight> {
    return { inner: this.inner, ...(this.scales && { scales: this.scales }) };
  }

  override [rebuild](parts: Record<string, unknown>): TransformedWeight {
    return new TransformedWeight(parts.inner as Weight, {
      scales: parts.scales as Leaf | undefined,
      hadamard: this.hadamard,
    });
  }
}
