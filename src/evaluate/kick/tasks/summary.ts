import { TaskError } from "../../errors.ts";
import { judgeBothOrders, type Rubric } from "../judge.ts";
import { fitted } from "../prompts.ts";
import type { KickItem, KickTask, TaskContext } from "../task.ts";

export interface SummaryOptions {
  readonly name?: string;
  /** Default 1024. */
  readonly maxTokens?: number;
}

const INSTRUCTION =
  "Summarize the given story in less than 150 words while preserving high coherence, consistency, fluency, and relevance.";
const TEMPERATURE = 0.7;
const DIMENSIONS = ["coherence", "consistency", "fluency", "relevance"] as const;

const rubric: Rubric = {
  text: "You compare two summaries of a story, strictly and without regard to who wrote them. Coherence: the sentences make one whole. Consistency: nothing is said that the story does not say. Fluency: the language is right and easy to read. Relevance: what matters in the story is there, and nothing else.",
  dimensions: DIMENSIONS,
};

/** Length of a story by its words, as the paper parts them. */
export function storySize(story: string): "small" | "medium" | "large" {
  const words = story.split(/\s+/).filter(Boolean).length;
  return words <= 470 ? "small" : words < 790 ? "medium" : "large";
}

/**
 * Summaries of stories that a judge compares with a reference's (Jaiswal et al. 2024, section 3.2). The score is the mean
 * over coherence, consistency, fluency and relevance of the summary's score over the reference's; the reference is the
 * item's own or the dense model's summary.
 */
export function summary(
  items: readonly KickItem[],
  { name = "summary", maxTokens = 1024 }: SummaryOptions = {},
): KickTask {
  return {
    name,
    metrics: ["ratio", ...DIMENSIONS],
    items,
    judged: true,
    settings: { instruction: INSTRUCTION, temperature: TEMPERATURE, maxTokens },
    async run(reader, asked, context) {
      const prompts = asked.map(({ context: story = "" }) =>
        fitted(reader, story, (text) => `${INSTRUCTION}\n\n${text}\n\nSummary:`, maxTokens),
      );
      const { seed, signal } = context;
      const answers = await reader.answer(prompts, { maxTokens, temperature: TEMPERATURE, seed, signal });
      const results = [];
      for (const [i, item] of asked.entries()) {
        const output = answers[i]!.text.trim();
        const ratios = await ratiosOf(name, item, output, context);
        const mean = ratios && ratios.reduce((a, b) => a + b) / ratios.length;
        const values = Object.fromEntries(DIMENSIONS.map((dimension, k) => [dimension, ratios ? ratios[k]! : null]));
        results.push({ values: { ratio: mean, ...values }, output });
      }
      return results;
    },
  };
}

async function ratiosOf(name: string, item: KickItem, output: string, context: TaskContext): Promise<number[] | null> {
  const { judging, dense } = context;
  if (!judging) throw new TaskError(`the task ${name} is judged; name a judge with --judge`);
  // No judge is needed to see that there is no summary.
  if (output === "") return DIMENSIONS.map(() => 0);
  const reference = item.references?.[0] ?? dense?.(item.id) ?? output;
  const scores = await judgeBothOrders(judging, `${INSTRUCTION}\n\n${item.context ?? ""}`, output, reference, rubric);
  return scores ? scores.answer.map((score, k) => score / scores.other[k]!) : null;
}
