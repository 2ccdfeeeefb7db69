import { candidatesOf, logProbability, topK } from "./candidates.ts";

/** A token with the natural logarithm of its probability. */
export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
}

/** The `count` most probable tokens of `logits [vocab]`, best first; fewer where the model rules the others out. */
export function topLogprobs(logits: Float32Array, count: number): TokenLogprob[] {
  const { tokens, scores } = topK(candidatesOf(logits), count);
  const ranked = Array.from(tokens, (token, i) => ({ token, score: scores[i]! })).sort((a, b) => b.score - a.score);
  const { token: first, score: best } = ranked[0]!;
  const logprob = logProbability(logits, first);
  return ranked.map(({ token, score }) => ({ token, logprob: logprob + score - best }));
}
