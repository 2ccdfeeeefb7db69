import { HostTensor, type TypedArray } from "../tensor/index.ts";

/** Part `index` of `count` equal parts of a tensor's rows; memory is shared. */
export function partOfRows(tensor: HostTensor, index: number, count: number): HostTensor {
  const [rows, ...row] = tensor.shape as [number, ...number[]];
  const part = tensor.size / count;
  const data = tensor.data.subarray(index * part, (index + 1) * part) as TypedArray;
  return new HostTensor(tensor.dtype, [rows / count, ...row], data);
}

/** Tensors of the same type and row below each other. */
export function joinedRows(parts: readonly HostTensor[]): HostTensor {
  const { dtype, shape } = parts[0]!;
  const rows = parts.reduce((sum, part) => sum + part.shape[0]!, 0);
  const joined = HostTensor.zeros(dtype, [rows, ...shape.slice(1)]);
  let at = 0;
  for (const { data } of parts) {
    joined.data.set(data as never, at);
    at += data.length;
  }
  return joined;
}

/** A matrix transposed; a vector as it is. */
export function transposed(tensor: HostTensor): HostTensor {
  const [rows, columns] = tensor.shape;
  if (columns === undefined) return tensor;
  const result = HostTensor.zeros(tensor.dtype, [columns, rows!]);
  const [from, to] = [tensor.data as Float32Array, result.data as Float32Array];
  for (let r = 0; r < rows!; r++) for (let c = 0; c < columns; c++) to[c * rows! + r] = from[r * columns + c]!;
  return result;
}
