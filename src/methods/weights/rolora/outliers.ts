import { decode, isLayerMatrix, matrixInput } from "../../../models/index.ts";
import { capture, hadamard, TransformedWeight } from "../../../nn/index.ts";
import { compile, type DeviceOptions } from "../../../runtime/index.ts";
import { abs, div, type HostTensor, max, mean, sqrt, square, sub, type Tensor } from "../../../tensor/index.ts";
import type { MaybeRotated } from "./rotate.ts";

/** How far the inputs of a matrix reach beyond most of them. */
export interface InputOutliers {
  /** Name of the matrix. */
  readonly layer: string;
  /** `mean((x - mean x)^4) / var(x)^2` of a token's input, which has a step of its own; their mean. 3 for normal ones. */
  readonly kurtosis: number;
  /** Largest magnitude in roots of the token's mean square, of the token that has the largest. */
  readonly maxOverRms: number;
}

/** Outliers among the inputs of each matrix of the layers, turned where the matrix turns them, on `ids i64 [batch, seq]`. */
export async function outlierReport(
  { config, weights }: MaybeRotated,
  ids: HostTensor,
  device: DeviceOptions = {},
): Promise<InputOutliers[]> {
  const names = Object.keys(weights).filter(isLayerMatrix);
  const points = new Set(names.map(matrixInput));
  await using program = await compile(
    (tokens: Tensor) => {
      const { captured } = capture(
        (name) => points.has(name),
        () => decode(config, weights, tokens),
      );
      return names.map((name) => {
        const [x, weight] = [captured[matrixInput(name)]!, weights[name]];
        const turned = weight instanceof TransformedWeight && weight.hadamard > 0 ? hadamard(x, weight.hadamard) : x;
        const token = { axes: [-1], keepDims: true };
        const squares = square(sub(turned, mean(turned, token)));
        return {
          kurtosis: mean(div(mean(square(squares), token), square(mean(squares, token)))),
          maxOverRms: max(div(max(abs(turned), token), sqrt(mean(square(turned), token)))),
        };
      });
    },
    [ids],
    device,
  );
  return (await program(ids)).map(({ kurtosis, maxOverRms }, i) => ({
    layer: names[i]!,
    kurtosis: kurtosis.item(),
    maxOverRms: maxOverRms.item(),
  }));
}
