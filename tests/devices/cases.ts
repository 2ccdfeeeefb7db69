import { HostTensor, type Tensor, type TensorSpec } from "../../src/tensor/index.ts";
import { hostOf, wave } from "../support/numbers.ts";

/** A small graph whose numbers must not depend on the device. */
export interface DeviceCase {
  readonly fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[];
  readonly inputs: readonly HostTensor[];
  /** Declared types, where they are not those of the inputs: for named dimensions. */
  readonly specs?: readonly TensorSpec[];
  /** Compare the values alone: the function has no gradient. */
  readonly flat?: boolean;
  /** Instead of the family's. */
  readonly tolerance?: number;
  /** Instead of that, on a GPU, whose functions may be less exact. */
  readonly gpuTolerance?: number;
}

/** Cases that make up one program: starting a session costs more than running them all. */
export interface Family {
  readonly name: string;
  /** Largest error, relative to numbers above 1. Integers and booleans must be equal. */
  readonly tolerance: number;
  readonly cases: Readonly<Record<string, DeviceCase>>;
}

export const of = (fn: DeviceCase["fn"], ...inputs: readonly HostTensor[]): DeviceCase => ({ fn, inputs });

/** Without a gradient. */
export const flat = (fn: DeviceCase["fn"], ...inputs: readonly HostTensor[]): DeviceCase => ({
  fn,
  inputs,
  flat: true,
});

/**
 * WebGPU's shading language allows sines and cosines an absolute error of 2^-11 (WGSL, "Accuracy of Concrete
 * Floating Point Expressions"); the factor is what gradients make of it.
 */
export const trigonometric = { gpuTolerance: 2 * 2 ** -11 };

let drawn = 0;
/** Patternless numbers from `low` to `high`; each call gives others. */
export function x(shape: readonly number[], low = -1, high = 1): HostTensor {
  const from = (drawn += 1000);
  return hostOf(shape, (i) => low + ((wave(from + i) + 1) / 2) * (high - low), "f32");
}

/** Numbers 0.05 apart in no order: for functions with kinks at ties and at zero. */
export function apart(shape: readonly number[]): HostTensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const order = Array.from({ length: size }, (_, i) => i).sort((a, b) => wave(a) - wave(b));
  return hostOf(shape, (i) => (order[i]! - size / 2 + 0.25) * 0.05, "f32");
}

export const typed = (dtype: HostTensor["dtype"], values: Parameters<typeof HostTensor.from>[0]): HostTensor =>
  HostTensor.from(values, { dtype });
export const f32 = (...values: readonly number[]): HostTensor => typed("f32", values);
export const i64 = (values: Parameters<typeof HostTensor.from>[0]): HostTensor => typed("i64", values);
