import {
  type DecoderConfig,
  decoderLogits,
  decoderShapes,
  finalNorm,
  headLogits,
  type Weights,
} from "../../models/index.ts";
import { asWeight, targetLogProbs, type Weight } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, HostTensor, mean, neg, slice, spec } from "../../tensor/index.ts";
import { HiddenStates } from "./hidden.ts";
import type { DecoderSource } from "./source.ts";

/**
 * Mean loss of a decoder in nats per token on `windows i64 [windows, seq]`, each token but the first of a window predicted
 * from those before it.
 */
export async function meanLoss(
  { config, weights }: { readonly config: DecoderConfig; readonly weights: Weights },
  windows: HostTensor,
  device: DeviceOptions = {},
): Promise<number> {
  const [count, length] = windows.shape as [number, number];
  if (count < 1 || length < 2)
    throw new ArgumentError(`a loss takes windows of at least two tokens, not [${windows.shape.join(", ")}]`);
  const program = await compile(
    (ids) => {
      const logits = decoderLogits(config, weights, slice(ids, 1, 0, length - 1));
      return neg(mean(targetLogProbs(logits, slice(ids, 1, 1, length))));
    },
    [spec("i64", [1, length])] as const,
    device,
  );
  try {
    let total = 0;
    for (let row = 0; row < count; row++) total += (await program(rowOf(windows, row))).item();
    return total / count;
  } finally {
    await program.dispose();
  }
}

/**
 * As `meanLoss`, of a model whose layers are read one after the other, so that it may be larger than memory.
 * @throws ArgumentError for windows that do not fit the model
 */
export async function streamedLoss(
  source: DecoderSource,
  windows: HostTensor,
  device: DeviceOptions = {},
): Promise<number> {
  const { config } = source;
  const [count, length] = windows.shape as [number, number];
  await using hidden = new HiddenStates(config, [count, length], device);
  const names = [...decoderShapes(config).keys()];
  const some = async (pattern: RegExp): Promise<Record<string, Weight | HostTensor>> => {
    const weights: Record<string, Weight | HostTensor> = {};
    for (const name of names) if (pattern.test(name)) weights[name] = await source.read(name);
    return weights;
  };
  await hidden.embed(asWeight(await source.read("model.embed_tokens.weight")), windows);
  for (let i = 0; i < config.layers; i++) await hidden.advance(i, await some(new RegExp(`^model\\.layers\\.${i}\\.`)));
  const ending = await some(config.tied ? /^model\.(norm|embed_tokens)\./ : /^(model\.norm|lm_head)\./);
  await using program = await compile(
    (weights, rows, ids) => {
      const last = finalNorm(config, weights as Weights, slice(rows, 1, 0, length - 1));
      return neg(mean(targetLogProbs(headLogits(config, weights as Weights, last), slice(ids, 1, 1, length))));
    },
    [ending, spec("f32", [1, length, config.dim]), spec("i64", [1, length])] as const,
    device,
  );
  let total = 0;
  for (let row = 0; row < count; row++)
    total += (await program(ending as never, rowOf(hidden.values, row), rowOf(windows, row))).item();
  return total / count;
}

/** Entry `row` along the first axis, with that axis kept at length 1; memory is shared. */
export function rowOf({ dtype, shape, data }: HostTensor, row: number): HostTensor {
  const width = data.length / shape[0]!;
  return new HostTensor(dtype, [1, ...shape.slice(1)], data.subarray(row * width, (row + 1) * width));
}
