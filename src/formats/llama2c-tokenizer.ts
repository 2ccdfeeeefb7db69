import { FormatError } from "./errors.ts";
import type { MetadataValue } from "./gguf/metadata.ts";
import { decodeUtf8 } from "./json.ts";
import { checkLimit, type Limits, llama2cLimits } from "./limits.ts";
import { type TokenizerFromGguf, tokenizerJsonFromGguf } from "./tokenizer-gguf.ts";

/** A piece of llama2.c's vocabulary; its place in the list is its id. */
export interface Llama2cPiece {
  /** As text, with plain spaces. */
  readonly text: string;
  /** Of two pairs of neighbours that could be merged, the one that makes the piece of higher score is. */
  readonly score: number;
}

/**
 * Reads a vocabulary of llama2.c (`tokenizer.bin`): the length of the longest piece, then for each piece its score, its
 * length in bytes and its text.
 * @param count number of pieces, which is not in the file but in the model's `vocab_size`
 * @throws FormatError; LimitError
 */
export function readLlama2cPieces(
  bytes: Uint8Array,
  count: number,
  where: string,
  limits: Limits<typeof llama2cLimits> = {},
): Llama2cPiece[] {
  const caps = { ...llama2cLimits, ...limits };
  checkLimit(caps, "pieces", count, where, "its number of pieces");
  if (bytes.length < 4 + 8 * count)
    throw new FormatError(`${where}: ${bytes.length} bytes cannot hold ${count} pieces`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const longest = view.getUint32(0, true);
  checkLimit(caps, "pieceBytes", longest, where, "the length of its longest piece");
  const pieces: Llama2cPiece[] = [];
  let at = 4;
  while (pieces.length < count) {
    const what = `${where}, piece ${pieces.length} at offset ${at}`;
    if (at + 8 > bytes.length) throw new FormatError(`${what}: the file is cut short`);
    const score = view.getFloat32(at, true);
    const length = view.getUint32(at + 4, true);
    if (Number.isNaN(score)) throw new FormatError(`${what}: its score is not a number`);
    if (length > longest) throw new FormatError(`${what}: it has ${length} bytes, but the longest piece ${longest}`);
    if (at + 8 + length > bytes.length) throw new FormatError(`${what}: the file is cut short`);
    pieces.push({ text: decodeUtf8(bytes.subarray(at + 8, at + 8 + length), what), score });
    at += 8 + length;
  }
  if (at < bytes.length) throw new FormatError(`${where}: ${bytes.length - at} bytes follow its ${count} pieces`);
  return pieces;
}

/** Ids of the pieces that are no text. */
const [unknown, bos, eos] = [0, 1, 2];

/** The values of llama.cpp's `tokenizer.ggml.token_type` that are met here. */
const pieceTypes = { normal: 1, unknown: 2, control: 3, byte: 6 };

/** The content of tokenizer.json and tokenizer_config.json for a vocabulary of llama2.c. @throws FormatError */
export function tokenizerJsonFromLlama2c(pieces: readonly Llama2cPiece[]): TokenizerFromGguf {
  const types = pieces.map(({ text }, id) => {
    if (id === unknown) return pieceTypes.unknown;
    if (id === bos || id === eos) return pieceTypes.control;
    return /^<0x[0-9A-F]{2}>$/.test(text) ? pieceTypes.byte : pieceTypes.normal;
  });
  // llama2.c spells the two marks with line breaks around them, and shows the space sign of the others as a space.
  const tokens = pieces.map(({ text }, id) =>
    types[id] === pieceTypes.normal ? text.replaceAll(" ", "▁") : text.trim(),
  );
  const scores = Float32Array.from(pieces, ({ score }) => score);
  const u32 = (value: number): MetadataValue => ({ type: "u32", value });
  return tokenizerJsonFromGguf(
    new Map<string, MetadataValue>([
      ["tokenizer.ggml.model", { type: "string", value: "llama" }],
      ["tokenizer.ggml.tokens", { type: "array", of: "string", value: tokens }],
      ["tokenizer.ggml.scores", { type: "array", of: "f32", value: scores }],
      ["tokenizer.ggml.token_type", { type: "array", of: "i32", value: Int32Array.from(types) }],
      ["tokenizer.ggml.unknown_token_id", u32(unknown)],
      ["tokenizer.ggml.bos_token_id", u32(bos)],
      ["tokenizer.ggml.eos_token_id", u32(eos)],
    ]),
  );
}
