import { matrixInput } from "../../models/index.ts";
import { asWeight } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import { ArgumentError, type HostTensor } from "../../tensor/index.ts";
import { type ChannelScales, overQueryHeads, scalablePoints } from "./fold.ts";
import { layerInputs } from "./layer-inputs.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";

export interface SmoothOptions extends DeviceOptions {
  /** How much of the difficulty moves from the activations to the weights, 0 to 1. Default 0.5, the paper's. */
  readonly strength?: number;
}

/**
 * Smoothing scales (Xiao et al. 2023, equation 4): `s_j = max|X_j|^a / max|W_j|^(1-a)` over the calibration inputs `X` and
 * the columns of all matrices that read them. Divided by `s`, channels with outliers no longer set the step by which all
 * others are rounded. To be folded into the model: `foldScales(source, await smoothScales(source, windows))`. Channels that
 * are always zero, or that nothing reads, are left alone.
 * @param windows `i64 [windows, seq]`
 */
export async function smoothScales(
  source: DecoderSource,
  windows: HostTensor,
  { strength = 0.5, ...device }: SmoothOptions = {},
): Promise<ChannelScales> {
  if (!(strength >= 0 && strength <= 1))
    throw new ArgumentError(`the strength of smoothing is from 0 to 1, not ${strength}`);
  const scales = new Map<string, Float32Array>();
  const points = (layer: number) => scalablePoints(source.config, layer);
  for await (const { weights, inputs } of layerInputs(source, windows, points, device)) {
    for (const [point, { absMax }] of inputs) {
      const columns = new Float32Array(absMax.size);
      for (const [name, weight] of Object.entries(weights))
        if (name.endsWith("_proj.weight") && matrixInput(name) === point)
          raiseToColumns(columns, await denseValues(asWeight(weight), device));
      const widest = (values: Float32Array): Float32Array =>
        point.endsWith(".attn.mix") ? overQueryHeads(source.config, values, (group) => Math.max(...group)) : values;
      const [active, weighty] = [widest(absMax.data as Float32Array), widest(columns)];
      scales.set(
        point,
        active.map((x, j) => (x > 0 && weighty[j]! > 0 ? x ** strength / weighty[j]! ** (1 - strength) : 1)),
      );
    }
  }
  return scales;
}

/** Raises each of `largest [in]` to the largest magnitude in that column of `matrix [out, in]`. */
function raiseToColumns(largest: Float32Array, { data }: HostTensor): void {
  const width = largest.length;
  for (let i = 0; i < data.length; i++) largest[i % width] = Math.max(largest[i % width]!, Math.abs(data[i] as number));
}
