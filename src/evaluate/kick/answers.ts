/**
 * An answer as TriviaQA compares it: lower case, underscores and punctuation as spaces, without articles, single spaces
 * (Joshi et al. 2017).
 */
export function normalizeAnswer(text: string): string {
  return text
    .toLowerCase()
    .replace(/[_\p{P}\p{S}]/gu, " ")
    .replace(/\b(a|an|the)\b/g, " ")
    .split(/\s+/)
    .filter((word) => word !== "")
    .join(" ");
}

/** How a predicted answer compares with the right ones, each number the best over these. */
export interface AnswerMatch {
  /** One of the two normalised texts is part of the other, and neither is empty. */
  readonly contains: boolean;
  /** They are equal. */
  readonly equal: boolean;
  readonly f1: number;
}

/** Compares an answer with the right ones after normalisation. An empty answer matches none. */
export function matchAnswer(prediction: string, golds: readonly string[]): AnswerMatch {
  const said = normalizeAnswer(prediction);
  const right = golds.map(normalizeAnswer).filter((gold) => gold !== "");
  if (said === "") return { contains: false, equal: false, f1: 0 };
  return {
    contains: right.some((gold) => said.includes(gold) || gold.includes(said)),
    equal: right.includes(said),
    f1: answerF1(prediction, golds),
  };
}

/** Overlap of an answer's words with those of a right one, as the harmonic mean of precision and recall; the best over all. */
export function answerF1(prediction: string, golds: readonly string[]): number {
  const said = wordsOf(prediction);
  return Math.max(0, ...golds.map((gold) => overlap(said, wordsOf(gold))));
}

const wordsOf = (text: string): string[] => normalizeAnswer(text).split(" ").filter(Boolean);

function overlap(said: readonly string[], right: readonly string[]): number {
  const left = new Map<string, number>();
  for (const word of right) left.set(word, (left.get(word) ?? 0) + 1);
  let common = 0;
  for (const word of said) {
    const count = left.get(word) ?? 0;
    if (count === 0) continue;
    left.set(word, count - 1);
    common++;
  }
  return common === 0 ? 0 : (2 * common) / (said.length + right.length);
}

/** Whether one of the right answers is part of what was generated, case and spaces aside. */
export function mentions(generated: string, golds: readonly string[]): boolean {
  const said = squeezed(generated);
  return golds.some((gold) => squeezed(gold) !== "" && said.includes(squeezed(gold)));
}

const squeezed = (text: string): string => text.toLowerCase().replace(/\s+/g, "");
