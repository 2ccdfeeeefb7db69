import { type DecoderConfig, matrixInput } from "../../models/index.ts";
import { asWeight, blockGrid, Dense, type RoundOptions, type Weight } from "../../nn/index.ts";
import type { DeviceOptions } from "../../runtime/index.ts";
import { type HostTensor, isHostTensor } from "../../tensor/index.ts";
import { type ChannelScales, overQueryHeads, scalablePoints, scaled } from "./fold.ts";
import { layerInputs } from "./layer-inputs.ts";
import { PartErrors } from "./part-errors.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";

/** Strengths that are tried: 0, 0.05, ..., 1. */
const STRENGTHS = Array.from({ length: 21 }, (_, i) => i / 20);

/** Channels count as at least this share of the strongest one. */
const WEAKEST = 1e-4;

export interface AwqOptions extends DeviceOptions {
  /** Tokens, in whole windows, on which the parts of a layer are run with each strength. Default 4096. */
  readonly tokens?: number;
}

/**
 * Activation-aware scales (Lin et al. 2024, section 3.2): `s = m^a`, with `m` the mean magnitude of each input channel and
 * `a` from 0 to 1 the one with which rounding `W diag(s)` to `grid` changes least of what the part of the layer puts out
 * that the matrices sit in: attention for the projections to queries, keys and values, the feed-forward network for gate
 * and up projection, the product alone for the output and the down projection. As 0 is among the choices, no part is
 * further off than without scales.
 *
 * To be folded into the model, of which the paper then clips and rounds the matrices:
 * `compressDecoder(foldScales(source, await awqScales(source, windows, grid)), planFor(config, { layers: clipped(grid) }), windows)`.
 * @param windows `i64 [windows, seq]`
 */
export async function awqScales(
  source: DecoderSource,
  windows: HostTensor,
  grid: RoundOptions,
  { tokens = 4096, ...device }: AwqOptions = {},
): Promise<ChannelScales> {
  const { config } = source;
  const scales = new Map<string, Float32Array>();
  const points = (layer: number) => scalablePoints(config, layer);
  for await (const { inputs, ...layer } of layerInputs(source, windows, points, device)) {
    const weights = await denseWeights(layer.weights, device);
    const options = { tokens, ...device };
    await using errors = await PartErrors.of(config, { ...layer, weights }, [...inputs.keys()], options);
    for (const [point, { absMean }] of inputs) {
      const readers = Object.keys(weights).filter(
        (name) => name.endsWith("_proj.weight") && matrixInput(name) === point,
      );
      let least = Infinity;
      for (const tried of scalesToTry(config, point, absMean)) {
        const rounded = readers.map((name) => [name, roundedWith(tried, weights[name] as Dense, grid)] as const);
        const error = await errors.behind(point, Object.fromEntries(rounded));
        if (error < least) {
          least = error;
          scales.set(point, tried);
        }
      }
    }
  }
  return scales;
}

async function denseWeights(
  weights: Readonly<Record<string, Weight | HostTensor>>,
  device: DeviceOptions,
): Promise<Record<string, Dense | HostTensor>> {
  const result: Record<string, Dense | HostTensor> = {};
  for (const [name, weight] of Object.entries(weights))
    result[name] =
      isHostTensor(weight) && weight.shape.length === 1
        ? weight
        : new Dense(await denseValues(asWeight(weight), device));
  return result;
}

function scalesToTry(config: DecoderConfig, point: string, absMean: HostTensor): Float32Array[] {
  const magnitudes = absMean.data as Float32Array;
  const strength = point.endsWith(".attn.mix") ? overQueryHeads(config, magnitudes, meanOf) : magnitudes;
  return STRENGTHS.map((exponent) => powers(strength, exponent));
}

const meanOf = (values: readonly number[]): number => values.reduce((a, b) => a + b) / values.length;

/** `m^a`, divided so that the least and the greatest have the product 1. */
function powers(magnitudes: Float32Array, exponent: number): Float32Array {
  const top = magnitudes.reduce((a, b) => Math.max(a, b));
  if (top === 0) return new Float32Array(magnitudes.length).fill(1);
  const raised = magnitudes.map((m) => Math.max(m / top, WEAKEST) ** exponent);
  const middle = Math.sqrt(raised.reduce((a, b) => Math.min(a, b)));
  return raised.map((s) => s / middle);
}

/** A matrix rounded with its columns scaled, and its columns scaled back. */
function roundedWith(scales: Float32Array, matrix: Dense, options: RoundOptions): Dense {
  const rounded = scaled(matrix.values as HostTensor, { columns: scales });
  const grid = blockGrid(rounded, options);
  const values = rounded.data as Float32Array;
  for (let r = 0, i = 0; r < grid.rows; r++)
    for (let c = 0; c < grid.columns; c++, i++) {
      const index = r * grid.blocks + Math.floor(c / grid.block);
      values[i] = grid.value(grid.code(values[i]!, index), index) / scales[c]!;
    }
  return new Dense(rounded);
}
