import type { TypedArray } from "../tensor/dtype.ts";
import { ShapeError } from "../tensor/errors.ts";
import { HostTensor } from "../tensor/host.ts";
import type { LlamaConfig } from "./llama-config.ts";

/**
 * Rotary embeddings turn pairs of a head's channels. Hugging Face pairs channel i with i + d/2 of a head of d; llama.cpp
 * (for Llama) and llama2.c pair neighbours 2i and 2i + 1. Query and key projections are converted by reordering their
 * rows within each head.
 */

/** Heads whose rows are ordered for rotary embeddings in the tensor with Hugging Face's `name`; 0 for other tensors. */
export function rotaryHeads(
  name: string,
  config: Pick<LlamaConfig, "num_attention_heads" | "num_key_value_heads">,
): number {
  if (name.includes(".q_proj.")) return config.num_attention_heads;
  return name.includes(".k_proj.") ? config.num_key_value_heads : 0;
}

/** Rows of query or key weights `[heads * d, ...]` from neighbouring pairs to Hugging Face's order. @throws ShapeError */
export function splitRotaryPairs(weight: HostTensor, heads: number): HostTensor {
  return reorder(weight, heads, (i, d) => (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1));
}

/** The inverse of `splitRotaryPairs`. @throws ShapeError */
export function joinRotaryPairs(weight: HostTensor, heads: number): HostTensor {
  return reorder(weight, heads, (i, d) => (i % 2 === 0 ? i / 2 : d / 2 + (i - 1) / 2));
}

/** Row `i` of each head becomes what row `from(i, d)` was. */
function reorder(weight: HostTensor, heads: number, from: (i: number, d: number) => number): HostTensor {
  const rows = weight.shape[0] ?? 0;
  const d = rows / heads;
  if (rows === 0 || d % 2 !== 0) {
    throw new ShapeError(`${rows} rows of rotary weights do not make ${heads} heads of an even size`);
  }
  const data = weight.data.slice() as TypedArray;
  const width = data.length / rows;
  for (let row = 0; row < rows; row++) {
    const source = row - (row % d) + from(row % d, d);
    data.set(weight.data.subarray(source * width, (source + 1) * width) as never, row * width);
  }
  return new HostTensor(weight.dtype, weight.shape, data);
}
