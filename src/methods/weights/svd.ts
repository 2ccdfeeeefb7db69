import { cholesky, truncatedSvd } from "../../linalg/index.ts";
import { LowRank, type Weight } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, type HostTensor, matmul, type Tensor, transpose } from "../../tensor/index.ts";
import { denseIn } from "./half.ts";
import { HessianFactors } from "./hessian-factors.ts";
import type { MatrixJob, MatrixMethod } from "./method.ts";

/** How many singular values are kept: so many, or as many as leave this share of the matrix's parameters. */
export type RankChoice = { readonly rank: number } | { readonly ratio: number };

/**
 * The plain truncated singular value decomposition: of all matrices of its rank the nearest to the weights.
 * @throws ArgumentError for a rank or ratio that is none, and when compressing a matrix that has no such rank
 */
export function svd(choice: RankChoice): MatrixMethod {
  checkChoice(choice);
  return {
    name: `svd ${choiceName(choice)}`,
    calibrated: false,
    compress: (job) => truncated(job, choice, async () => job.weight),
  };
}

/**
 * SVD-LLM's truncation-aware whitening (Wang et al. 2024, section 3.1): of all matrices of its rank the one whose outputs
 * are nearest to those of the weights. With `S` the Cholesky factor of `X^T X`, the squared error of the outputs is
 * `||(W - W') S||^2`, so that it is `W S` whose singular values are dropped, and the error is the sum of their squares.
 * @throws ArgumentError as `svd`
 */
export function whitenedSvd(choice: RankChoice): MatrixMethod {
  checkChoice(choice);
  const factors = new HessianFactors(cholesky, 0);
  return {
    name: `whitened svd ${choiceName(choice)}`,
    calibrated: true,
    compress: (job) =>
      truncated(job, choice, async () => product(matmul, job.weight, (await factors.of(job)).cast("f32"), job.device)),
  };
}

/**
 * The weights with their outputs confined to the space of the largest left singular vectors of another matrix, `f32
 * [out, any]`. Where that is `W S = U E V^T`, this is what whitening asks for without `S` being inverted:
 * `U_r E_r V_r^T S^-1 = U_r U_r^T W S S^-1`.
 */
async function truncated(job: MatrixJob, choice: RankChoice, decomposed: () => Promise<HostTensor>): Promise<Weight> {
  const { weight, device, rng } = job;
  const [out, columns] = weight.shape as [number, number];
  const rank = rankOf(job, choice);
  if (rank * (out + columns) > out * columns) {
    job.note(`factors of rank ${rank} have more parameters than the matrix, which was left as it is`);
    return denseIn(job.half, weight);
  }
  const { u } = await truncatedSvd(await decomposed(), rank, rng);
  const down = await product((up, w) => matmul(transpose(up), w), u, weight, device);
  return new LowRank(denseIn(job.half, u), denseIn(job.half, down));
}

async function product(
  of: (a: Tensor, b: Tensor) => Tensor,
  a: HostTensor,
  b: HostTensor,
  device: DeviceOptions,
): Promise<HostTensor> {
  await using program = await compile((x, y) => of(x, y), [a, b] as const, device);
  return await program(a, b);
}

function checkChoice(choice: RankChoice): void {
  if ("rank" in choice) {
    if (!(Number.isSafeInteger(choice.rank) && choice.rank >= 1))
      throw new ArgumentError(`a rank is a whole number from 1, not ${choice.rank}`);
  } else if (!(choice.ratio > 0 && choice.ratio <= 1))
    throw new ArgumentError(`the share of parameters to keep is above 0 and at most 1, not ${choice.ratio}`);
}

function choiceName(choice: RankChoice): string {
  return "rank" in choice ? `rank ${choice.rank}` : `ratio ${choice.ratio}`;
}

function rankOf({ name, weight }: MatrixJob, choice: RankChoice): number {
  const [out, columns] = weight.shape as [number, number];
  if ("rank" in choice) {
    if (choice.rank <= Math.min(out, columns)) return choice.rank;
    throw new ArgumentError(`"${name}" [${out}, ${columns}] has no rank of ${choice.rank}`);
  }
  const rank = Math.floor((choice.ratio * out * columns) / (out + columns));
  if (rank > 0) return rank;
  throw new ArgumentError(
    `a share of ${choice.ratio} of "${name}" [${out}, ${columns}] has too few parameters for a rank of 1; keep more`,
  );
}
