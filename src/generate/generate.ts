import type { Tokenizer } from "../formats/index.ts";
import { ArgumentError } from "../tensor/index.ts";
import { logProbability } from "./candidates.ts";
import { ContextError, GenerateError } from "./errors.ts";
import { Sampler, type SamplingOptions } from "./sampler.ts";
import type { DecoderSession } from "./session.ts";
import { StopFinder } from "./stop.ts";

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most; default as many as the context has room for. */
  readonly maxTokens?: number;
  /** Strings that end the text; they are not part of it. */
  readonly stop?: readonly string[];
  /** Tokens that end the text; default the one that the tokenizer names. */
  readonly eosIds?: readonly number[];
  /** Whether to give the log-probability of each token. */
  readonly logprobs?: boolean;
  /** Ends the generation early; what has been given stands. */
  readonly signal?: AbortSignal;
}

export interface GeneratedToken {
  readonly token: number;
  /** Text that is certain with this token: empty while a character or what may be a stop string is incomplete. */
  readonly text: string;
  /** Natural logarithm of the probability that the model itself, before any option, gave the token. */
  readonly logprob?: number;
}

export interface Generation {
  /** The pieces' texts put together. */
  readonly text: string;
  /** All tokens, the one that ended the text included. */
  readonly tokens: readonly number[];
  /** `stop`: a stop string or an end token came; `length`: `maxTokens` or the context is used up; `abort`: the signal. */
  readonly finishReason: "stop" | "length" | "abort";
  readonly usage: { readonly promptTokens: number; readonly generatedTokens: number };
}

/** What generation needs of a tokenizer. */
export type GenerationTokenizer = Pick<Tokenizer, "encode" | "decodeStream" | "eosId">;

/**
 * Continues a prompt, token by token: an iterator whose return value says why it ended. The session's former context
 * is forgotten; it must not be used for anything else until the iterator has ended.
 * @param prompt text, or ids as they are
 * @throws ArgumentError for an option outside of its range or an empty prompt; ContextError for a prompt longer than
 *   the model takes; while running, GenerateError when the session was used otherwise
 */
export function generate(
  session: DecoderSession,
  tokenizer: GenerationTokenizer,
  prompt: string | readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, Generation, undefined> {
  const { vocab, maxPositions } = session.config;
  const { maxTokens = Number.POSITIVE_INFINITY, stop = [] } = options;
  if (maxTokens !== Number.POSITIVE_INFINITY && !(Number.isInteger(maxTokens) && maxTokens >= 1))
    throw new ArgumentError(`maxTokens must be a whole number from 1, not ${maxTokens}`);
  const ids = typeof prompt === "string" ? tokenizer.encode(prompt) : [...prompt];
  if (ids.length === 0) throw new ArgumentError("the prompt is empty; a model needs at least one token to begin with");
  if (ids.length > maxPositions)
    throw new ContextError(`the prompt has ${ids.length} tokens, but the model takes ${maxPositions}; shorten it`);
  // The last token is drawn behind the last position and needs none itself.
  const limit = Math.min(maxTokens, maxPositions - ids.length + 1);
  const sampler = new Sampler(vocab, options, ids);
  return run({ session, tokenizer, ids, limit, sampler, finder: new StopFinder(stop), options });
}

/** Generates all of a text at once; parameters and errors are those of `generate`. */
export async function complete(...args: Parameters<typeof generate>): Promise<Generation> {
  const pieces = generate(...args);
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) return value;
  }
}

interface Job {
  readonly session: DecoderSession;
  readonly tokenizer: GenerationTokenizer;
  readonly ids: readonly number[];
  /** Tokens to generate at most. */
  readonly limit: number;
  readonly sampler: Sampler;
  readonly finder: StopFinder;
  readonly options: GenerateOptions;
}

async function* run(job: Job): AsyncGenerator<GeneratedToken, Generation, undefined> {
  const { session, tokenizer, ids, limit, sampler, finder, options } = job;
  const { signal, logprobs = false } = options;
  const ends = new Set(options.eosIds ?? (tokenizer.eosId === undefined ? [] : [tokenizer.eosId]));
  const stream = tokenizer.decodeStream({ skipSpecialTokens: true });
  // Spaces and characters may depend on the token before.
  for (const id of ids) stream.push(id);
  const tokens: number[] = [];
  let text = "";
  const ended = (finishReason: Generation["finishReason"]): Generation => {
    const usage = { promptTokens: ids.length, generatedTokens: tokens.length };
    return { text, tokens, finishReason, usage };
  };

  session.truncate(0);
  let next = ids;
  for (;;) {
    const logits = await advanced(session, next, signal);
    if (!logits) return ended("abort");
    const token = sampler.next(logits);
    tokens.push(token);
    const isEnd = ends.has(token);
    let { text: certain, stopped } = finder.push(isEnd ? "" : stream.push(token));
    const last = isEnd || stopped || tokens.length === limit;
    if (last && !stopped) {
      const tail = finder.push(stream.end());
      certain += tail.text + finder.end();
      stopped = tail.stopped;
    }
    text += certain;
    yield { token, text: certain, ...(logprobs && { logprob: logProbability(logits, token) }) };
    if (last) return ended(isEnd || stopped ? "stop" : "length");
    if (session.length !== ids.length + tokens.length - 1)
      throw new GenerateError("the session was used for something else while it generated; open one for each text");
    next = [token];
  }
}

/** Logits behind `ids`, or undefined when the signal came. */
async function advanced(
  session: DecoderSession,
  ids: readonly number[],
  signal: AbortSignal | undefined,
): Promise<Float32Array | undefined> {
  try {
    const logits = await session.advance(ids, { signal });
    return signal?.aborted ? undefined : logits;
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return undefined;
    throw error;
  }
}
