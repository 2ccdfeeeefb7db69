import type { AttentionKind, SearchSpace } from "../../methods/index.ts";
import type { DecoderConfig } from "../../models/index.ts";
import { UsageError } from "../errors.ts";

/** Levels as a user names them; absent: chosen from the backbone's sizes. */
export interface SpaceOptions {
  readonly layers: string | undefined;
  readonly dim: string | undefined;
  readonly ffn: string | undefined;
  readonly attention: string;
  readonly window: number;
}

const kinds: readonly AttentionKind[] = ["full", "sliding", "skip"];

/** The space between half of a backbone and all of it. @throws UsageError for lists that cannot be read */
export function spaceFor({ layers, dim, ffn, attention, window }: SpaceOptions, backbone: DecoderConfig): SearchSpace {
  const depth = Array.from({ length: backbone.layers }, (_, i) => i + 1).filter((n) => 2 * n >= backbone.layers);
  return {
    layers: numbers("layers", layers) ?? depth,
    dim: numbers("dim", dim) ?? levels(backbone.dim, backbone.headDim),
    ffn: numbers("ffn", ffn) ?? levels(backbone.ffn, 16),
    attention: attention.split(",").map((name) => {
      const found = kinds.find((kind) => kind === name.trim());
      if (!found) throw new UsageError(`--attention takes kinds of ${kinds.join(", ")}, not "${name}"`);
      return found;
    }),
    window,
  };
}

/** Half, five eighths, three quarters and all of a size, as multiples of `step`. */
function levels(size: number, step: number): number[] {
  const rounded = [0.5, 0.625, 0.75].map((share) => Math.max(1, Math.round((share * size) / step)) * step);
  return [...new Set([...rounded.filter((level) => level < size), size])];
}

function numbers(name: string, list: string | undefined): number[] | undefined {
  return list?.split(",").map((text) => {
    const value = Number(text);
    if (text.trim() === "" || !Number.isInteger(value))
      throw new UsageError(`--${name} takes whole numbers with commas between them, not "${list}"`);
    return value;
  });
}
