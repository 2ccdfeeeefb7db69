import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { HostTensor, matmul, spec, sub, transpose } from "../../tensor/index.ts";

/** Columns between two products over all earlier ones. */
export const BATCH = 128;

/** Columns of a batch of whole blocks of neighbours. */
export function batchOfBlocks(block: number): number {
  return block > BATCH ? block : BATCH - (BATCH % block);
}

/** Below this many multiplications a product is not worth a session. */
const SMALL = 2 ** 22;

/** How a method decides what becomes of the columns. */
export interface ColumnRule {
  /**
   * A batch of columns is about to be settled.
   * @param batch `[out, width]`: its entries, up to date with all batches before it
   * @param start the position of its first column in the order
   */
  begin?(batch: Float32Array, start: number, width: number): void;
  /**
   * The value that an entry is settled at.
   * @param r its matrix row
   * @param i its position in the order
   * @param row row `r` of the batch, up to date with all columns before from entry `j` on
   * @param j the entry's place in `row`
   */
  settle(r: number, i: number, row: Float32Array, j: number): number;
}

export interface ColumnUpdates {
  /** `[out, in]`; each entry is overwritten when it is settled. */
  readonly values: Float32Array;
  /** The columns in the order in which they are settled, `[in]`. */
  readonly order: Int32Array;
  /** `f64 [in, in]`: the upper Cholesky factor `U` of the inverse Hessian, columns in their order. */
  readonly upper: HostTensor;
  /** Columns in a batch. */
  readonly batch: number;
  /** Where large products run. */
  readonly device: DeviceOptions;
}

/**
 * Settles a matrix column by column, each making up for the errors of those before it (Frantar et al. 2023, Algorithm 1;
 * Hassibi and Stork 1993): settling column `i` off by `e` moves each column `j` behind it by `-e U_ij / U_ii`.
 *
 * Within a batch of columns that is done at once; what earlier batches ask of a batch is one matrix product before it.
 */
export async function settleColumns(rule: ColumnRule, updates: ColumnUpdates): Promise<void> {
  const { values, order, batch: size, device } = updates;
  const columns = order.length;
  const rows = values.length / columns;
  const upper = updates.upper.data as Float64Array;
  // Each column's error over its `U_ii`, `[in, out]`.
  const errors = new Float32Array(values.length);
  await using products = new LazyProducts(rows, columns, device);
  for (let start = 0; start < columns; start += size) {
    const width = Math.min(size, columns - start);
    const batch = await products.minus(gathered(updates, start, width), errors, upper, start, width);
    rule.begin?.(batch, start, width);
    for (let r = 0; r < rows; r++) {
      const row = batch.subarray(r * width, (r + 1) * width);
      for (let j = 0, i = start; j < width; j++, i++) {
        const value = rule.settle(r, i, row, j);
        const error = (row[j]! - value) / upper[i * columns + i]!;
        values[r * columns + order[i]!] = value;
        errors[i * rows + r] = error;
        if (error !== 0) for (let k = j + 1, u = i * columns + i + 1; k < width; k++, u++) row[k]! -= error * upper[u]!;
      }
    }
  }
}

/** `width` columns of the order from `start` on, `[out, width]`. */
function gathered({ values, order }: ColumnUpdates, start: number, width: number): Float32Array {
  const rows = values.length / order.length;
  const batch = new Float32Array(rows * width);
  for (let r = 0, o = 0; r < rows; r++)
    for (let i = start; i < start + width; i++, o++) batch[o] = values[r * order.length + order[i]!]!;
  return batch;
}

/** What earlier columns' errors take off a batch: on onnxruntime where it is much. */
class LazyProducts {
  readonly #rows: number;
  readonly #columns: number;
  readonly #device: DeviceOptions;
  #program: ReturnType<typeof compileMinus> | undefined;

  constructor(rows: number, columns: number, device: DeviceOptions) {
    this.#rows = rows;
    this.#columns = columns;
    this.#device = device;
  }

  /** `batch [out, width]` less the first `start` of `errors [in, out]`, transposed, times `upper` there. */
  async minus(
    batch: Float32Array,
    errors: Float32Array,
    upper: Float64Array,
    start: number,
    width: number,
  ): Promise<Float32Array> {
    if (start === 0) return batch;
    const [rows, columns] = [this.#rows, this.#columns];
    const steer = new Float32Array(start * width);
    for (let i = 0; i < start; i++) {
      const from = i * columns + start;
      steer.set(upper.subarray(from, from + width), i * width);
    }
    const before = errors.subarray(0, start * rows);
    if (rows * start * width < SMALL) {
      for (let i = 0; i < start; i++)
        for (let r = 0; r < rows; r++) {
          const error = before[i * rows + r]!;
          for (let j = 0; j < width; j++) batch[r * width + j]! -= error * steer[i * width + j]!;
        }
      return batch;
    }
    this.#program ??= compileMinus(rows, this.#device);
    const result = await (await this.#program)(
      new HostTensor("f32", [rows, width], batch),
      new HostTensor("f32", [start, rows], before),
      new HostTensor("f32", [start, width], steer),
    );
    return result.data as Float32Array;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await (await this.#program)?.dispose();
  }
}

function compileMinus(rows: number, device: DeviceOptions) {
  return compile(
    (batch, errors, steer) => sub(batch, matmul(transpose(errors), steer)),
    [spec("f32", [rows, "width"]), spec("f32", ["start", rows]), spec("f32", ["start", "width"])] as const,
    device,
  );
}
