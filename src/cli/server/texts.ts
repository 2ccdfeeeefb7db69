import { type GeneratedToken, generate } from "../../generate/index.ts";
import type { TextModel } from "../model.ts";
import type { TextRequest } from "./text-request.ts";

/** A piece of one of the answers to a request. */
export interface Piece {
  /** Which answer: those to the first prompt come first. */
  readonly index: number;
  readonly text: string;
  /** The token that made the text; none for what is echoed, for an end token and for the piece that ends an answer. */
  readonly token?: GeneratedToken;
  /** Why the answer ended, with its last piece. */
  readonly finishReason: "stop" | "length" | null;
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

/**
 * Generates the answers to a request, one after the other. Each has a seed of its own, the first the request's.
 * @throws the signal's reason when it comes
 */
export async function* texts(
  { session, tokenizer, eosIds }: TextModel,
  { prompts, count, options }: TextRequest,
  signal: AbortSignal,
): AsyncGenerator<Piece, Usage, undefined> {
  const promptTokens = prompts.reduce((sum, { ids }) => sum + ids.length, 0);
  let generatedTokens = 0;
  for (const [p, { ids, echo }] of prompts.entries()) {
    for (let i = 0; i < count; i++) {
      const index = p * count + i;
      if (echo !== "") yield { index, text: echo, finishReason: null };
      const pieces = generate(session, tokenizer, ids, { ...options, seed: options.seed + i, signal });
      for (;;) {
        const { done, value } = await pieces.next();
        if (done) {
          if (value.finishReason === "abort") throw signal.reason;
          generatedTokens += value.tokens.length;
          yield { index, text: "", finishReason: value.finishReason };
          break;
        }
        const ends = eosIds.includes(value.token);
        yield { index, text: value.text, ...(!ends && { token: value }), finishReason: null };
      }
    }
  }
  return {
    prompt_tokens: promptTokens,
    completion_tokens: generatedTokens,
    total_tokens: promptTokens + generatedTokens,
  };
}
