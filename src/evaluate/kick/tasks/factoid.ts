import { mentions } from "../answers.ts";
import { filled, fitted, tokensOf } from "../prompts.ts";
import type { KickItem, KickTask } from "../task.ts";

export interface FactoidOptions {
  readonly name?: string;
  /** `{question}` stands for the question. */
  readonly prompt?: string;
  /** Tokens of an answer at most; default twice those of its prompt. */
  readonly maxTokens?: number;
  readonly stop?: readonly string[];
}

/**
 * Questions about facts, from what the model knows (Jaiswal et al. 2024, section 3.1): a hit is an answer that mentions a
 * right one, case and spaces aside. Only what was generated counts, not the prompt.
 */
export function factoid(items: readonly KickItem[], options: FactoidOptions = {}): KickTask {
  const {
    name = "factoid",
    prompt = "Please give answer to this question: {question}\nThe answer is ",
    maxTokens,
    stop = [],
  } = options;
  return {
    name,
    metrics: ["hit"],
    items,
    settings: { prompt, maxTokens: maxTokens ?? null, stop },
    async run(reader, asked, { signal }) {
      const prompts = asked.map(({ question }) =>
        fitted(reader, "", () => filled(prompt, { question }), maxTokens ?? 1),
      );
      const limits = prompts.map((text) => maxTokens ?? 2 * tokensOf(reader, text));
      const answers = await reader.answer(prompts, { maxTokens: limits, stop, signal });
      return answers.map(({ text }, i) => ({
        values: { hit: Number(mentions(text, asked[i]!.answers)) },
        output: text,
      }));
    },
  };
}
