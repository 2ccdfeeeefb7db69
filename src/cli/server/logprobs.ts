import type { Tokenizer } from "../../formats/index.ts";
import type { GeneratedToken } from "../../generate/index.ts";

interface NamedLogprob {
  readonly token: string;
  readonly logprob: number;
  /** UTF-8; null for a token that is a part of a character only. */
  readonly bytes: readonly number[] | null;
}

/** Log-probabilities of one token, with its rivals', in the terms of /v1/chat/completions. */
export interface ChatLogprob extends NamedLogprob {
  readonly top_logprobs: readonly NamedLogprob[];
}

/** Those of several tokens in the terms of /v1/completions. */
export interface CompletionLogprobs {
  readonly tokens: string[];
  readonly token_logprobs: number[];
  readonly top_logprobs: Record<string, number>[] | null;
  /** Where each token begins in the text, in UTF-16 units. */
  readonly text_offset: number[];
}

/** A token's log-probability and its rivals' with their texts. */
export function chatLogprob(tokenizer: Tokenizer, { token, logprob, topLogprobs = [] }: GeneratedToken): ChatLogprob {
  const top = topLogprobs.map((rival) => named(tokenizer, rival.token, rival.logprob));
  return { ...named(tokenizer, token, logprob!), top_logprobs: top };
}

/** @param offset length of the text before the first token */
export function completionLogprobs(
  entries: readonly ChatLogprob[],
  rivals: number,
  offset: number,
): CompletionLogprobs {
  let at = offset;
  return {
    tokens: entries.map(({ token }) => token),
    token_logprobs: entries.map(({ logprob }) => logprob),
    top_logprobs:
      rivals === 0
        ? null
        : entries.map((entry) => Object.fromEntries(entry.top_logprobs.map(({ token, logprob }) => [token, logprob]))),
    text_offset: entries.map(({ token }) => {
      at += token.length;
      return at - token.length;
    }),
  };
}

function named(tokenizer: Tokenizer, id: number, logprob: number): NamedLogprob {
  const text = textOf(tokenizer, id);
  // What is not whole characters is told apart by how the vocabulary spells it.
  if (text.includes("\uFFFD")) return { token: tokenizer.idToToken(id) ?? `<${id}>`, logprob, bytes: null };
  return { token: text, logprob, bytes: [...new TextEncoder().encode(text)] };
}

/** A token's text inside of a text, where spaces that begin it count. */
function textOf(tokenizer: Tokenizer, id: number): string {
  const before = tokenizer.decode([id]);
  const both = tokenizer.decode([id, id]);
  return both.slice(before.length);
}
