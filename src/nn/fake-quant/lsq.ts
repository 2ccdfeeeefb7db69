import {
  abs,
  cast,
  customVjp,
  div,
  exp,
  HostTensor,
  lessEqual,
  mul,
  sub,
  sum,
  type Tensor,
  where,
} from "../../tensor/index.ts";
import { GridInput, roundToLevels } from "../weights/grid-input.ts";
import { gaussianScale, levelsOf } from "./gaussian-scale.ts";
import { packLevels } from "./level-packing.ts";
import { type InputRounding, LEAST_STEP, type WeightRounding } from "./rounding.ts";

/**
 * `x` rounded to `levels` numbers `step` apart, evenly around zero, with the gradients of learned step size quantization
 * (Esser et al. 2020, arXiv:1902.08153, equations 3 and 5): straight through to `x` where it is not cut off, and to the
 * step how much each result moves with it, divided by the root of the number of entries times the largest code.
 * @param step a scalar
 */
export function lsqRound(x: Tensor, step: Tensor, levels: number): Tensor {
  const reach = (levels - 1) / 2;
  const entries = x.shape.reduce<number>((n, size) => n * (typeof size === "number" ? size : 1), 1);
  const share = 1 / Math.sqrt(entries * Math.max(1, levels / 2 - 1));
  return customVjp(
    (values: Tensor, s: Tensor) => roundToLevels(values, s, levels),
    (dy, result, values, s) => {
      const position = div(values, s);
      const inside = lessEqual(abs(position), reach);
      const moves = sub(div(result, s), where(inside, position, 0));
      return [mul(dy, cast(inside, dy.dtype)), mul(sum(mul(dy, moves)), share)];
    },
  )(x, step);
}

/** The step of the grid that is best for normal numbers with this root mean square. */
function gaussianStart(bits: number, rms: number): HostTensor {
  const step = (2 * gaussianScale(bits) * rms) / (levelsOf(bits) - 1);
  return HostTensor.from(Math.log(Math.max(step, LEAST_STEP)));
}

/**
 * Learned step size quantization of a matrix, one step for all of it. What is learned is the step's logarithm, so that an
 * optimizer which normalises gradients moves it by a share of itself.
 * @throws ArgumentError for bits without a Gaussian scale
 */
export function lsqRounding({ bits }: { readonly bits: number }): WeightRounding {
  const levels = levelsOf(bits);
  gaussianScale(bits);
  return {
    name: `LSQ to ${bits} bits`,
    start: (latent) => ({ logStep: gaussianStart(bits, rootMeanSquare(latent)) }),
    apply: (latent, { logStep }) => lsqRound(latent, exp(logStep!), levels),
    pack: ({ rounded, learned }) => packLevels({ rounded, steps: Math.exp(learned.logStep!.item()), levels }),
  };
}

/**
 * The same of inputs, one step for all of them.
 * @param rms root mean square of the inputs, from which the first step follows
 */
export function lsqInputRounding({ bits, rms }: { readonly bits: number; readonly rms: number }): InputRounding {
  const levels = levelsOf(bits);
  gaussianScale(bits);
  return {
    name: `inputs by LSQ to ${bits} bits`,
    start: () => ({ inputLogStep: gaussianStart(bits, rms) }),
    apply: (x, { inputLogStep }) => lsqRound(x, exp(inputLogStep!), levels),
    pack: (weight, { inputLogStep }) =>
      new GridInput(weight, { levels, step: HostTensor.from(Math.exp(inputLogStep!.item())) }),
  };
}

function rootMeanSquare({ data }: HostTensor): number {
  const values = data as Float32Array;
  return Math.sqrt(values.reduce((total, value) => total + value * value, 0) / values.length);
}
