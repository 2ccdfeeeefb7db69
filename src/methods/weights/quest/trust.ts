import {
  type GaussianGrid,
  GridInput,
  gaussianScale,
  gaussianStep,
  type InputRounding,
  levelsOf,
  packLevels,
  roundToLevels,
  straightThrough,
  type WeightRounding,
} from "../../../nn/index.ts";
import { abs, cast, type HostTensor, lessEqual, mul, sub, type Tensor } from "../../../tensor/index.ts";
import { keepLargerPairs } from "./pairs.ts";

/** How numbers are rounded, and which of them pass their gradients on. */
export interface TrustOptions {
  /** 1, 1.585 (three levels), or 2 to 8. */
  readonly bits: number;
  /**
   * `trust` (default): no gradient passes where the result is off by more than half an interval; `straight-through`: all
   * of it passes everywhere.
   */
  readonly estimator?: "trust" | "straight-through";
  /** How far off a result is trusted, in half intervals. Default 1. */
  readonly trust?: number;
  /** At 1 bit, the magnitude up to which numbers are trusted, in outermost levels. Default 1.3. */
  readonly outerScale?: number;
  /** `2:4-pairs`: of every four pairs of neighbours, the two with the smaller norms become zeros. Default `none`. */
  readonly sparsity?: "none" | "2:4-pairs";
}

/**
 * Rows `x f32 [..., n]` each rounded to the grid that is best for normal numbers of its mean square, and gradients only
 * through those numbers that the grid does not cut off by more than half an interval: what is rounded well moves the result
 * as its own change does, and of the rest the gradient is not trusted (QuEST, Algorithm 1 and section 3.2). Grids follow
 * the rows without a gradient of their own.
 */
export function trustRound(x: Tensor, options: TrustOptions): Tensor {
  const { bits, estimator = "trust", trust = 1, outerScale = 1.3, sparsity = "none" } = options;
  const grid = gridOf(bits);
  const rounded = (values: Tensor): Tensor => {
    const result = roundToLevels(values, gaussianStep(values, grid), grid.levels);
    return sparsity === "none" ? result : keepLargerPairs(result, values);
  };
  if (estimator === "straight-through") return straightThrough(x, rounded);
  return straightThrough(x, rounded, (values, result) => {
    const half = mul(gaussianStep(values, grid), 0.5);
    const trusted =
      grid.levels === 2 && sparsity === "none"
        ? lessEqual(abs(values), mul(half, outerScale))
        : lessEqual(abs(sub(result, values)), mul(half, trust * (1 + TIES)));
    return cast(trusted, values.dtype);
  });
}

/** Numbers in the middle of an interval are off by half of it, give or take how middles are rounded. */
const TIES = 0.003;

function gridOf(bits: number): GaussianGrid {
  return { levels: levelsOf(bits), scale: gaussianScale(bits) };
}

/** Rounds a matrix `[out, in]` row by row. @throws ArgumentError for bits without a Gaussian scale */
export function trustRounding(options: TrustOptions): WeightRounding {
  const grid = gridOf(options.bits);
  const sparse = options.sparsity === "2:4-pairs";
  return {
    name: nameOf("weights", options),
    apply: (latent) => trustRound(latent, options),
    pack: ({ latent, rounded }) =>
      packLevels({ rounded, steps: stepsOf(latent, grid), levels: grid.levels, zeros: sparse }),
  };
}

/** Rounds inputs token by token. @throws ArgumentError for bits without a Gaussian scale */
export function trustInputRounding(options: Omit<TrustOptions, "sparsity">): InputRounding {
  const grid = gridOf(options.bits);
  return {
    name: nameOf("inputs", options),
    apply: (x) => cast(trustRound(cast(x, "f32"), options), x.dtype),
    pack: (weight) => new GridInput(weight, grid),
  };
}

function nameOf(what: string, { bits, estimator = "trust", sparsity = "none" }: TrustOptions): string {
  return `${what} to ${bits} bits on Gaussian grids, ${estimator}${sparsity === "none" ? "" : `, ${sparsity}`}`;
}

/** `gaussianStep` of each row, on the host. */
function stepsOf({ shape, data }: HostTensor, { levels, scale }: GaussianGrid): Float64Array {
  const [rows, columns] = shape as [number, number];
  return Float64Array.from({ length: rows }, (_, r) => {
    let energy = 0;
    for (let i = r * columns; i < (r + 1) * columns; i++) energy += (data[i] as number) ** 2;
    return (2 * (scale * Math.sqrt(energy / columns) + 1e-8)) / (levels - 1);
  });
}
