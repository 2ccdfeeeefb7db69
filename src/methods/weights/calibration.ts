import type { Tokenizer } from "../../formats/tokenizer.ts";
import { ArgumentError, HostTensor, Rng } from "../../tensor/index.ts";

export interface CalibrationOptions {
  /** Windows to take. GPTQ's paper takes 128. */
  readonly count: number;
  /** Tokens in a window. */
  readonly length: number;
  readonly seed?: number;
}

/**
 * Windows of calibration text, `i64 [count, length]`: drawn at random from the non-overlapping ones of `tokens`.
 * @throws ArgumentError where the tokens do not fill that many windows, with how many it takes
 */
export function calibrationWindows(
  tokens: ArrayLike<number>,
  { count, length, seed = 0 }: CalibrationOptions,
): HostTensor {
  for (const [name, value] of Object.entries({ count, length }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw new ArgumentError(`the ${name} of calibration windows must be a whole number from 1, not ${value}`);
  const need = `${count} windows of ${length} tokens take ${count * length} tokens`;
  if (tokens.length === 0) throw new ArgumentError(`the calibration text is empty; ${need}`);
  const whole = Math.floor(tokens.length / length);
  if (whole < count)
    throw new ArgumentError(`the calibration text has ${tokens.length} tokens, but ${need}; give more text`);
  const windows = HostTensor.zeros("i64", [count, length]);
  new Rng(seed)
    .permutation(whole)
    .slice(0, count)
    .forEach((window, row) => {
      for (let i = 0; i < length; i++) windows.set(row * length + i, tokens[window * length + i]!);
    });
  return windows;
}

/** Texts of which more of the tokens than this are unknown, or whose tokens are shorter than this, fit another tokenizer. */
const MOST_UNKNOWN = 0.01;
const LEAST_BYTES = 1.5;

/**
 * Encodes calibration text. Text that the tokenizer was not made for (another language, binary data) would tune the
 * compressed model to inputs that it never gets; that is announced with the number that gives it away.
 */
export function encodeCalibration(
  tokenizer: Pick<Tokenizer, "encode" | "unkId">,
  text: string,
  announce: (message: string) => void = console.warn,
): number[] {
  const tokens = tokenizer.encode(text, { addSpecialTokens: false });
  if (tokens.length === 0) throw new ArgumentError("the calibration text is empty");
  const bytes = new TextEncoder().encode(text).length / tokens.length;
  const unknown = tokens.filter((id) => id === tokenizer.unkId).length / tokens.length;
  if (unknown > MOST_UNKNOWN)
    announce(`${(100 * unknown).toFixed(1)} % of the calibration text's tokens are unknown to the tokenizer`);
  else if (bytes < LEAST_BYTES)
    announce(
      `the calibration text takes a token for every ${bytes.toFixed(2)} bytes; the tokenizer was made for other text`,
    );
  return tokens;
}

/**
 * What is wrong with calibration text on which the model's own `loss` (mean nats per token) is this, or null where
 * nothing is: a model that predicts no better than chance over its vocabulary was not made for the text.
 */
export function calibrationConcern(loss: number, vocab: number): string | null {
  const chance = Math.log(vocab);
  if (loss < 0.9 * chance) return null;
  return `the model's loss on the calibration text is ${loss.toFixed(2)} nats per token, and guessing among ${vocab} tokens gives ${chance.toFixed(2)}: the text or its tokenizer does not belong to the model`;
}
