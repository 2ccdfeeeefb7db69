import {
  ArgumentError,
  add,
  asTensor,
  cast,
  children,
  clip,
  div,
  formatShape,
  type Leaf,
  mean,
  mul,
  rebuild,
  round,
  ShapeError,
  sqrt,
  square,
  sub,
  type Tensor,
} from "../../tensor/index.ts";
import { Weight } from "../weight.ts";

/** Outermost levels are no closer to zero, so that a row of zeros has a grid. */
const LEAST_EXTENT = 1e-8;

/**
 * How far, in steps, the middle between two levels is moved. Sums of numbers that cancel are zero but for their rounding,
 * which differs from program to program; where zero is such a middle, all of them are to go the same way.
 */
const NUDGE = 1 / 1024;

/**
 * `x` at the nearest of `levels` numbers that lie `step` apart, evenly around zero: `±step/2`, `±3 step/2`, ... for an even
 * count (a mid-rise grid, without a zero), and `0`, `±step`, ... for an odd one.
 */
export function roundToLevels(x: Tensor, step: Tensor, levels: number): Tensor {
  const middle = (levels - 1) / 2;
  const code = round(clip(add(div(x, step), middle + (levels % 2 === 0 ? NUDGE : 0)), 0, levels - 1));
  return mul(sub(code, middle), step);
}

/** A grid that follows the numbers on it: its outermost of `levels` levels lies `scale` roots of their mean square from zero. */
export interface GaussianGrid {
  readonly levels: number;
  readonly scale: number;
}

/** The distance between the levels of each row's grid: `x f32 [..., n]` to `[..., 1]`. */
export function gaussianStep(x: Tensor, { levels, scale }: GaussianGrid): Tensor {
  const rms = sqrt(mean(square(x), { axes: [-1], keepDims: true }));
  return mul(add(mul(rms, scale), LEAST_EXTENT), 2 / (levels - 1));
}

/**
 * A weight whose input is rounded to a few levels evenly around zero before the product: each token's to a grid that
 * follows from its mean square (QuEST), or all to one whose `step` was learned (LSQ). The product itself is `inner`'s.
 */
export class GridInput extends Weight {
  override readonly kind = "grid-input";
  readonly inner: Weight;
  readonly levels: number;
  /** Where a token's outermost level lies, in roots of its mean square; 0 where the step is fixed. */
  readonly scale: number;
  readonly step: Leaf | undefined;

  /**
   * @param scale above 0, where there is no `step`
   * @param step distance between levels, a floating-point scalar
   * @throws ArgumentError, ShapeError
   */
  constructor(inner: Weight, { levels, scale = 0, step }: { levels: number; scale?: number; step?: Leaf | undefined }) {
    super();
    if (!(Number.isInteger(levels) && levels >= 2 && levels <= 256))
      throw new ArgumentError(`inputs are rounded to 2 to 256 levels, not ${levels}`);
    if (step ? scale !== 0 : !(scale > 0 && Number.isFinite(scale)))
      throw new ArgumentError(
        `a grid of inputs has a scale above 0 or a fixed step, not the scale ${scale}${step ? " and a step" : ""}`,
      );
    if (step && step.shape.length !== 0)
      throw new ShapeError(`the step of an input's grid is one number, not ${formatShape(step.shape)}`);
    this.inner = inner;
    this.levels = levels;
    this.scale = scale;
    this.step = step;
  }

  override get shape(): readonly [number, number] {
    return this.inner.shape;
  }

  override get attributes(): Readonly<Record<string, unknown>> {
    return { levels: this.levels, scale: this.scale };
  }

  override apply(x: Tensor): Tensor {
    const values = cast(x, "f32");
    const step = this.step ? cast(asTensor(this.step), "f32") : gaussianStep(values, this);
    return this.inner.apply(cast(roundToLevels(values, step, this.levels), x.dtype));
  }

  override rows(ids: Tensor): Tensor {
    return this.inner.rows(ids);
  }

  override dense(): Tensor {
    return this.inner.dense();
  }

  override [children](): Record<string, Leaf | Weight> {
    return { inner: this.inner, ...(this.step && { step: this.step }) };
  }

  override [rebuild](parts: Record<string, unknown>): GridInput {
    const { levels, scale } = this;
    return new GridInput(parts.inner as Weight, { levels, scale, step: parts.step as Leaf | undefined });
  }
}
