import { ArgumentError } from "../tensor/index.ts";
import {
  Continuation,
  type GeneratedToken,
  type GenerateOptions,
  type Generation,
  type GenerationTokenizer,
} from "./continuation.ts";
import { unlessAborted } from "./generate.ts";
import type { DecoderSession } from "./session.ts";

/** A prompt with what is wanted of it. */
export interface BatchRequest extends GenerateOptions {
  /** Text, or ids as they are. */
  readonly prompt: string | readonly number[];
  /** Continuations to draw, sample `i` with the seed plus `i`. Default 1. */
  readonly samples?: number;
}

export interface BatchOptions {
  /** Texts that are decoded together at most; the others wait until one has ended. Default 16. */
  readonly texts?: number;
}

/** A token of one of the texts. */
export interface BatchToken extends GeneratedToken {
  /** Index of the request. */
  readonly request: number;
  /** Index of the sample among the request's. */
  readonly sample: number;
}

interface Text {
  readonly request: number;
  readonly sample: number;
  readonly continuation: Continuation;
}

/**
 * Continues many prompts, several at a time, each as `generate` would alone. Samples of one prompt, and prompts that
 * begin alike, share what is read of them; a text that has ended makes room for the next. An iterator of all texts'
 * tokens as they come, whose return value has the samples of each request. The session reads the prompts and must not
 * be used for anything else until the iterator has ended.
 * @throws as `generate`
 */
export function generateBatch(
  session: DecoderSession,
  tokenizer: GenerationTokenizer,
  requests: readonly BatchRequest[],
  { texts = 16 }: BatchOptions = {},
): AsyncGenerator<BatchToken, Generation[][], undefined> {
  if (!Number.isInteger(texts) || texts < 1)
    throw new ArgumentError(`texts must be a whole number from 1, not ${texts}`);
  const all = requests.map(({ prompt, samples = 1, ...options }, request) => {
    if (!Number.isInteger(samples) || samples < 1)
      throw new ArgumentError(`samples must be a whole number from 1, not ${samples}`);
    const ids = typeof prompt === "string" ? tokenizer.encode(prompt) : prompt;
    return Array.from({ length: samples }, (_, sample): Text => {
      const seed = (options.seed ?? 0) + sample;
      return { request, sample, continuation: new Continuation(session.config, tokenizer, ids, { ...options, seed }) };
    });
  });
  return run(session, all, texts);
}

/** Generates all texts at once; parameters and errors are those of `generateBatch`. */
export async function completeBatch(...args: Parameters<typeof generateBatch>): Promise<Generation[][]> {
  const tokens = generateBatch(...args);
  for (;;) {
    const { done, value } = await tokens.next();
    if (done) return value;
  }
}

async function* run(
  session: DecoderSession,
  all: readonly (readonly Text[])[],
  limit: number,
): AsyncGenerator<BatchToken, Generation[][], undefined> {
  const batch = session.batch();
  const waiting = all.flat();
  const running: Text[] = [];
  const leave = (i: number): Text => {
    batch.remove(i);
    const text = running[i]!;
    running[i] = running.at(-1)!;
    running.pop();
    return text;
  };
  while (waiting.length + running.length > 0) {
    while (running.length < limit && waiting.length > 0) {
      const text = waiting.shift()!;
      const logits = await unlessAborted(text.continuation, (options) => session.read(text.continuation.ids, options));
      if (!logits) continue;
      const token = named(text, logits);
      if (!text.continuation.ended) {
        batch.add();
        running.push(text);
      }
      yield token;
    }
    for (let i = running.length - 1; i >= 0; i--) {
      if (running[i]!.continuation.aborted) leave(i);
      // A text whose context is full goes on, if it may, from what is left of it when it has slid.
      else if (batch.lengths[i] === session.config.maxPositions) waiting.unshift(leave(i));
    }
    if (running.length === 0) continue;
    const logits = await batch.advance(running.map(({ continuation }) => continuation.last));
    const tokens = running.map((text, i) => named(text, logits[i]!));
    for (let i = running.length - 1; i >= 0; i--) if (running[i]!.continuation.ended) leave(i);
    yield* tokens;
  }
  return all.map((samples) => samples.map(({ continuation }) => continuation.result()));
}

const named = ({ request, sample, continuation }: Text, logits: Float32Array): BatchToken => ({
  request,
  sample,
  ...continuation.next(logits),
});
