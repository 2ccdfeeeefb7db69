import { withProducts } from "../../../linalg/products.ts";
import { decompose } from "../../../linalg/svd.ts";
import { isLayerMatrix, type Weights } from "../../../models/index.ts";
import { asWeight, Dense, LowRank, SumWeight, type Weight } from "../../../nn/index.ts";
import { ArgumentError, HostTensor, isHostTensor, type Leaf } from "../../../tensor/index.ts";
import { exact } from "./spectrum.ts";

export interface SpectralAdapterOptions {
  readonly rank: number;
  /**
   * Which singular directions are trained: the largest (PiSSA; Meng et al. 2024, arXiv:2404.02948) or the smallest
   * (MiLoRA; Wang et al. 2024, arXiv:2406.09044).
   */
  readonly part: "principal" | "minor";
  /** Names of the matrices that get an adapter. Default: those of the layers. */
  readonly targets?: (name: string) => boolean;
}

/**
 * A model's weights with a part of the spectrum of each target in an adapter, `A = sqrt(S) V^T` and `B = U sqrt(S)`, and
 * the rest beside it, so that the sum is the matrix that it was, to rounding. The adapters lie where `withLora` puts its
 * own: train them with `trainable: isLora`, put them together again with `mergeLora`.
 * @throws ArgumentError for a rank outside of a target's, a target that is not dense, or where none is a target
 */
export async function withSpectralAdapters(
  weights: Weights,
  { rank, part, targets = isLayerMatrix }: SpectralAdapterOptions,
): Promise<Record<string, Weight | Leaf>> {
  const result: Record<string, Weight | Leaf> = { ...weights };
  const chosen = Object.keys(weights).filter((name) => weights[name]!.shape.length === 2 && targets(name));
  if (chosen.length === 0) throw new ArgumentError("no matrix of the model is a target of the adapter");
  await withProducts(async (p) => {
    for (const name of chosen) {
      const weight = asWeight(weights[name]!);
      if (!(weight instanceof Dense && isHostTensor(weight.values)))
        throw new ArgumentError(`"${name}" is represented as ${weight.kind}; a spectrum is taken of dense weights`);
      const matrix = exact(name, weight.values);
      const { u, s, v } = await decompose(p, matrix);
      if (!Number.isInteger(rank) || rank < 1 || rank > s.length)
        throw new ArgumentError(
          `the rank of an adapter of "${name}" is a whole number from 1 to ${s.length}, not ${rank}`,
        );
      const first = part === "principal" ? 0 : s.length - rank;
      const [up, down] = [HostTensor.zeros("f32", [matrix.rows, rank]), HostTensor.zeros("f32", [rank, matrix.cols])];
      const rest = Float32Array.from(matrix.data);
      for (let r = 0; r < rank; r++) {
        const root = Math.sqrt(s[first + r]!);
        for (let i = 0; i < matrix.rows; i++) up.set(i * rank + r, u.data[i * u.cols + first + r]! * root);
        for (let j = 0; j < matrix.cols; j++) down.set(r * matrix.cols + j, v.data[j * v.cols + first + r]! * root);
      }
      // The rest is taken from the factors as they are stored, so that their rounding is not added to the matrix.
      for (let i = 0; i < matrix.rows; i++)
        for (let j = 0; j < matrix.cols; j++) {
          let sum = 0;
          for (let r = 0; r < rank; r++) sum += up.at(i * rank + r) * down.at(r * matrix.cols + j);
          rest[i * matrix.cols + j] = matrix.data[i * matrix.cols + j]! - sum;
        }
      result[name] = new SumWeight([
        { weight: new Dense(new HostTensor("f32", [matrix.rows, matrix.cols], rest)) },
        { weight: new LowRank(new Dense(up), new Dense(down)) },
      ]);
    }
  });
  return result;
}
