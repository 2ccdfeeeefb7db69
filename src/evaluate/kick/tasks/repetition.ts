import type { KickItem, KickTask } from "../task.ts";

export interface RepetitionOptions {
  readonly name?: string;
  /** Tokens of a continuation. Default 64. */
  readonly maxTokens?: number;
}

/** How many different tokens a greedy continuation has: a model that goes round in circles has few. */
export function uniqueTokens(
  items: readonly KickItem[],
  { name = "unique-tokens", maxTokens = 64 }: RepetitionOptions = {},
): KickTask {
  return {
    name,
    metrics: ["unique"],
    items,
    settings: { maxTokens },
    async run(reader, asked, { signal }) {
      const prompts = asked.map(({ question }) => question);
      const answers = await reader.answer(prompts, { maxTokens, signal });
      return answers.map(({ text, ids }) => ({ values: { unique: new Set(ids).size }, output: text }));
    },
  };
}
