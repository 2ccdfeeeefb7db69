import { type DecoderConfig, decoderLogits, type Weights } from "../models/index.ts";
import { capture } from "../nn/index.ts";
import { compile, type DeviceOptions } from "../runtime/index.ts";
import type { HostTensor } from "../tensor/index.ts";
import type { Histogram } from "./report.ts";

/** Bins of a histogram; an odd number, so that zero lies in the middle of one. */
const BINS = 81;

/**
 * A histogram over several sets of values, on common edges that reach as far as the first set does, zero in the middle;
 * what lies beyond falls into the outermost bins.
 */
export function histogramOf(title: string, sets: Readonly<Record<string, ArrayLike<number>>>): Histogram {
  const [first] = Object.values(sets);
  let reach = 0;
  for (let i = 0; i < (first?.length ?? 0); i++) reach = Math.max(reach, Math.abs(first![i]!));
  reach ||= 1;
  const width = (2 * reach) / BINS;
  return {
    title,
    edges: Array.from({ length: BINS + 1 }, (_, i) => -reach + i * width),
    counts: Object.fromEntries(
      Object.entries(sets).map(([name, values]) => {
        const counts = new Array<number>(BINS).fill(0);
        for (let i = 0; i < values.length; i++) {
          const bin = Math.floor((values[i]! + reach) / width);
          counts[Math.min(BINS - 1, Math.max(0, bin))]!++;
        }
        return [name, counts];
      }),
    ),
  };
}

/** The values at named points of a decoder's forward pass over `ids i64 [batch, seq]`. */
export async function activationsAt(
  { config, weights }: { readonly config: DecoderConfig; readonly weights: Weights },
  points: readonly string[],
  ids: HostTensor,
  device: DeviceOptions = {},
): Promise<Record<string, HostTensor>> {
  await using program = await compile(
    (tokens) =>
      capture(
        (name) => points.includes(name),
        () => decoderLogits(config, weights, tokens),
      ).captured,
    [ids],
    device,
  );
  return await program(ids);
}
