import {
  type GuardCodec,
  type GuardExample,
  type GuardModel,
  guardScores,
  median,
  predictAnswers,
} from "../../methods/index.ts";
import type { AnsweredPrompt } from "../../train/index.ts";

/** A guard with what is added to its logit of "unsafe" where it decides. */
export interface Judge {
  readonly guard: GuardModel;
  readonly offset: number;
}

/**
 * A guard whose threshold is set so that it calls half of some passages unsafe, as half of them are: what has learned
 * for a short time leans to one of the verdicts wherever it knows nothing, to which of them is chance.
 */
export async function balancedJudge(
  guard: GuardModel,
  codec: GuardCodec,
  passages: readonly GuardExample[],
): Promise<Judge> {
  const scores = await guardScores(guard, codec, passages);
  return { guard, offset: -median(scores.map(margin))! };
}

/** Probabilities of "unsafe" for `passages` from a guard whose threshold is set on others. */
export async function balancedScores(
  guard: GuardModel,
  codec: GuardCodec,
  others: readonly GuardExample[],
  passages: readonly GuardExample[],
): Promise<number[]> {
  const margins = (await guardScores(guard, codec, [...others, ...passages])).map(margin);
  const threshold = median(margins.slice(0, others.length))!;
  return margins.slice(others.length).map((value) => 1 / (1 + Math.exp(threshold - value)));
}

const margin = (score: number): number => Math.log(score / (1 - score));

/** What a judge predicts for the tokens of verdicts, by prompt: logits `[scored, vocab]`. */
export async function judgement(
  { guard, offset }: Judge,
  codec: GuardCodec,
  prompts: readonly AnsweredPrompt[],
): Promise<Float32Array[]> {
  const predicted = await predictAnswers(guard, prompts);
  for (const logits of predicted) logits[codec.first.unsafe]! += offset;
  return predicted;
}
