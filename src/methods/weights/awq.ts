import { matrixInput } from "../../models/index.ts";
import { asWeight, blockGrid, type RoundOptions } from "../../nn/index.ts";
import { compile, type DeviceOptions, type Program } from "../../runtime/index.ts";
import { type HostTensor, matmul, mul, spec, sum, type Tensor, type TensorSpec } from "../../tensor/index.ts";
import { type ChannelScales, overQueryHeads, scalablePoints, scaled } from "./fold.ts";
import { layerInputs } from "./layer-inputs.ts";
import { denseValues } from "./report.ts";
import type { DecoderSource } from "./source.ts";
import type { InputStatistics } from "./statistics.ts";

/** Strengths that are tried: 0, 0.05, ..., 1. */
const STRENGTHS = Array.from({ length: 21 }, (_, i) => i / 20);

/** Channels count as at least this share of the strongest one. */
const WEAKEST = 1e-4;

/**
 * Activation-aware scales (Lin et al. 2024, section 3.2): `s = m^a`, with `m` the mean magnitude of each input channel and
 * `a` from 0 to 1 the one with which rounding `W diag(s)` to `grid` loses least of what comes out, `||X W^T - X W'^T||`
 * summed over the matrices that share the input. With `X^T X` known this takes no forward pass. As 0 is among the choices,
 * no input is rounded worse than without scales.
 *
 * To be folded into the model, which is rounded afterwards by a method with the same grid:
 * `foldScales(source, await awqScales(source, windows, grid))`.
 * @param windows `i64 [windows, seq]`
 */
export async function awqScales(
  source: DecoderSource,
  windows: HostTensor,
  grid: RoundOptions,
  device: DeviceOptions = {},
): Promise<ChannelScales> {
  const scales = new Map<string, Float32Array>();
  await using losses = new OutputLosses(device);
  const points = (layer: number) => scalablePoints(source.config, layer);
  for await (const { weights, inputs } of layerInputs(source, windows, points, device)) {
    for (const [point, { absMean, gram }] of inputs) {
      const readers = Object.keys(weights).filter(
        (name) => name.endsWith("_proj.weight") && matrixInput(name) === point,
      );
      const matrices = await Promise.all(readers.map((name) => denseValues(asWeight(weights[name]!), device)));
      let strength = absMean.data as Float32Array;
      if (point.endsWith(".attn.mix")) strength = overQueryHeads(source.config, strength, meanOf);
      let least = Infinity;
      for (const exponent of STRENGTHS) {
        const tried = powers(strength, exponent);
        let loss = 0;
        for (const matrix of matrices) loss += await losses.of(roundingErrors(matrix, tried, grid), gram);
        if (loss < least) {
          least = loss;
          scales.set(point, tried);
        }
      }
    }
  }
  return scales;
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

/** How far the entries of a matrix are off when it is rounded with its columns scaled. */
function roundingErrors(matrix: HostTensor, scales: Float32Array, options: RoundOptions): HostTensor {
  const stretched = scaled(matrix, { columns: scales });
  const grid = blockGrid(stretched, options);
  const errors = stretched.data as Float32Array;
  for (let r = 0, i = 0; r < grid.rows; r++)
    for (let c = 0; c < grid.columns; c++, i++) {
      const index = r * grid.blocks + Math.floor(c / grid.block);
      errors[i] = (grid.value(grid.code(errors[i]!, index), index) - errors[i]!) / scales[c]!;
    }
  return stretched;
}

/** Squared output errors `tr(E G E^T)` of matrices' errors `E`, one program for each width. */
class OutputLosses {
  readonly #device: DeviceOptions;
  readonly #programs = new Map<number, Promise<Program<readonly [TensorSpec, TensorSpec], Tensor>>>();

  constructor(device: DeviceOptions) {
    this.#device = device;
  }

  async of(errors: HostTensor, gram: InputStatistics["gram"]): Promise<number> {
    const width = gram.shape[0]!;
    let program = this.#programs.get(width);
    if (!program) {
      const specs = [spec("f32", ["out", width]), spec("f32", [width, width])] as const;
      program = compile((e, g) => sum(mul(matmul(e, g), e)), specs, this.#device);
      this.#programs.set(width, program);
    }
    return (await (await program)(errors, gram)).item();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs.values()) await (await program).dispose();
  }
}
