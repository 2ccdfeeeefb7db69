import { asTensor, HostTensor, type Tensor, type TensorSpec } from "../../src/tensor/index.ts";
import { hostOf, wave } from "../support/numbers.ts";

/** A small graph whose numbers must not depend on the device. */
export interface DeviceCase {
  readonly fn: (...inputs: Tensor[]) => Tensor | readonly Tensor[];
  readonly inputs: readonly HostTensor[];
  /** Declared types, where they are not those of the inputs: for named dimensions. */
  readonly specs?: readonly TensorSpec[];
  /** Largest error, relative to numbers above 1; the family's when absent. Integers and booleans must be equal. */
  readonly tolerance?: number;
  /** Compare the values alone: the function has no gradient, or none on purpose. */
  readonly flat?: boolean;
}

/** Cases that make up one program: starting a session costs more than running them all. */
export interface Family {
  readonly name: string;
  readonly tolerance: number;
  readonly cases: Readonly<Record<string, DeviceCase>>;
}

type Fn = DeviceCase["fn"];
type Options = Omit<DeviceCase, "fn" | "inputs">;

export const of = (fn: Fn, ...inputs: readonly HostTensor[]): DeviceCase => ({ fn, inputs });
export const withOptions = (options: Options, fn: Fn, ...inputs: readonly HostTensor[]): DeviceCase => ({
  fn,
  inputs,
  ...options,
});
/** Without a gradient. */
export const flat = (fn: Fn, ...inputs: readonly HostTensor[]): DeviceCase => ({ fn, inputs, flat: true });

let drawn = 0;
/** Patternless numbers from `low` to `high`; each call gives others. */
export function x(shape: readonly number[], low = -1, high = 1): HostTensor {
  const from = (drawn += 1000);
  return hostOf(shape, (i) => low + ((wave(from + i) + 1) / 2) * (high - low), "f32");
}

/** Numbers at least 0.05 apart in no order: for functions with kinks at ties. */
export function apart(shape: readonly number[]): HostTensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const order = Array.from({ length: size }, (_, i) => i).sort((a, b) => wave(a) - wave(b));
  return hostOf(shape, (i) => (order[i]! - size / 2 + 0.25) * 0.05, "f32");
}

export const i64 = (values: Parameters<typeof HostTensor.from>[0]): HostTensor =>
  HostTensor.from(values, { dtype: "i64" });
export const typed = (dtype: HostTensor["dtype"], values: readonly number[]): HostTensor =>
  HostTensor.from(values, { dtype });
export const constant = asTensor;
