import type { TensorFile } from "../../../formats/tensor-file.ts";
import { TensorView, type ViewedTensor } from "../../../formats/tensor-view.ts";
import type { Tokenizer } from "../../../formats/tokenizer.ts";
import { HostTensor } from "../../../tensor/index.ts";
import { vocabularyTables } from "./merge.ts";

/** What a row is called that another vocabulary does not have. */
const NONE = -1;

/** What of a tokenizer matching needs. */
export type Vocabulary = Pick<Tokenizer, "tokenToId" | "idToToken">;

/**
 * For each of `rows` rows of a new vocabulary the row of the same token in an old one, or -1 where it has none of its
 * `oldRows` for that token. Rows that are no token's, as tables have them at their end to fill up, match by number.
 * @param old vocabularies that share their rows, such as a base's and a post-trained model's, which may name reserved
 *   rows; the first that knows a token decides
 */
export function matchTokens(
  { rows, tokens }: { readonly rows: number; readonly tokens: Vocabulary },
  old: { readonly rows: number; readonly tokens: readonly Vocabulary[] },
): number[] {
  return Array.from({ length: rows }, (_, row) => {
    const token = tokens.idToToken(row);
    const unnamed = old.tokens.every((vocabulary) => vocabulary.idToToken(row) === undefined);
    const ids = token === undefined ? (unnamed ? [row] : []) : old.tokens.map((it) => it.tokenToId(token));
    const id = ids.find((found) => found !== undefined);
    return id !== undefined && id < old.rows ? id : NONE;
  });
}

/**
 * A checkpoint with the rows of its embedding and head in another order, as `matchTokens` gives it. Rows that it lacks
 * are zeros: when all models of a merge are aligned in the same way, nothing is added to those of the start.
 */
export function alignVocabulary(file: TensorFile, rows: readonly number[]): TensorFile {
  const views = Array.from(file.tensors, ([name, { shape }]): [string, ViewedTensor] => {
    if (!vocabularyTables.has(name)) return [name, { from: name }];
    const aligned = [rows.length, ...shape.slice(1)];
    return [name, { from: name, shape: aligned, convert: (table) => gathered(table, rows, aligned) }];
  });
  return new TensorView(file, new Map(views));
}

function gathered({ dtype, data, shape }: HostTensor, rows: readonly number[], aligned: readonly number[]): HostTensor {
  const result = HostTensor.zeros(dtype, aligned);
  const width = shape.slice(1).reduce((a, b) => a * b, 1);
  const [from, to] = [data as Float32Array, result.data as Float32Array];
  rows.forEach((row, at) => {
    if (row !== NONE) to.set(from.subarray(row * width, (row + 1) * width), at * width);
  });
  return result;
}
