import { type DType, HostTensor, type TypedArray } from "../tensor/index.ts";
import type { Device, DeviceOptions } from "./device.ts";
import type { ExecutionPlan } from "./execution.ts";

/** A host tensor as it crosses a thread boundary, where classes do not survive. */
export interface PlainTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: TypedArray;
}

export type PlainTensors = Record<string, PlainTensor>;

/** What the client asks of the worker; `session` numbers the executions of this worker. */
export type Request =
  | {
      readonly call: number;
      readonly session: number;
      readonly method: "open";
      readonly plan: ExecutionPlan;
      readonly options: Omit<DeviceOptions, "announce">;
    }
  | { readonly call: number; readonly session: number; readonly method: "run" | "write"; readonly values: PlainTensors }
  | { readonly call: number; readonly session: number; readonly method: "read"; readonly names?: readonly string[] }
  | { readonly call: number; readonly session: number; readonly method: "close" };

export type Reply =
  | { readonly call: number; readonly ok: true; readonly values?: PlainTensors; readonly device?: Device }
  | { readonly call: number; readonly ok: false; readonly code: string; readonly message: string }
  | { readonly announce: string; readonly session: number };

export function toPlain(values: Readonly<Record<string, HostTensor>>): PlainTensors {
  return Object.fromEntries(
    Object.entries(values).map(([name, { dtype, shape, data }]) => [name, { dtype, shape, data }]),
  );
}

export function fromPlain(values: PlainTensors): Record<string, HostTensor> {
  return Object.fromEntries(
    Object.entries(values).map(([name, { dtype, shape, data }]) => [name, new HostTensor(dtype, shape, data)]),
  );
}
