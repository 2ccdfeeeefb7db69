import { ArgumentError, fromHalf, HostTensor, ShapeError, toHalf } from "../../tensor/index.ts";
import { type BlockFormat, blockFormats, codeBytes, packCodes } from "./block-format.ts";
import { BlockWeight, checkBlock, hasZeroPoints } from "./blocks.ts";

export interface RoundOptions {
  readonly format: BlockFormat;
  /** Neighbours in a row that share a scale: a multiple of 16, or `channel` for the whole row. */
  readonly block: number | "channel";
  /** Zero in the middle of the range; otherwise each block has a zero point. Default true. */
  readonly symmetric?: boolean;
  /**
   * Looks for the scale with the least squared error, or another, instead of the one that covers the extremes. Default
   * false.
   */
  readonly search?: boolean | ScaleSearch;
  /** How scales are stored. Default `f32`. */
  readonly scales?: "f32" | "f16";
}

/** How a scale is looked for. */
export interface ScaleSearch {
  /** Errors are summed to this power. */
  readonly power: number;
  /** Shares of the scale that covers the extremes which are tried, from 1 down by `by`, `count` of them. */
  readonly by: number;
  readonly count: number;
}

const leastSquares: ScaleSearch = { power: 2, by: 0.02, count: 36 };

/**
 * The grid that a matrix `[rows, columns]` is rounded to: scale and zero point of each block. Methods that choose codes
 * one by one (GPTQ) fit a block when they reach it, ask for `code` and `value` of single numbers, and `pack` at the end.
 *
 * - Symmetric: the scale is `2 max|w| / (levels - 1)`, or half of that where only odd numbers are levels, so that no entry is off by more than half a step.
 * - Whole numbers with a zero point: from the least to the greatest entry, zero included, which stays exact.
 * - `binary`: the mean magnitude, and `ternary`: the scale and threshold that are best in squared error (both optimal).
 *
 * Where all entries of a block are equal, they are exact (as far as the type of the scales goes).
 */
export class BlockGrid {
  readonly rows: number;
  readonly columns: number;
  readonly format: BlockFormat;
  readonly block: number;
  /** Blocks of a row; block `b` of row `r` has index `r * blocks + b`. */
  readonly blocks: number;
  readonly scales: Float32Array;
  /** One for each block; undefined where symmetric. */
  readonly zeroPoints: Uint8Array | undefined;
  readonly #search: ScaleSearch | null;
  readonly #scaleType: "f32" | "f16";

  /** @throws ArgumentError for options that do not go together. */
  constructor([rows, columns]: readonly [number, number], options: RoundOptions) {
    const { format, block, symmetric = true, search = false, scales = "f32" } = options;
    this.block = block === "channel" ? Math.max(1, Math.ceil(columns / 16)) * 16 : block;
    checkBlock(format, this.block);
    if (!symmetric && !hasZeroPoints(format))
      throw new ArgumentError(`${format} blocks are symmetric; leave out "symmetric: false"`);
    this.rows = rows;
    this.columns = columns;
    this.format = format;
    this.blocks = Math.ceil(columns / this.block);
    this.scales = new Float32Array(rows * this.blocks);
    if (!symmetric) this.zeroPoints = new Uint8Array(rows * this.blocks);
    this.#search = search === true ? leastSquares : search || null;
    this.#scaleType = scales;
  }

  /**
   * Chooses scale and zero point of block `b` of row `r` for the entries of `matrix` (`[rows, columns]`, row-major).
   * @throws ArgumentError for NaN, infinities, and scales beyond their type.
   */
  fit(matrix: Float32Array, r: number, b: number): void {
    const start = r * this.columns + b * this.block;
    const end = Math.min(start + this.block, (r + 1) * this.columns);
    let [low, high] = [Infinity, -Infinity];
    for (let i = start; i < end; i++) {
      const value = matrix[i]!;
      if (!Number.isFinite(value))
        throw new ArgumentError(
          `the matrix holds ${value} in row ${r}, column ${i - r * this.columns}; only finite numbers can be rounded`,
        );
      if (value < low) low = value;
      if (value > high) high = value;
    }
    const index = r * this.blocks + b;
    if (low === high) this.#place(index, Math.abs(low), low < 0 ? 1 : 0);
    else if (this.format === "binary") this.#place(index, meanMagnitude(matrix, start, end), 0);
    else if (this.format === "ternary") this.#place(index, ternaryScale(matrix, start, end), 0);
    else if (this.#search) this.#searchFor(this.#search, matrix, start, end, low, high, index);
    else this.#cover(low, high, index);
  }

  /** The scale and zero point that just cover `low` to `high`. */
  #cover(low: number, high: number, index: number): void {
    const { levels, step } = blockFormats[this.format];
    const steps = levels - 1;
    if (!this.zeroPoints) {
      this.#place(index, (2 * Math.max(-low, high)) / (step * steps), 0);
      return;
    }
    const [bottom, top] = [Math.min(low, 0), Math.max(high, 0)];
    const scale = (top - bottom) / steps;
    this.#place(index, scale, scale > 0 ? Math.round(-bottom / scale) : 0);
  }

  #searchFor(
    { power, by, count }: ScaleSearch,
    matrix: Float32Array,
    start: number,
    end: number,
    low: number,
    high: number,
    index: number,
  ): void {
    let [best, least] = [1, Infinity];
    for (let k = 0; k < count; k++) {
      const shrink = 1 - by * k;
      this.#cover(low * shrink, high * shrink, index);
      let error = 0;
      for (let i = start; i < end && error < least; i++) {
        const off = matrix[i]! - this.value(this.code(matrix[i]!, index), index);
        error += power === 2 ? off * off : Math.abs(off) ** power;
      }
      if (error < least) [best, least] = [shrink, error];
    }
    this.#cover(low * best, high * best, index);
  }

  #place(index: number, scale: number, zeroPoint: number): void {
    const stored = this.#scaleType === "f16" ? fromHalf(toHalf(scale)) : Math.fround(scale);
    if (!Number.isFinite(stored))
      throw new ArgumentError(
        `a scale of ${scale} is beyond ${this.#scaleType}${this.#scaleType === "f16" ? "; store scales as f32" : ""}`,
      );
    this.scales[index] = stored;
    if (this.zeroPoints) this.zeroPoints[index] = zeroPoint;
  }

  /** The code nearest to `value` in the block with that index. */
  code(value: number, index: number): number {
    const { levels, step, zero } = blockFormats[this.format];
    const scale = this.scales[index]!;
    const middle = this.zeroPoints ? this.zeroPoints[index]! : zero;
    const position = ((scale > 0 ? value / scale : 0) + middle) / step;
    return Math.max(0, Math.min(levels - 1, Math.floor(position + 0.5)));
  }

  /** What a code stands for in the block with that index: exactly what the weight will compute with. */
  value(code: number, index: number): number {
    const { step, zero } = blockFormats[this.format];
    return Math.fround((code * step - (this.zeroPoints ? this.zeroPoints[index]! : zero)) * this.scales[index]!);
  }

  /** The nearest codes of a matrix, one a byte, `[rows, columns]`. */
  encode(matrix: Float32Array): Uint8Array {
    const codes = new Uint8Array(this.rows * this.columns);
    for (let i = 0, r = 0; r < this.rows; r++)
      for (let c = 0; c < this.columns; c++, i++)
        codes[i] = this.code(matrix[i]!, r * this.blocks + Math.floor(c / this.block));
    return codes;
  }

  /** The weight with these codes, one a byte, `[rows, columns]`. */
  pack(codes: Uint8Array, { exact = false } = {}): BlockWeight {
    const { rows, columns, format, block, blocks } = this;
    if (codes.length !== rows * columns)
      throw new ShapeError(`a matrix [${rows}, ${columns}] has ${rows * columns} codes, not ${codes.length}`);
    const width = blocks * block;
    const padded = new Uint8Array(rows * width);
    for (let r = 0; r < rows; r++) padded.set(codes.subarray(r * columns, (r + 1) * columns), r * width);
    const zeroPoints =
      this.zeroPoints &&
      new HostTensor("u8", [rows, codeBytes(format, blocks)], packCodes(format, this.zeroPoints, blocks));
    return new BlockWeight(
      {
        codes: new HostTensor("u8", [rows, blocks, codeBytes(format, block)], packCodes(format, padded, block)),
        scales: new HostTensor("f32", [rows, blocks], this.scales).cast(this.#scaleType),
        zeroPoints,
      },
      { format, block, columns, exact },
    );
  }
}

function meanMagnitude(matrix: Float32Array, start: number, end: number): number {
  let total = 0;
  for (let i = start; i < end; i++) total += Math.abs(matrix[i]!);
  return total / (end - start);
}

/**
 * Keeping the `k` largest magnitudes at their mean `m` takes `k m^2` off the squared error, so the best `k` has the
 * greatest such gain. Its mean is the scale: an entry is then nearer to it than to zero exactly where it is kept.
 */
function ternaryScale(matrix: Float32Array, start: number, end: number): number {
  const magnitudes = matrix.slice(start, end).map(Math.abs).sort().reverse();
  let [total, best, scale] = [0, 0, 0];
  magnitudes.forEach((magnitude, i) => {
    total += magnitude;
    const gain = (total * total) / (i + 1);
    if (gain > best) [best, scale] = [gain, total / (i + 1)];
  });
  return scale;
}

/** The grid that fits a matrix `[rows, columns]`. @throws ArgumentError for NaN and infinities, naming the place. */
export function blockGrid(matrix: HostTensor, options: RoundOptions): BlockGrid {
  const grid = new BlockGrid(shapeOf(matrix), options);
  const values = matrix.cast("f32").data as Float32Array;
  for (let r = 0; r < grid.rows; r++) for (let b = 0; b < grid.blocks; b++) grid.fit(values, r, b);
  return grid;
}

/** Rounds a matrix `[out, in]` to the nearest values of its block grid. */
export function roundToBlocks(matrix: HostTensor, options: RoundOptions & { readonly exact?: boolean }): BlockWeight {
  const grid = blockGrid(matrix, options);
  return grid.pack(grid.encode(matrix.cast("f32").data as Float32Array), options);
}

function shapeOf({ shape }: HostTensor): readonly [number, number] {
  if (shape.length !== 2) throw new ShapeError(`a weight matrix has two dimensions, not [${shape.join(", ")}]`);
  return shape as readonly [number, number];
}
