import { type DecoderConfig, decode, isLayerMatrix, matrixInput, type Weights } from "../../models/index.ts";
import { capture, fakeQuantized, lsqInputRounding, lsqRounding, type Weight } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { type HostTensor, type Leaf, mean, sqrt, square, type Tensor } from "../../tensor/index.ts";

/**
 * A decoder's weights with all matrices of its layers, and the inputs of these, in training for few bits by learned step
 * size quantization (Esser et al. 2020): one learned step for each matrix and one for its inputs.
 * @param ids `i64 [batch, seq]`: text on which the inputs' first steps are measured
 * @throws ArgumentError for bits without a Gaussian scale
 */
export async function lsqWeights(
  { config, weights }: { readonly config: DecoderConfig; readonly weights: Weights },
  { weightBits, inputBits }: { readonly weightBits: number; readonly inputBits: number },
  ids: HostTensor,
  device: DeviceOptions = {},
): Promise<Record<string, Weight | Leaf>> {
  const names = Object.keys(weights).filter(isLayerMatrix);
  const points = new Set(names.map(matrixInput));
  await using program = await compile(
    (tokens: Tensor) => {
      const { captured } = capture(
        (name) => points.has(name),
        () => decode(config, weights, tokens),
      );
      return Object.fromEntries(Object.entries(captured).map(([point, x]) => [point, sqrt(mean(square(x)))]));
    },
    [ids],
    device,
  );
  const sizes = await program(ids);
  const weight = lsqRounding({ bits: weightBits });
  return fakeQuantized(
    weights,
    (name) =>
      names.includes(name)
        ? { weight, input: lsqInputRounding({ bits: inputBits, rms: sizes[matrixInput(name)]!.item() }) }
        : null,
    device,
  );
}
