import type { BlockFormat, ScaleSearch } from "../../../nn/index.ts";
import { ArgumentError, HostTensor } from "../../../tensor/index.ts";
import { compressDecoder } from "../compress.ts";
import { gptq } from "../gptq.ts";
import { nearest } from "../nearest.ts";
import { planFor } from "../plan.ts";
import { onlineHadamard } from "../rotation.ts";
import { roundedInputs } from "../rounded-inputs.ts";
import { memorySource } from "../source.ts";
import type { MaybeRotated } from "./rotate.ts";

/** Scales from that of the extremes down to a fifth of it, by the sum of errors to the power of 2.4. */
export const clipSearch: ScaleSearch = { power: 2.4, by: 0.01, count: 80 };

const formats: Readonly<Record<number, BlockFormat>> = { 2: "int2", 3: "int3", 4: "int4", 6: "int6", 8: "int8" };

export interface BothOptions {
  /** 2, 3, 4, 6 or 8, one scale for each output channel. */
  readonly weightBits: number;
  /** 2 to 8, one scale for each token as it comes. */
  readonly inputBits: number;
  /** Default `nearest`. */
  readonly method?: "nearest" | "gptq";
  /** Text that GPTQ calibrates on, `i64 [windows, seq]`. */
  readonly windows?: HostTensor;
  /** Looks for the scales of weights instead of covering the extremes. Default true. */
  readonly search?: boolean;
  readonly signal?: AbortSignal;
}

/**
 * A model with all matrices of its layers rounded, and the inputs of these rounded at run time: of a rotated one with
 * transforms of the down projections' inputs, behind these. Products are in single precision.
 * @throws ArgumentError for bits that there are none of, and GPTQ without text
 */
export async function quantizeBoth<M extends MaybeRotated>(model: M, options: BothOptions): Promise<M> {
  const { weightBits, inputBits, method = "nearest", windows, search = true, signal } = options;
  const format = formats[weightBits];
  if (!format)
    throw new ArgumentError(`weights are rounded to ${Object.keys(formats).join(", ")} bits, not ${weightBits}`);
  if (!(Number.isInteger(inputBits) && inputBits >= 2 && inputBits <= 8))
    throw new ArgumentError(`inputs are rounded to 2 to 8 bits, not ${inputBits}`);
  if (method === "gptq" && !windows)
    throw new ArgumentError("GPTQ calibrates on text; give windows of it, as calibrationWindows makes them");
  const grid = { format, block: "channel", exact: true, ...(search && { search: clipSearch }) } as const;
  const rounding = roundedInputs(method === "gptq" ? gptq(grid) : nearest(grid), { bits: inputBits, per: "token" });
  const source = memorySource(model);
  const plan = planFor(model.config, {
    layers: rounding,
    ...(model.rotation?.downProj && { except: { "*.*.*.mlp.down_proj.weight": onlineHadamard(rounding) } }),
  });
  const text = windows ?? HostTensor.zeros("i64", [1, 2]);
  const { weights } = await compressDecoder(source, plan, text, signal && { signal });
  return { ...model, weights: { ...model.weights, ...weights } };
}
