import { TaskError } from "./errors.ts";
import { encodePrompt, prefixToken, type ScoredSequence, type Scorer, type ScoringTokenizer } from "./scorer.ts";

export interface LikelihoodRequest {
  readonly context: string;
  readonly continuation: string;
}

export interface Likelihood {
  /** Natural logarithm of the probability of the continuation given the context. */
  readonly logLikelihood: number;
  /** Whether the model would continue the context just so when it always takes the best token. */
  readonly greedy: boolean;
  /** Whether the context was too long and lost its beginning. */
  readonly truncated: boolean;
}

/**
 * Log-likelihoods of continuations given contexts, in nats. As in lm-evaluation-harness, spaces at the end of a context
 * count to the continuation, the two are encoded together and cut where the context alone would end, and what is too
 * long loses its beginning.
 * @throws TaskError for a continuation that alone is longer than the model reads
 */
export async function logLikelihoods(scorer: Scorer, requests: readonly LikelihoodRequest[]): Promise<Likelihood[]> {
  const { maxLength, tokenizer } = scorer;
  const whole = requests.map((request) => sequenceOf(tokenizer, request));
  const sequences = whole.map(({ ids, scored }, i) => {
    if (scored > maxLength) {
      const start = JSON.stringify(requests[i]!.continuation.slice(0, 40));
      throw new TaskError(`the continuation ${start}... has ${scored} tokens; the model reads ${maxLength} at most`);
    }
    return { ids: ids.slice(-(maxLength + 1)), scored };
  });
  return (await scorer.score(sequences)).map(({ logProbs, greedy }, i) => ({
    logLikelihood: sum(logProbs),
    greedy,
    truncated: sequences[i]!.ids.length < whole[i]!.ids.length,
  }));
}

function sequenceOf(tokenizer: ScoringTokenizer, { context, continuation }: LikelihoodRequest): ScoredSequence {
  const kept = context.trimEnd();
  const both = encodePrompt(tokenizer, context + continuation);
  const before = kept === "" ? encodePrompt(tokenizer, "") : encodePrompt(tokenizer, kept);
  const scored = Math.max(0, both.length - before.length);
  if (before.length > 0) return { ids: both, scored };
  const prefix = prefixToken(tokenizer);
  return prefix === undefined ? { ids: both, scored: Math.max(0, scored - 1) } : { ids: [prefix, ...both], scored };
}

/** The sum of many numbers in double precision. */
export function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
