import { ArgumentError, type HostTensor, isFloat } from "../../../tensor/index.ts";
import { BitMask } from "./bit-mask.ts";

/** Below this relative difference bfloat16 numbers are the same: neighbours are at least 2^-8 of the larger apart. */
export const SAME = 1e-3;

/** The numbers rounded to bfloat16, ties to even, in their own type. */
export function bf16Round(t: HostTensor): HostTensor {
  return t.dtype === "bf16" ? t : t.cast("bf16").cast(t.dtype);
}

/** The distance to the next larger bfloat16 number at each of `x`: `2^(floor(log2 |x|) - 7)`, and the least one at 0. */
export function bf16Ulp(x: Float32Array): Float32Array {
  const bits = new Uint32Array(1);
  const value = new Float32Array(bits.buffer);
  return x.map((number) => {
    value[0] = number;
    const exponent = (bits[0]! >>> 23) & 0xff;
    return 2 ** (Math.max(exponent, 1) - 127 - 7);
  });
}

/**
 * The entries of a matrix that differ as bfloat16: `|b - a| > eta max(|a|, |b|)` of the rounded numbers
 * (Zhu et al. 2025, arXiv:2511.08567). With the usual `eta` these are the entries whose bits differ.
 * @param before `[rows, cols]`, any floating-point type
 */
export function changedMask(before: HostTensor, after: HostTensor, eta = SAME): BitMask {
  if (!(eta >= 0 && eta < 1)) throw new ArgumentError(`eta must be a number from 0 to below 1, not ${eta}`);
  const [a, b] = [before, after].map((t) => t.cast("f32").cast("bf16").cast("f32").data as Float32Array);
  return maskWhere(before, (i) => Math.abs(b![i]! - a![i]!) > eta * Math.max(Math.abs(a![i]!), Math.abs(b![i]!)));
}

/** The entries of a matrix that differ at all as they are stored. */
export function storedMask(before: HostTensor, after: HostTensor): BitMask {
  if (!isFloat(before.dtype) || before.dtype !== after.dtype) {
    const [a, b] = [before.cast("f64").data as Float64Array, after.cast("f64").data as Float64Array];
    return maskWhere(before, (i) => a[i] !== b[i]);
  }
  return maskWhere(before, (i) => before.data[i] !== after.data[i]);
}

function maskWhere({ shape }: HostTensor, holds: (i: number) => boolean): BitMask {
  const mask = new BitMask(shape[0]!, shape[1]!);
  for (let i = 0; i < mask.bits.length; i++) mask.bits[i] = Number(holds(i));
  return mask;
}
