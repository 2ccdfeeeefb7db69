import { Dense, Weight } from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import { HostTensor, isFloat } from "../../tensor/index.ts";

/** What the numbers of a tensor are like. */
export interface Values {
  readonly count: number;
  /** How many are exactly zero. */
  readonly zeros: number;
  readonly nan: number;
  readonly infinite: number;
  /** Of the finite ones; null where there are none. */
  readonly min: number | null;
  readonly max: number | null;
}

/** Looks at every number of a tensor, or that a weight stands for; null for whole numbers, which are parts of something. */
export async function valuesOf(weight: Weight | HostTensor): Promise<Values | null> {
  const tensor = weight instanceof Weight ? await denseOf(weight) : weight;
  if (!isFloat(tensor.dtype)) return null;
  const numbers = tensor.cast("f32").data as Float32Array;
  let [zeros, nan, infinite, min, max] = [0, 0, 0, Infinity, -Infinity];
  for (const value of numbers) {
    if (value === 0) zeros++;
    if (Number.isNaN(value)) nan++;
    else if (Math.abs(value) === Infinity) infinite++;
    else {
      if (value < min) min = value;
      if (value > max) max = value;
    }
  }
  const finite = min <= max;
  return { count: numbers.length, zeros, nan, infinite, min: finite ? min : null, max: finite ? max : null };
}

async function denseOf(weight: Weight): Promise<HostTensor> {
  if (weight instanceof Dense && weight.values instanceof HostTensor) return weight.values;
  // As constants, which may be of any type.
  await using program = await compile(() => weight.dense(), []);
  return await program();
}

/** Values of several tensors together. */
export function merged(all: readonly Values[]): Values | null {
  if (all.length === 0) return null;
  const sum = (key: "count" | "zeros" | "nan" | "infinite"): number => all.reduce((n, values) => n + values[key], 0);
  const bounds = all.flatMap(({ min, max }) => (min === null || max === null ? [] : [min, max]));
  return {
    count: sum("count"),
    zeros: sum("zeros"),
    nan: sum("nan"),
    infinite: sum("infinite"),
    min: bounds.length > 0 ? bounds.reduce((a, b) => Math.min(a, b)) : null,
    max: bounds.length > 0 ? bounds.reduce((a, b) => Math.max(a, b)) : null,
  };
}
