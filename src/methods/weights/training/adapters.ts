import { isLayerMatrix } from "../../../models/index.ts";
import { asWeight, type BlockFormat, roundToBlocks } from "../../../nn/index.ts";
import { Rng } from "../../../tensor/index.ts";
import { isLora, mergeLora, withLora } from "../../../train/index.ts";
import { denseValues } from "../report.ts";
import type { TrainedModel, TrainingMethod } from "./method.ts";

export interface AdapterOptions {
  readonly rank: number;
  /** Default: twice the rank. */
  readonly alpha?: number | undefined;
  /** Of the adapters' first values. */
  readonly seed: number;
}

/** LoRA (Hu et al. 2022, arXiv:2106.09685) on all matrices of the layers, merged into them at the end. */
export function loraTraining({ rank, alpha = 2 * rank, seed }: AdapterOptions): TrainingMethod {
  return {
    name: `lora of rank ${rank}, alpha ${alpha}`,
    rate: 1e-3,
    start: async ({ config, weights }) => ({
      config,
      weights: withLora(weights, { rank, alpha, rng: new Rng(seed).fork("adapters") }),
    }),
    trainable: isLora,
    finish: async ({ config, weights }) => ({ config, weights: await mergeLora(weights) }),
  };
}

/**
 * QLoRA (Dettmers et al. 2023, arXiv:2305.14314) in its main idea: LoRA over matrices that are rounded to blocks of few
 * bits first. The adapters stay beside them, since merging would round the model once more.
 */
export function qloraTraining({
  format = "int4",
  block = 32,
  ...options
}: AdapterOptions & { readonly format?: BlockFormat; readonly block?: number }): TrainingMethod {
  const lora = loraTraining(options);
  return {
    ...lora,
    name: `q${lora.name} over ${format} in blocks of ${block}`,
    async start({ config, weights }: TrainedModel) {
      const rounded: Record<string, TrainedModel["weights"][string]> = { ...weights };
      for (const [name, value] of Object.entries(weights)) {
        if (!isLayerMatrix(name)) continue;
        const matrix = await denseValues(asWeight(value));
        rounded[name] = roundToBlocks(matrix, { format, block, search: true, exact: true });
      }
      return await lora.start({ config, weights: rounded });
    },
    finish: async (model) => model,
  };
}
