import { type BlockGrid, blockGrid, type RoundOptions } from "../../nn/index.ts";
import { compile } from "../../runtime/index.ts";
import { HostTensor, matmul, mul, sum } from "../../tensor/index.ts";
import { inputsOf, type MatrixJob, type MatrixMethod } from "./method.ts";
import { type BlockOptions, gridName, nearest } from "./nearest.ts";

/** Shares of a block's largest magnitude that are tried: 1, 0.95, ..., 0.55. */
const SHARES = Array.from({ length: 10 }, (_, i) => 1 - i / 20);

/**
 * Rounding to nearest with the weights clipped, as AWQ does after scaling (Lin et al. 2024, section 5.1): each block to
 * the share of its largest magnitude with which its part of the output, `X_b W_b^T`, is off least on the inputs. The
 * projections to queries and keys are not clipped, because their errors multiply each other.
 */
export function clipped(options: BlockOptions): MatrixMethod {
  const plain = nearest(options);
  return {
    name: `clipped ${gridName(options)}`,
    calibrated: true,
    async compress(job) {
      if (/\.[qk]_proj\.weight$/.test(job.name)) return plain.compress(job);
      const grid = blockGrid(await leastOff(job, options), options);
      return grid.pack(grid.encode(job.weight.data as Float32Array), options);
    },
  };
}

/** The matrix with each block clipped to where it is off least. */
async function leastOff(job: MatrixJob, options: RoundOptions): Promise<HostTensor> {
  const { weight, device } = job;
  const plain = blockGrid(weight, options);
  const gram = diagonalBlocks(inputsOf(job).gram, plain);
  const like = HostTensor.zeros("f32", [plain.blocks, plain.rows, plain.block]);
  await using squares = await compile(
    (off, g) => sum(mul(matmul(off, g), off), { axes: [-1] }),
    [like, gram] as const,
    device,
  );
  const least = new Float32Array(plain.blocks * plain.rows).fill(Infinity);
  const best = (weight.data as Float32Array).slice();
  for (const share of SHARES) {
    const cut = clippedTo(weight, plain, share);
    const errors = await squares(roundingErrors(weight, blockGrid(cut, options)), gram);
    for (let b = 0, i = 0; b < plain.blocks; b++)
      for (let r = 0; r < plain.rows; r++, i++) {
        if (!(errors.at(i) < least[i]!)) continue;
        least[i] = errors.at(i);
        const [start, end] = blockRange(plain, r, b);
        best.set((cut.data as Float32Array).subarray(start, end), start);
      }
  }
  return new HostTensor("f32", weight.shape, best);
}

/** Where block `b` of row `r` lies among the entries of the matrix. */
function blockRange({ block, columns }: BlockGrid, r: number, b: number): [start: number, end: number] {
  const start = r * columns + b * block;
  return [start, Math.min(start + block, (r + 1) * columns)];
}

/** Of `X^T X [in, in]` what blocks have with themselves, `[blocks, block, block]`; the last is filled up with zeros. */
function diagonalBlocks(gram: HostTensor, { blocks, block, columns }: BlockGrid): HostTensor {
  const result = HostTensor.zeros("f32", [blocks, block, block]);
  for (let i = 0; i < columns; i++) {
    const b = Math.floor(i / block);
    const row = gram.data.subarray(i * columns + b * block, i * columns + Math.min((b + 1) * block, columns));
    (result.data as Float32Array).set(row as Float32Array, i * block);
  }
  return result;
}

function clippedTo(weight: HostTensor, grid: BlockGrid, share: number): HostTensor {
  const values = (weight.data as Float32Array).slice();
  for (let r = 0; r < grid.rows; r++)
    for (let b = 0; b < grid.blocks; b++) {
      const [start, end] = blockRange(grid, r, b);
      let top = 0;
      for (let i = start; i < end; i++) top = Math.max(top, Math.abs(values[i]!));
      for (let i = start; i < end; i++) values[i] = Math.max(-share * top, Math.min(share * top, values[i]!));
    }
  return new HostTensor("f32", weight.shape, values);
}

/** How far entries are off on a grid, `[blocks, rows, block]`. */
function roundingErrors({ data }: HostTensor, grid: BlockGrid): HostTensor {
  const { rows, blocks, block } = grid;
  const errors = new Float32Array(blocks * rows * block);
  for (let r = 0; r < rows; r++)
    for (let b = 0; b < blocks; b++) {
      const [start, end] = blockRange(grid, r, b);
      const index = r * blocks + b;
      for (let i = start, o = (b * rows + r) * block; i < end; i++, o++) {
        const value = data[i] as number;
        errors[o] = grid.value(grid.code(value, index), index) - value;
      }
    }
  return new HostTensor("f32", [blocks, rows, block], errors);
}
