import { PareError } from "../../tensor/index.ts";

/** Judges two answers to a question. */
export interface Judge {
  readonly name: string;
  /**
   * Scores of both answers, from 1 to 10, one for each thing that the rubric asks about.
   * @throws JudgeReplyError for a reply without such scores
   */
  compare(question: string, a: string, b: string, rubric: Rubric): Promise<Verdict>;
}

/** What a judge is to look at. */
export interface Rubric {
  /** The judge's role and task. */
  readonly text: string;
  /** What is scored, in order: one line of a reply each. */
  readonly dimensions: readonly string[];
}

export interface Verdict {
  readonly a: readonly number[];
  readonly b: readonly number[];
  /** The reply as it came. */
  readonly raw: string;
}

/** One call of a judge, as it is logged. */
export interface JudgeCall {
  readonly judge: string;
  readonly question: string;
  /** Whether the answer that is judged stood first. */
  readonly first: boolean;
  readonly attempt: number;
  readonly raw: string;
  /** Null where the reply could not be read. */
  readonly verdict: Pick<Verdict, "a" | "b"> | null;
}

/** A judge, and where its calls are written down. */
export interface LoggedJudge {
  readonly judge: Judge;
  log(call: JudgeCall): void;
}

/** A judge's reply that holds no scores. */
export class JudgeReplyError extends PareError {
  override readonly code = "JUDGE_REPLY";
  readonly raw: string;

  constructor(raw: string, wanted: number) {
    super(
      `the judge's reply is not ${wanted} ${wanted === 1 ? "line" : "lines"} of two scores from 1 to 10: ${JSON.stringify(raw.slice(0, 200))}`,
    );
    this.raw = raw;
  }
}

/** Further attempts after a reply that cannot be read. */
const RETRIES = 2;

/**
 * Scores of an answer and of the one that it is compared with, averaged over both orders in which a judge may see them,
 * since judges prefer one place (Zheng et al. 2023). Null where replies in one of the orders could not be read, also not
 * after two more attempts.
 */
export async function judgeBothOrders(
  { judge, log }: LoggedJudge,
  question: string,
  answer: string,
  other: string,
  rubric: Rubric,
): Promise<{ readonly answer: readonly number[]; readonly other: readonly number[] } | null> {
  const ask = async (first: boolean): Promise<Verdict | null> => {
    const [a, b] = first ? [answer, other] : [other, answer];
    for (let attempt = 1; attempt <= 1 + RETRIES; attempt++) {
      const note = { judge: judge.name, question, first, attempt };
      try {
        const verdict = await judge.compare(question, a, b, rubric);
        log({ ...note, raw: verdict.raw, verdict: { a: verdict.a, b: verdict.b } });
        return verdict;
      } catch (error) {
        if (!(error instanceof JudgeReplyError)) throw error;
        log({ ...note, raw: error.raw, verdict: null });
      }
    }
    return null;
  };
  const [ahead, behind] = [await ask(true), await ask(false)];
  if (!ahead || !behind) return null;
  const mean = (x: readonly number[], y: readonly number[]): number[] => x.map((value, i) => (value + y[i]!) / 2);
  return { answer: mean(ahead.a, behind.b), other: mean(ahead.b, behind.a) };
}

/** A judge that is asked in words: what to do, the question, both answers, and how to reply. */
export function promptedJudge(name: string, ask: (prompt: string) => Promise<string>): Judge {
  return {
    name,
    async compare(question, a, b, rubric) {
      const raw = await ask(judgePrompt(question, a, b, rubric));
      return { ...readScores(raw, rubric.dimensions.length), raw };
    },
  };
}

function judgePrompt(question: string, a: string, b: string, { text, dimensions }: Rubric): string {
  const lines = dimensions.map((dimension, i) => `line ${i + 1}: ${dimension}`).join("; ");
  return [
    text,
    `[Question]\n${question}`,
    `[Answer of assistant 1]\n${a}\n[End of answer 1]`,
    `[Answer of assistant 2]\n${b}\n[End of answer 2]`,
    `Reply with ${dimensions.length === 1 ? "one line" : `${dimensions.length} lines`} and nothing else, each with two numbers from 1 to 10 and a space between them: the score of assistant 1, then that of assistant 2 (${lines}). The order of the answers must not matter.`,
  ].join("\n\n");
}

/** The scores of a reply. @throws JudgeReplyError */
export function readScores(raw: string, dimensions: number): Pick<Verdict, "a" | "b"> {
  const lines = [...raw.matchAll(/^[^\S\n]*(\d+(?:\.\d+)?)[ ,/\t]+(\d+(?:\.\d+)?)[^\S\n]*$/gm)];
  const scores = lines.map(([, a, b]) => [Number(a), Number(b)] as const);
  const fits = scores.length === dimensions && scores.flat().every((score) => score >= 1 && score <= 10);
  if (!fits) throw new JudgeReplyError(raw, dimensions);
  return { a: scores.map(([a]) => a), b: scores.map(([, b]) => b) };
}
