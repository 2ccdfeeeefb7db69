import { matchAnswer } from "../answers.ts";
import { filled, fitted } from "../prompts.ts";
import type { KickItem, KickTask } from "../task.ts";

export interface RetrievalOptions {
  readonly name?: string;
  /** `{question}` and, of the open book, `{evidence}`. */
  readonly prompt?: string;
  /** Default 32. */
  readonly maxTokens?: number;
}

/** Characters of a text that is put before a question. */
const EVIDENCE = 3072;

/** Questions without the text that holds the answer (Jaiswal et al. 2024, section 3.2). */
export function closedBook(items: readonly KickItem[], options: RetrievalOptions = {}): KickTask {
  return retrieval(items, "icrqa-closed", "Answer these questions:\n\nQ: {question}\nA:", options);
}

/**
 * Questions behind the text that holds the answer: whether a model can still use what stands before it. What is too long
 * for the model loses the end of the text.
 */
export function openBook(items: readonly KickItem[], options: RetrievalOptions = {}): KickTask {
  const prompt = "{evidence}\nBased on these texts, answer these questions:\n\nQ: {question}\nA:";
  return retrieval(items, "icrqa-open", prompt, options);
}

function retrieval(
  items: readonly KickItem[],
  own: string,
  usual: string,
  { name = own, prompt = usual, maxTokens = 32 }: RetrievalOptions,
): KickTask {
  return {
    name,
    metrics: ["match", "equal", "f1"],
    items,
    settings: { prompt, maxTokens, evidence: EVIDENCE },
    async run(reader, asked, { signal }) {
      const prompts = asked.map(({ question, context = "" }) =>
        fitted(reader, context.slice(0, EVIDENCE), (evidence) => filled(prompt, { question, evidence }), maxTokens),
      );
      const answers = await reader.answer(prompts, { maxTokens, stop: [], signal });
      return answers.map(({ text }, i) => {
        const line = firstLine(text);
        const { contains, equal, f1 } = matchAnswer(line, asked[i]!.answers);
        return { values: { match: Number(contains), equal: Number(equal), f1 }, output: line };
      });
    },
  };
}

/** The first line of an answer that has text. */
function firstLine(text: string): string {
  return text.trimStart().split("\n", 1)[0]!.trim();
}
