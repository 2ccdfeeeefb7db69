import { type DecoderConfig, decoderLogits, type Weights } from "../../../models/index.ts";
import { capture, crossEntropy, FakeQuantized } from "../../../nn/index.ts";
import { compile, type DeviceOptions } from "../../../runtime/index.ts";
import { div, grad, type HostTensor, mul, sqrt, sum, type Tensor } from "../../../tensor/index.ts";
import type { TokenBatch } from "../../../train/index.ts";

/**
 * How well gradients survive the rounding of activations: for each layer, the cosine between the gradient of the loss with
 * respect to the layer's output in a model in training for few bits, and the same gradient when inputs are not rounded
 * (QuEST, section 4.1, "gradient alignment").
 */
export async function gradientAlignment(
  config: DecoderConfig,
  weights: Weights,
  batch: TokenBatch,
  device: DeviceOptions = {},
): Promise<number[]> {
  const inputsKept = Object.fromEntries(
    Object.entries(weights).map(([name, weight]) => [
      name,
      weight instanceof FakeQuantized
        ? new FakeQuantized(weight.latent, weight.learned, { ...weight.how, input: undefined })
        : weight,
    ]),
  );
  const points = Array.from({ length: config.layers }, (_, i) => `model.layers.${i}.out`);
  await using program = await compile(
    (ids: Tensor, targets: Tensor) => {
      const gradients = (model: Weights): Record<string, Tensor> => {
        const { result, captured } = capture(
          (name) => points.includes(name),
          () => crossEntropy(decoderLogits(config, model, ids), targets),
        );
        return grad(result, captured);
      };
      const [rounded, kept] = [gradients(weights), gradients(inputsKept)];
      return points.map((point) => cosine(rounded[point]!, kept[point]!));
    },
    [batch.ids, batch.targets],
    device,
  );
  return (await program(batch.ids, batch.targets)).map((value: HostTensor) => value.item());
}

function cosine(a: Tensor, b: Tensor): Tensor {
  return div(sum(mul(a, b)), sqrt(mul(sum(mul(a, a)), sum(mul(b, b)))));
}
