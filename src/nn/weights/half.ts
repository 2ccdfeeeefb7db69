import {
  asTensor,
  cast,
  children,
  DTypeError,
  gather,
  type Leaf,
  linear,
  rebuild,
  type Tensor,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";

/**
 * A matrix kept in half precision, `f16` or `bf16`, and computed with in the precision of its input. `bf16` works as a
 * constant of a program only: onnxruntime's bindings do not take it as an argument.
 */
export class HalfWeight extends Weight {
  override readonly kind = "half";
  readonly values: Leaf;

  /** @param values `f16` or `bf16 [out, in]` */
  constructor(values: Leaf) {
    super();
    if (values.dtype !== "f16" && values.dtype !== "bf16")
      throw new DTypeError(`the values of a half-precision weight must be f16 or bf16, not ${values.dtype}`);
    this.values = values;
  }

  override get shape(): readonly [number, number] {
    return this.values.shape as readonly [number, number];
  }

  override apply(x: Tensor): Tensor {
    return linear(x, cast(this.values, x.dtype));
  }

  override rows(ids: Tensor): Tensor {
    return cast(gather(this.values, ids), "f32");
  }

  override dense(): Tensor {
    return cast(asTensor(this.values), "f32");
  }

  override [children](): Record<string, Leaf> {
    return { values: this.values };
  }

  override [rebuild](parts: Record<string, unknown>): HalfWeight {
    return new HalfWeight(parts.values as Leaf);
  }
}
