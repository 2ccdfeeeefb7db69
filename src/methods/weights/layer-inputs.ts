import { decoderShapes } from "../../models/index.ts";
import { asWeight, type Weight } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import type { HostTensor } from "../../tensor/index.ts";
import { checkedWindows } from "./compress.ts";
import { finiteSource } from "./finite.ts";
import { HiddenStates } from "./hidden.ts";
import type { DecoderSource } from "./source.ts";
import type { InputStatistics } from "./statistics.ts";

/** A layer with what its matrices are multiplied with on calibration text. */
export interface LayerInputs {
  readonly index: number;
  readonly weights: Readonly<Record<string, Weight | HostTensor>>;
  /** The residual stream before it, `f32 [windows, seq, dim]`; overwritten when the next layer is asked for. */
  readonly hidden: HostTensor;
  /** By point. */
  readonly inputs: ReadonlyMap<string, InputStatistics>;
}

/**
 * Walks the layers of a model as it is, one in memory at a time.
 * @param windows `i64 [windows, seq]`
 * @param pointsOf the points of a layer to look at, and their widths
 * @throws ArgumentError for windows that do not fit the model, and weights or activations that are not finite
 */
export async function* layerInputs(
  model: DecoderSource,
  windows: HostTensor,
  pointsOf: (layer: number) => ReadonlyMap<string, number>,
  device: DeviceOptions = {},
): AsyncGenerator<LayerInputs, void, undefined> {
  const source = finiteSource(model);
  const { config } = source;
  await using hidden = new HiddenStates(config, checkedWindows(windows, config), device);
  await hidden.embed(asWeight(await source.read("model.embed_tokens.weight")), windows);
  const names = [...decoderShapes(config).keys()];
  for (let index = 0; index < config.layers; index++) {
    const weights: Record<string, Weight | HostTensor> = {};
    for (const name of names) if (name.startsWith(`model.layers.${index}.`)) weights[name] = await source.read(name);
    const inputs = await hidden.statistics(index, weights, pointsOf(index));
    yield { index, weights, hidden: hidden.values, inputs };
    await hidden.advance(index, weights);
  }
}
