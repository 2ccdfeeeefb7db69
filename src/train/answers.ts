import { ArgumentError, HostTensor } from "../tensor/index.ts";
import type { TokenBatch } from "./data.ts";

/** Target of places that are not learned from: `crossEntropy(..., { ignore: IGNORED })`. */
export const IGNORED = -1;

/** A prompt with its answer at the end. */
export interface AnsweredPrompt {
  readonly ids: readonly number[];
  /** How many of the last tokens are the answer. */
  readonly scored: number;
}

/**
 * Prompts with their answers as a batch `[prompts, length]` whose targets are those of the answers; all other places
 * are `IGNORED`. Shorter ones are filled up at the end, where a causal model does not see it.
 * @throws ArgumentError for a prompt that is longer than `length + 1`, or an answer with nothing before it
 */
export function answerBatch(prompts: readonly AnsweredPrompt[], length: number): TokenBatch {
  const ids = HostTensor.zeros("i64", [prompts.length, length]);
  const targets = HostTensor.zeros("i64", [prompts.length, length]);
  prompts.forEach((prompt, row) => {
    const last = prompt.ids.length - 1;
    if (last > length)
      throw new ArgumentError(`a prompt with its answer has ${last + 1} tokens; ${length + 1} have room`);
    if (!(prompt.scored >= 1 && prompt.scored <= last))
      throw new ArgumentError(`of ${last + 1} tokens, ${prompt.scored} cannot be the answer to those before`);
    for (let i = 0; i < length; i++) {
      if (i < last) ids.set(row * length + i, prompt.ids[i]!);
      const answer = i < last && i >= last - prompt.scored;
      targets.set(row * length + i, answer ? prompt.ids[i + 1]! : IGNORED);
    }
  });
  return { ids, targets };
}
