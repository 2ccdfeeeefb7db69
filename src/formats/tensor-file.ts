import type { DType, TypedArray } from "../tensor/dtype.ts";
import { ArgumentError, ShapeError } from "../tensor/errors.ts";
import type { HostTensor } from "../tensor/host.ts";
import type { ByteSink } from "./bytes.ts";

/** What a file says of one of its tensors. */
export interface TensorInfo {
  readonly name: string;
  /** Element type in the file's own terms: `BF16`, `Q4_K`. */
  readonly type: string;
  /** Element type that `read` gives; undefined for types that can be listed only. */
  readonly dtype: DType | undefined;
  readonly shape: readonly number[];
  /** Bytes that it takes in the file. */
  readonly bytes: number;
}

/** Rows [start, end) along a tensor's first axis. */
export type RowRange = readonly [start: number, end: number];

/**
 * Named tensors at rest. The file's structure is checked when it is opened; numbers are read when asked for, so
 * that a model larger than memory can be walked tensor by tensor, or a tensor row by row.
 */
export interface TensorFile extends AsyncDisposable {
  /** What error messages call it. */
  readonly name: string;
  /** Its tensors in the order in which they lie in the file. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The tensor called `name`, or some of its rows. @throws ArgumentError; FormatError; FileError */
  read(name: string, rows?: RowRange): Promise<HostTensor>;
  /**
   * Fills memory of the caller's, in the type that `HostTensor` keeps the elements in, with those from `first` on, row-major;
   * missing where the file does not hold tensors as they are read. @throws ArgumentError; FormatError; FileError
   */
  readInto?(name: string, first: number, into: TypedArray): Promise<void>;
  close(): Promise<void>;
}

/** A tensor that a writer will ask for when its turn comes. Its type must be known before its numbers are. */
export interface PendingTensor {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  load(): HostTensor | Promise<HostTensor>;
  /** Puts the bytes of what `load` gives into a sink, part by part, where that takes less memory. */
  write?(sink: ByteSink): Promise<void>;
}

/** Tensors in memory, for a writer. */
export function pendingTensors(tensors: Iterable<readonly [string, HostTensor]>): PendingTensor[] {
  return Array.from(tensors, ([name, tensor]) => ({
    name,
    dtype: tensor.dtype,
    shape: tensor.shape,
    load: () => tensor,
  }));
}

/** All tensors of a file, for a writer; each is read when its turn comes. @throws ArgumentError where one cannot be read */
export function pendingFrom(file: TensorFile): PendingTensor[] {
  return Array.from(file.tensors.values(), ({ name, type, dtype, shape }) => {
    if (!dtype) throw new ArgumentError(`${file.name}: pare cannot read "${name}", which is of type ${type}`);
    return { name, dtype, shape, load: () => file.read(name) };
  });
}

/** All tensors of a file in memory. */
export async function readTensors(file: TensorFile): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const name of file.tensors.keys()) tensors.set(name, await file.read(name));
  return tensors;
}

/** The entry called `name`. @throws ArgumentError when there is none */
export function findTensor<T extends TensorInfo>(file: string, tensors: ReadonlyMap<string, T>, name: string): T {
  const found = tensors.get(name);
  if (!found) {
    const some = [...tensors.keys()].slice(0, 3).map((n) => `"${n}"`);
    const listed = some.length === 0 ? "it has none" : `its ${tensors.size} tensors begin with ${some.join(", ")}`;
    throw new ArgumentError(`${file}: no tensor is called "${name}"; ${listed}`);
  }
  return found;
}

/** Number of elements of a part of a tensor, where it begins, and its shape. @throws ArgumentError; ShapeError */
export function selectRows(
  info: TensorInfo,
  rows: RowRange | undefined,
): { first: number; count: number; shape: readonly number[] } {
  const { name, shape } = info;
  if (!rows) return { first: 0, count: elementCount(shape), shape };
  const [start, end] = rows;
  if (shape.length === 0) throw new ShapeError(`"${name}" is a scalar and has no rows`);
  if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end < start || end > shape[0]!) {
    throw new ArgumentError(`rows ${start} to ${end} of "${name}", which has ${shape[0]}`);
  }
  const row = elementCount(shape.slice(1));
  return { first: start * row, count: (end - start) * row, shape: [end - start, ...shape.slice(1)] };
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}

/** The tensor that `pending` promised. @throws ShapeError when what comes is of another type */
export async function loadPending(pending: PendingTensor): Promise<HostTensor> {
  const tensor = await pending.load();
  const same = tensor.dtype === pending.dtype && tensor.shape.join() === pending.shape.join();
  if (!same) {
    throw new ShapeError(
      `"${pending.name}" was announced as ${pending.dtype} [${pending.shape.join(", ")}] but came as ${tensor.dtype} [${tensor.shape.join(", ")}]`,
    );
  }
  return tensor;
}
