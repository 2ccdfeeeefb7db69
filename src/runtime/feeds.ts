import type { Tensor as OrtTensor } from "onnxruntime-common";
import {
  type Bindings,
  type DType,
  dtypes,
  evaluateDim,
  formatShape,
  HostTensor,
  type Shape,
  type TensorType,
  type TypedArray,
} from "../tensor/index.ts";
import type { Ort } from "./device.ts";
import { FeedError, RuntimeFailure } from "./errors.ts";

/** onnxruntime's names of the element types that may cross a program's border. */
const ortTypes: Partial<Record<DType, OrtTensor.Type>> = {
  f32: "float32",
  f16: "float16",
  f64: "float64",
  i64: "int64",
  i32: "int32",
  i16: "int16",
  i8: "int8",
  u64: "uint64",
  u32: "uint32",
  u16: "uint16",
  u8: "uint8",
  bool: "bool",
  u4: "uint4",
  i4: "int4",
};
const dtypeOf = new Map(Object.entries(ortTypes).map(([dtype, type]) => [type, dtype as DType]));

/** @throws FeedError for an element type that only constants may have. */
export function checkPortType(name: string, { dtype }: TensorType): void {
  if (!ortTypes[dtype])
    throw new FeedError(
      `"${name}" is ${dtype}, which onnxruntime takes as a constant only; pass it in another type and cast`,
    );
}

export function toOrt(ort: Ort, t: HostTensor): OrtTensor {
  return new ort.Tensor(ortTypes[t.dtype]!, t.data as never, t.shape as number[]);
}

export function dtypeOfOrt({ type }: OrtTensor): DType {
  const dtype = dtypeOf.get(type);
  if (!dtype) throw new RuntimeFailure(`onnxruntime returned a tensor of type ${type}, which has no counterpart here`);
  return dtype;
}

export function fromOrt(t: OrtTensor): HostTensor {
  const dtype = dtypeOfOrt(t);
  const data = t.data as unknown as TypedArray;
  const { array } = dtypes[dtype];
  // Engines that know Float16Array return one; the bits are the same.
  const stored =
    data instanceof (array as unknown as new () => TypedArray)
      ? data
      : new array(data.buffer, data.byteOffset, data.length);
  return new HostTensor(dtype, t.dims, stored);
}

/**
 * Checks a value against what its input was declared as, binding named dimensions on the way.
 * @throws FeedError naming the input, what it wants and what it got.
 */
export function checkFeed(
  name: string,
  want: { dtype: DType; shape: Shape },
  got: HostTensor,
  bindings: Bindings,
): void {
  const fail = (): never => {
    const bound = [...bindings].map(([k, v]) => `${k} = ${v}`).join(", ");
    throw new FeedError(
      `"${name}" takes ${want.dtype} ${formatShape(want.shape)}, but ${got.dtype} ${formatShape(got.shape)} was given${bound ? ` (with ${bound})` : ""}`,
    );
  };
  if (got.dtype !== want.dtype || got.shape.length !== want.shape.length) fail();
  want.shape.forEach((dim, i) => {
    const size = got.shape[i]!;
    if (typeof dim === "string" && /^[^+*()]+$/.test(dim) && !bindings.has(dim)) bindings.set(dim, size);
    const expected = evaluateDim(dim, bindings);
    if (expected !== undefined && expected !== size) fail();
  });
}
