import { gptq, type MatrixMethod, magnitude, nearest, type Sparsity, sparseGpt, wanda } from "../../methods/index.ts";
import type { BlockFormat } from "../../nn/index.ts";
import { ArgumentError } from "../../tensor/index.ts";

/** How far a compressor is to go: a share of the weights or a pattern of them that goes, or bits that stay. */
export interface KickSetting {
  /** Share of the weights that is dropped. */
  readonly sparsity?: number;
  /** `2:4` keeps two of every four neighbours; its sparsity follows from it. */
  readonly pattern?: "unstructured" | `${number}:${number}`;
  readonly bits?: number;
}

/** A way to compress the layers' matrices, at several settings. */
export interface Compressor {
  readonly name: string;
  /** Whether it looks at calibration text: others give the same for every seed. */
  readonly calibrated: boolean;
  /** @throws ArgumentError for a setting that it cannot have */
  method(setting: KickSetting): MatrixMethod;
}

export interface RoundingOptions {
  /** Neighbours that share a scale: a multiple of 16, or whole rows. Default `channel`, whole rows. */
  readonly block?: number | "channel";
}

const formats: Readonly<Record<number, BlockFormat>> = { 8: "int8", 4: "int4", 3: "int3", 2: "int2" };

/** Bits that weights can be rounded to. */
export const roundingBits = Object.keys(formats).map(Number).reverse();

/** The compressors of the audit by name: three that prune and two that round, all in one pass without training. */
export function kickCompressors({ block = "channel" }: RoundingOptions = {}): Readonly<Record<string, Compressor>> {
  const pruning = (name: string, calibrated: boolean, prune: (pattern: Sparsity) => MatrixMethod): Compressor => ({
    name,
    calibrated,
    method: (setting) => prune(sparsityOf(name, setting)),
  });
  const rounding = (name: string, calibrated: boolean, round: typeof nearest): Compressor => ({
    name,
    calibrated,
    method({ bits, sparsity, pattern }) {
      const format = bits === undefined ? undefined : formats[bits];
      if (!format || sparsity !== undefined || pattern !== undefined)
        throw new ArgumentError(
          `${name} rounds to ${roundingBits.join(", ")} bits, not to ${JSON.stringify({ bits, sparsity, pattern })}`,
        );
      // A zero point pays where there are few values; products stay in single precision.
      return round({ format, block, symmetric: format === "int8", exact: true });
    },
  });
  return {
    magnitude: pruning("magnitude", false, magnitude),
    wanda: pruning("wanda", true, wanda),
    sparsegpt: pruning("sparsegpt", true, sparseGpt),
    nearest: rounding("nearest", false, nearest),
    gptq: rounding("gptq", true, gptq),
  };
}

/**
 * What a setting drops.
 * @param name of the compressor, for errors
 * @throws ArgumentError for a share or pattern that is none, or two that contradict each other
 */
export function sparsityOf(name: string, { sparsity, pattern = "unstructured", bits }: KickSetting): Sparsity {
  if (bits !== undefined)
    throw new ArgumentError(`${name} drops weights and has no bits; give a sparsity or a pattern`);
  if (sparsity !== undefined && !(sparsity >= 0 && sparsity < 1))
    throw new ArgumentError(`${name}: sparsity must be from 0 to below 1, not ${sparsity}`);
  if (pattern === "unstructured") {
    if (sparsity === undefined) throw new ArgumentError(`${name} takes a sparsity or a pattern such as 2:4`);
    return { sparsity };
  }
  const [, keep, of] = /^(\d+):(\d+)$/.exec(pattern)?.map(Number) ?? [];
  if (!keep || !of || keep >= of)
    throw new ArgumentError(`${name}: a pattern keeps some of a group, such as 2:4, not "${pattern}"`);
  const own = 1 - keep / of;
  if (sparsity !== undefined && Math.abs(sparsity - own) > 1e-9)
    throw new ArgumentError(
      `${name}: ${pattern} drops ${own} of the weights, so that its sparsity cannot be ${sparsity}`,
    );
  return { keep, of };
}

/** A setting in words: `30 %`, `2:4`, `4 bits`. */
export function settingName({ sparsity, pattern, bits }: KickSetting): string {
  if (bits !== undefined) return `${bits} bits`;
  return pattern && pattern !== "unstructured" ? pattern : `${+(100 * sparsity!).toFixed(2)} %`;
}
