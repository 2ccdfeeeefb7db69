import type { Variant } from "../../report/index.ts";
import { megabytes } from "../../report/node.ts";
import { textTable } from "../table.ts";

/** The variants of a report as a table for the terminal. */
export function variantTable(variants: readonly Variant[]): string {
  const rows = variants.map((v) => [
    v.name,
    megabytes(v.bytes),
    v.bitsPerWeight.toFixed(2),
    `${v.perplexity.value.toFixed(2)} (${v.perplexity.low.toFixed(2)} to ${v.perplexity.high.toFixed(2)})`,
    v.kl ? v.kl.value.toFixed(4) : "",
    v.topAgreement ? `${(100 * v.topAgreement.value).toFixed(1)} %` : "",
    v.speed ? v.speed.decode.toFixed(0) : "",
    v.speed ? v.speed.prefill.toFixed(0) : "",
  ]);
  const heads = ["model", "size", "bits", "perplexity", "KL", "same token", "decode/s", "prefill/s"];
  return textTable(heads, rows, { right: [1, 2, 3, 4, 5, 6, 7] });
}
