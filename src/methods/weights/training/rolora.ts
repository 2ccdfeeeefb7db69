import { quantizeBoth } from "../rolora/quantize.ts";
import { type Rotation, rotateDecoder } from "../rolora/rotate.ts";
import { type AdapterOptions, loraTraining } from "./adapters.ts";
import type { TrainingMethod } from "./method.ts";

/**
 * RoLoRA (Huang et al. 2024, arXiv:2407.08044): LoRA on a model that is rotated first, and stays so; at the end with
 * weights and inputs of the layers' matrices rounded where `bits` says so. A head that shared the embedding's matrix has
 * its own afterwards.
 */
export function roloraTraining({
  bits,
  ...options
}: AdapterOptions & { readonly bits?: { readonly weights: number; readonly inputs: number } }): TrainingMethod {
  const lora = loraTraining(options);
  const rotation: Rotation = { seed: options.seed, mode: "blocks", downProj: true };
  return {
    ...lora,
    name: `ro${lora.name}, seed ${options.seed}${bits ? `, W${bits.weights}A${bits.inputs}` : ""}`,
    start: async (model) => lora.start(await rotateDecoder(model, rotation)),
    async finish(model) {
      const { config, weights } = await lora.finish(model);
      if (!bits) return { config, weights };
      const rounded = await quantizeBoth(
        { config, weights, rotation },
        { weightBits: bits.weights, inputBits: bits.inputs },
      );
      return { config: rounded.config, weights: rounded.weights };
    },
  };
}
