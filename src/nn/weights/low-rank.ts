import { children, formatShape, matmul, rebuild, ShapeError, type Tensor } from "../../tensor/index.ts";
import { Weight } from "../weight.ts";

/** The product of two thin matrices `up [out, rank]` and `down [rank, in]`, each in any representation. */
export class LowRank extends Weight {
  override readonly kind = "low-rank";
  readonly up: Weight;
  readonly down: Weight;

  /** @throws ShapeError where the ranks differ. */
  constructor(up: Weight, down: Weight) {
    super();
    if (up.shape[1] !== down.shape[0])
      throw new ShapeError(
        `the factors ${formatShape(up.shape)} and ${formatShape(down.shape)} of a low-rank weight do not share a rank`,
      );
    this.up = up;
    this.down = down;
  }

  get rank(): number {
    return this.up.shape[1];
  }

  override get shape(): readonly [number, number] {
    return [this.up.shape[0], this.down.shape[1]];
  }

  override apply(x: Tensor): Tensor {
    return this.up.apply(this.down.apply(x));
  }

  override rows(ids: Tensor): Tensor {
    return matmul(this.up.rows(ids), this.down.dense());
  }

  override dense(): Tensor {
    return matmul(this.up.dense(), this.down.dense());
  }

  override [children](): Record<string, Weight> {
    return { up: this.up, down: this.down };
  }

  override [rebuild](parts: Record<string, unknown>): LowRank {
    return new LowRank(parts.up as Weight, parts.down as Weight);
  }
}
