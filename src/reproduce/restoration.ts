import { decoderLogits, type Weights } from "../models/index.ts";
import { crossEntropy } from "../nn/index.ts";
import { compile } from "../runtime/index.ts";
import { argMax, cast, equal, notEqual, sum } from "../tensor/index.ts";
import { type AnsweredPrompt, answerBatch, type Example, IGNORED } from "../train/index.ts";
import type { LanguageModel } from "./workbench.ts";

/** Tokens of a row: a sentence without its form, and the sentence. */
export const ROW = 80;

/**
 * A task for a model of stories: a sentence in lower case without punctuation is given, and the sentence as it was
 * written is asked for. From text in the model's own tokens.
 */
export function restorations({ tokenizer }: LanguageModel, tokens: readonly number[]): AnsweredPrompt[] {
  const end = tokenizer.bosId!;
  const encode = (text: string): number[] => tokenizer.encode(text, { addSpecialTokens: false });
  const text = tokenizer.decode(tokens, { skipSpecialTokens: true });
  return [...text.matchAll(/[A-Z][^.!?"\n]{12,80}[.!?]/g)].flatMap(([sentence]) => {
    const bare = sentence.toLowerCase().replace(/[^a-z0-9 ]/g, "");
    const answer = [...encode(sentence), end];
    const ids = [end, ...encode(`${bare}\n`), ...answer];
    return ids.length <= ROW + 1 ? [{ ids, scored: answer.length }] : [];
  });
}

/** Prompts as what `ExampleBatches` learns from. */
export function lessons(prompts: readonly AnsweredPrompt[]): Example[] {
  return prompts.map(({ ids, scored }) => ({ ids, learned: ids.map((_, i) => i >= ids.length - scored) }));
}

export interface TaskScore {
  /** Nats a token of responses. */
  readonly loss: number;
  /** Share of these tokens that are predicted right behind the right ones before. */
  readonly accuracy: number;
}

/** How well a model answers prompts. */
export async function taskScore(
  { config, weights }: Pick<LanguageModel, "config"> & { readonly weights: Weights },
  prompts: readonly AnsweredPrompt[],
): Promise<TaskScore> {
  const { ids, targets } = answerBatch(prompts, ROW);
  await using program = await compile(
    (x, y) => {
      const logits = decoderLogits(config, weights, x);
      const right = sum(cast(equal(argMax(logits, -1), y), "f32"));
      return {
        loss: crossEntropy(logits, y, { ignore: IGNORED }),
        right,
        count: sum(cast(notEqual(y, IGNORED), "f32")),
      };
    },
    [ids, targets],
  );
  const { loss, right, count } = await program(ids, targets);
  return { loss: loss.item(), accuracy: right.item() / count.item() };
}
