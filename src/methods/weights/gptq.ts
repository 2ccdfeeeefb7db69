import { choleskyOfInverse, LinalgError } from "../../linalg/index.ts";
import { BlockGrid, blockGrid } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, HostTensor, matmul, spec, sub, transpose } from "../../tensor/index.ts";
import { inputsOf, type MatrixMethod } from "./method.ts";
import { type BlockOptions, gridName } from "./nearest.ts";

export interface GptqOptions extends BlockOptions {
  /**
   * Rounds columns in order of falling input energy, on grids fitted to the original weights (the reference's `desc_act`
   * with `static_groups`). Default false: from left to right, grids fitted to the weights as they are by then.
   */
  readonly activationOrder?: boolean;
  /** Added to the Hessian's diagonal, as a share of its mean. Default 0.01. */
  readonly damping?: number;
}

/** Columns between two products over all earlier ones. */
const BATCH = 128;

/** Below this many multiplications a product is not worth a session. */
const SMALL = 2 ** 22;

/** Damping is raised at most to this many times the diagonal's mean. */
const MOST_DAMPING = 10;

/**
 * GPTQ (Frantar et al. 2023, Algorithm 1): columns are rounded one after the other, and what rounding one loses is made up
 * for by the columns not yet rounded, as the inverse of the Hessian `X^T X` says. With `U` the upper Cholesky factor of
 * that inverse, rounding column `i` off by `e` moves each column `j` behind it by `-e U_ij / U_ii`.
 *
 * Within a batch of columns that is done at once; what earlier batches ask of a batch is one matrix product before it.
 */
export function gptq(options: GptqOptions): MatrixMethod {
  const { activationOrder = false, damping = 0.01 } = options;
  if (!(damping >= 0 && damping <= MOST_DAMPING))
    throw new ArgumentError(`damping must be from 0 to ${MOST_DAMPING}, not ${damping}`);
  // Matrices with the same input share its factor.
  const factors = new WeakMap<HostTensor, Promise<Factor>>();
  return {
    name: `gptq ${gridName(options)}${activationOrder ? ", activation order" : ""}, damping ${damping}`,
    calibrated: true,
    async compress(job) {
      const { gram } = inputsOf(job);
      const order = activationOrder ? fallingDiagonal(gram) : Int32Array.from({ length: gram.shape[0]! }, (_, i) => i);
      let factor = factors.get(gram);
      if (!factor) {
        factor = factorOf(gram, order, damping);
        factors.set(gram, factor);
      }
      const { upper, damped } = await factor;
      if (damped !== damping) job.note(`the Hessian is singular: its damping was raised from ${damping} to ${damped}`);
      const grid = activationOrder
        ? blockGrid(job.weight, options)
        : new BlockGrid(job.weight.shape as [number, number], options);
      const rounding = new Rounding(grid, job.weight, order, upper, !activationOrder);
      return grid.pack(await rounding.codes(job.device), options);
    },
  };
}

interface Factor {
  /** `f64 [in, in]`: the upper Cholesky factor of the inverse of the damped Hessian, columns in their order. */
  readonly upper: Float64Array;
  readonly damped: number;
}

/** Damping is raised tenfold until the Hessian can be inverted. */
async function factorOf(gram: HostTensor, order: Int32Array, damping: number): Promise<Factor> {
  const n = order.length;
  const entry = (i: number, j: number): number => gram.data[order[i]! * n + order[j]!] as number;
  const ordered = new Float64Array(n * n);
  // Both halves, because rounding sums up differently in them.
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) ordered[i * n + j] = (entry(i, j) + entry(j, i)) / 2;
  let mean = 0;
  for (let i = 0; i < n; i++) mean += ordered[i * n + i]! / n;
  // Without any input energy every rounding is as good, and the nearest the obvious one.
  if (mean === 0) mean = 1;
  for (let damped = damping; ; damped = Math.max(10 * damped, 1e-4)) {
    const hessian = ordered.slice();
    for (let i = 0; i < n; i++) hessian[i * n + i]! += damped * mean;
    try {
      const upper = await choleskyOfInverse(new HostTensor("f64", [n, n], hessian));
      return { upper: upper.data as Float64Array, damped };
    } catch (error) {
      if (!(error instanceof LinalgError) || damped >= MOST_DAMPING) throw error;
    }
  }
}

/** Columns by falling diagonal, equal ones from left to right. */
function fallingDiagonal({ shape, data }: HostTensor): Int32Array {
  const n = shape[0]!;
  const energy = (i: number): number => data[i * n + i] as number;
  return Int32Array.from({ length: n }, (_, i) => i).sort((a, b) => energy(b) - energy(a) || a - b);
}

class Rounding {
  readonly #grid: BlockGrid;
  /** `[out, in]`: where a grid is fitted, the weights as they are by then. */
  readonly #weight: Float32Array;
  readonly #order: Int32Array;
  readonly #upper: Float64Array;
  /** Whether a block's grid is fitted when its first column comes. */
  readonly #fits: boolean;
  /** `[in, out]`: each column's rounding error over its `U_ii`. */
  readonly #errors: Float32Array;
  readonly #codes: Uint8Array;

  constructor(grid: BlockGrid, weight: HostTensor, order: Int32Array, upper: Float64Array, fits: boolean) {
    this.#grid = grid;
    this.#weight = (weight.data as Float32Array).slice();
    this.#order = order;
    this.#upper = upper;
    this.#fits = fits;
    this.#errors = new Float32Array(weight.size);
    this.#codes = new Uint8Array(weight.size);
  }

  /** The codes of all entries, `[out, in]`. */
  async codes(device: DeviceOptions): Promise<Uint8Array> {
    const { rows, columns, block, blocks } = this.#grid;
    // A block that is fitted on the way must not reach into columns that are not up to date; the first always is.
    const size = !this.#fits || blocks === 1 ? BATCH : block > BATCH ? block : BATCH - (BATCH % block);
    await using products = new Products(rows, columns, device);
    for (let start = 0; start < columns; start += size) {
      const end = Math.min(start + size, columns);
      const batch = await products.minus(this.#gathered(start, end), this.#errors, this.#upper, start, end);
      for (let r = 0; r < rows; r++)
        this.#roundRow(r, start, batch.subarray(r * (end - start), (r + 1) * (end - start)));
    }
    return this.#codes;
  }

  /** The columns from `start` to below `end` of the order, `[out, end - start]`. */
  #gathered(start: number, end: number): Float32Array {
    const { rows, columns } = this.#grid;
    const batch = new Float32Array(rows * (end - start));
    for (let r = 0, o = 0; r < rows; r++)
      for (let i = start; i < end; i++, o++) batch[o] = this.#weight[r * columns + this.#order[i]!]!;
    return batch;
  }

  /** Rounds the entries of row `r` in a batch that begins at `start` of the order. */
  #roundRow(r: number, start: number, row: Float32Array): void {
    const { rows, columns, block, blocks } = this.#grid;
    const [grid, upper] = [this.#grid, this.#upper];
    for (let j = 0; j < row.length; j++) {
      const [i, column] = [start + j, this.#order[start + j]!];
      const index = r * blocks + Math.floor(column / block);
      if (this.#fits && column % block === 0) {
        if (blocks > 1) this.#weight.set(row.subarray(j, j + block), r * columns + column);
        grid.fit(this.#weight, r, column / block);
      }
      const code = grid.code(row[j]!, index);
      const error = (row[j]! - grid.value(code, index)) / upper[i * columns + i]!;
      this.#codes[r * columns + column] = code;
      this.#errors[i * rows + r] = error;
      for (let k = j + 1, u = i * columns + i + 1; k < row.length; k++, u++) row[k]! -= error * upper[u]!;
    }
  }
}

/** What earlier columns' errors take off a batch: on onnxruntime where it is much. */
class Products {
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
    end: number,
  ): Promise<Float32Array> {
    if (start === 0) return batch;
    const [rows, columns, width] = [this.#rows, this.#columns, end - start];
    const steer = new Float32Array(start * width);
    for (let i = 0; i < start; i++) steer.set(upper.subarray(i * columns + start, i * columns + end), i * width);
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
