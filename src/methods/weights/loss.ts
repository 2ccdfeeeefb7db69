import { type DecoderConfig, decoderLogits, type Weights } from "../../models/index.ts";
import { targetLogProbs } from "../../nn/index.ts";
import { compile, type DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, HostTensor, mean, neg, slice, spec } from "../../tensor/index.ts";

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

/** Entry `row` along the first axis, with that axis kept at length 1; memory is shared. */
export function rowOf({ dtype, shape, data }: HostTensor, row: number): HostTensor {
  const width = data.length / shape[0]!;
  return new HostTensor(dtype, [1, ...shape.slice(1)], data.subarray(row * width, (row + 1) * width));
}
