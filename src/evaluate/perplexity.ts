import { ArgumentError } from "../tensor/index.ts";
import { sum } from "./likelihood.ts";
import { prefixToken, type ScoredSequence, type Scorer } from "./scorer.ts";

export interface WindowOptions {
  /** Tokens that the model reads for a window; default all that it can. */
  readonly window?: number;
  /** Tokens by which a window moves on; default the window, which reads every token once. */
  readonly stride?: number;
}

/** Log-probability of a stretch of text, and how long it is. */
export interface TextTerms {
  /** Minus the natural logarithm of its probability. */
  readonly nats: number;
  /** Tokens that were predicted. */
  readonly tokens: number;
}

export interface Perplexity extends TextTerms {
  /** UTF-8 bytes of the text. */
  readonly bytes: number;
  /** Parts of the text between white space. */
  readonly words: number;
  /** `exp(nats / tokens)` */
  readonly perplexity: number;
  /** `nats / ln 2 / bytes`: comparable between tokenizers. */
  readonly bitsPerByte: number;
  /** By window, in order. */
  readonly windows: readonly TextTerms[];
}

/**
 * The windows of a text for strided scoring. Window `k` predicts up to token `window + k * stride`, the tokens that no
 * window before did, and reads the last `window` tokens in front of each end. With a stride of the whole window these are
 * the disjoint windows of lm-evaluation-harness (`get_rolling_token_windows` with `context_len` 1); with stride 1, every
 * token is predicted from a full window; and a window as long as the text predicts each token from all before it, the
 * usual definition.
 * @param prefix stands before the first token, so that it too is predicted
 * @throws ArgumentError for a window or stride that is no whole number from 1, or a stride above the window
 */
export function stridedWindows(
  tokens: readonly number[],
  prefix: number | undefined,
  { window, stride = window }: Required<Pick<WindowOptions, "window">> & WindowOptions,
): ScoredSequence[] {
  for (const [name, value] of Object.entries({ window, stride }))
    if (!Number.isInteger(value) || value < 1)
      throw new ArgumentError(`${name} must be a whole number from 1, not ${value}`);
  if (stride > window) throw new ArgumentError(`a stride of ${stride} would skip tokens between windows of ${window}`);
  const all = prefix === undefined ? tokens : [prefix, ...tokens];
  const last = all.length - 1;
  const windows: ScoredSequence[] = [];
  for (let done = 0; done < last; ) {
    const end = Math.min(last, done === 0 ? window : done + stride);
    windows.push({ ids: all.slice(Math.max(0, end - window), end + 1), scored: end - done });
    done = end;
  }
  return windows;
}

/**
 * Perplexity and bits per byte of one text.
 * @param text a text, or its tokens
 * @throws ArgumentError for windows that the model cannot read
 */
export async function perplexity(
  scorer: Scorer,
  text: string | readonly number[],
  { window = scorer.maxLength, stride = window }: WindowOptions = {},
): Promise<Perplexity> {
  const { tokenizer, maxLength } = scorer;
  if (window > maxLength)
    throw new ArgumentError(`a window of ${window} tokens is too long: the model reads ${maxLength}`);
  const tokens = typeof text === "string" ? tokenizer.encode(text, { addSpecialTokens: false }) : text;
  const content = typeof text === "string" ? text : tokenizer.decode(text);
  const sequences = stridedWindows(tokens, prefixToken(tokenizer), { window, stride });
  const scores = await scorer.score(sequences);
  const windows = scores.map(({ logProbs }) => ({ nats: -sum(logProbs), tokens: logProbs.length }));
  const nats = sum(windows.map((it) => it.nats));
  const count = sum(windows.map((it) => it.tokens));
  const bytes = new TextEncoder().encode(content).length;
  return {
    nats,
    tokens: count,
    bytes,
    words: content.split(/\s+/).length,
    perplexity: Math.exp(nats / count),
    bitsPerByte: nats / Math.LN2 / bytes,
    windows,
  };
}
