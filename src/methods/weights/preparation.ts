import type { RoundOptions } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { awqScales } from "./awq.ts";
import { type ChannelScales, foldScales } from "./fold.ts";
import { rotateResidual } from "./rotation.ts";
import { smoothScales } from "./smoothquant.ts";
import type { DecoderSource } from "./source.ts";

/** What is done to a model as a whole, which leaves its function as it is, before its matrices are compressed. */
export type Preparation = { readonly name: string } & (
  | {
      /** Channels are scaled by factors that calibration finds. */
      readonly kind: "scales";
      find(source: DecoderSource, windows: HostTensor, device: DeviceOptions): Promise<ChannelScales>;
    }
  /** The residual stream is turned; a tied head gets a matrix of its own. */
  | { readonly kind: "rotation" }
);

/** @param grid what the scaled matrices will be rounded to */
export function awqPreparation(grid: RoundOptions): Preparation {
  return { name: "awq", kind: "scales", find: (source, windows, device) => awqScales(source, windows, grid, device) };
}

export function smoothPreparation(): Preparation {
  return { name: "smoothquant", kind: "scales", find: smoothScales };
}

export const rotationPreparation: Preparation = { name: "quarot", kind: "rotation" };

export interface PrepareOptions extends DeviceOptions {
  readonly seed?: number;
  /** Stops between two weights. */
  readonly signal?: AbortSignal;
  /** Told of each layer that calibration comes to. */
  readonly onLayer?: (layer: number) => void;
  /** Keeps what was found for a run that goes on later: returns what `find` gives, or gave then. */
  readonly kept?: (find: () => Promise<ChannelScales>) => Promise<ChannelScales>;
}

/**
 * The model as a preparation leaves it; its weights are changed as they are read.
 * @param windows `i64 [windows, seq]`
 * @throws ArgumentError for a model that cannot be prepared so; the signal's reason
 */
export async function prepared(
  source: DecoderSource,
  preparation: Preparation,
  windows: HostTensor,
  { seed = 0, signal, onLayer, kept = (find) => find(), ...device }: PrepareOptions = {},
): Promise<DecoderSource> {
  if (preparation.kind === "rotation") return rotateResidual(source, { seed });
  const watched = watchedSource(source, signal, onLayer);
  return foldScales(source, await kept(() => preparation.find(watched, windows, device)));
}

/** A source that tells of the layers it is asked for, and stops when it is told to. */
function watchedSource(
  source: DecoderSource,
  signal: AbortSignal | undefined,
  onLayer: ((layer: number) => void) | undefined,
): DecoderSource {
  let last = -1;
  return {
    config: source.config,
    read(name) {
      signal?.throwIfAborted();
      const layer = Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? last);
      if (layer !== last) onLayer?.(layer);
      last = layer;
      return source.read(name);
    },
  };
}
