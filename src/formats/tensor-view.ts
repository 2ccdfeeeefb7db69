import type { TypedArray } from "../tensor/dtype.ts";
import { HostTensor } from "../tensor/host.ts";
import {
  elementCount,
  findTensor,
  type RowRange,
  selectRows,
  type TensorFile,
  type TensorInfo,
} from "./tensor-file.ts";

/** A tensor of another file under a name of its own. */
export interface ViewedTensor {
  /** What the file calls it. */
  readonly from: string;
  /** Applied to the whole tensor; its element type stays. */
  readonly convert?: (tensor: HostTensor) => HostTensor;
  /** Shape of what `convert` gives, where it is another. */
  readonly shape?: readonly number[];
}

/** A tensor file seen with other names, and some tensors converted as they are read. Closing it closes the file. */
export class TensorView implements TensorFile {
  readonly name: string;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  readonly #file: TensorFile;
  readonly #views: ReadonlyMap<string, ViewedTensor>;

  /** @throws ArgumentError when the file lacks a tensor that a view is of */
  constructor(file: TensorFile, views: ReadonlyMap<string, ViewedTensor>) {
    this.name = file.name;
    this.tensors = new Map(
      Array.from(views, ([name, { from, shape }]) => {
        const info = findTensor(file.name, file.tensors, from);
        const share = shape ? elementCount(shape) / elementCount(info.shape) : 1;
        return [name, { ...info, name, shape: shape ?? info.shape, bytes: info.bytes * share }];
      }),
    );
    this.#file = file;
    this.#views = views;
  }

  async read(name: string, rows?: RowRange): Promise<HostTensor> {
    const info = findTensor(this.name, this.tensors, name);
    const { from, convert } = this.#views.get(name)!;
    if (!convert) return await this.#file.read(from, rows);
    const { first, count, shape } = selectRows(info, rows);
    const { dtype, data } = convert(await this.#file.read(from));
    return new HostTensor(dtype, shape, data.subarray(first, first + count) as TypedArray);
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
