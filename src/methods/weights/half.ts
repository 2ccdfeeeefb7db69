import { Dense, HalfWeight, type Weight } from "../../nn/index.ts";
import { type HostTensor, isHostTensor, mapTree } from "../../tensor/index.ts";
import type { MatrixMethod } from "./method.ts";

export type HalfPrecision = "f16" | "bf16";

/** Half precision, which is computed in `f32`. */
export function half(dtype: HalfPrecision): MatrixMethod {
  return { name: dtype, calibrated: false, compress: async ({ weight }) => denseIn(dtype, weight) };
}

/** Values `f32 [out, in]` in half precision, or as they are. */
export function denseIn(precision: HalfPrecision | null | undefined, values: HostTensor): Weight {
  return precision ? new HalfWeight(values.cast(precision)) : new Dense(values);
}

/** The same tree of weights with `bf16` numbers in `f32`, because programs take no others as arguments. */
export function fed<T>(tree: T): T {
  const isNumbers = (value: unknown): value is HalfWeight | HostTensor =>
    value instanceof HalfWeight || isHostTensor(value);
  return mapTree(tree, isNumbers, (numbers) => {
    const values = numbers instanceof HalfWeight ? (numbers.values as HostTensor) : numbers;
    if (values.dtype !== "bf16") return numbers;
    const single = values.cast("f32");
    return numbers instanceof HalfWeight ? new Dense(single) : single;
  }) as T;
}
