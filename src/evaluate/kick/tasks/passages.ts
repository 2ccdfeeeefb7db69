import { TaskError } from "../../errors.ts";
import { continuationRows } from "../../tasks/continuations.ts";
import { normalizeAnswer } from "../answers.ts";
import type { KickItem, KickTask } from "../task.ts";

/** Words before the one that is asked for, at least and at most. */
const [FEWEST, MOST] = [40, 70] as const;

/**
 * Places in texts where a word is left out behind a passage: words that the passage has had before, which are there to be
 * found, and others, which the model must know to come (after LAMBADA, Paperno et al. 2016). Each passage gives one of
 * each kind at most. Same texts, same items.
 */
export function wordItems(documents: readonly string[]): { readonly seen: KickItem[]; readonly unseen: KickItem[] } {
  const [seen, unseen]: [KickItem[], KickItem[]] = [[], []];
  for (const text of documents) {
    const words = text.split(/\s+/).filter((word) => word !== "");
    for (let start = 0; start + MOST < words.length; start += MOST) {
      const found = [false, false];
      for (let at = start + FEWEST; at < start + MOST; at++) {
        const word = normalizeAnswer(words[at]!);
        if (!/^[a-z]{4,}$/.test(word)) continue;
        const before = words.slice(start, at);
        const repeated = before.some((other) => normalizeAnswer(other) === word);
        if (found[Number(repeated)]) continue;
        found[Number(repeated)] = true;
        const list = repeated ? seen : unseen;
        list.push({ id: `${list.length}`, question: before.join(" "), answers: [word] });
      }
    }
  }
  return { seen, unseen };
}

/** Tokens of a word, and of what shows that it has ended. */
const WORD = 8;

/** Whether the next word of a passage is the right one, taking the best token each time. */
export function nextWord(
  items: readonly KickItem[],
  { name = "next-word" }: { readonly name?: string } = {},
): KickTask {
  return {
    name,
    metrics: ["hit"],
    items,
    settings: { maxTokens: WORD },
    async run(reader, asked, { signal }) {
      const prompts = asked.map(({ question }) => question);
      const answers = await reader.answer(prompts, { maxTokens: WORD, signal });
      return answers.map(({ text }, i) => {
        const output = normalizeAnswer(text.trim().split(/\s+/, 1)[0]!);
        return { values: { hit: Number(asked[i]!.answers.includes(output)) }, output };
      });
    },
  };
}

/** Passages with four ways to go on, of which one is the text's own. @throws TaskError when the texts are too short */
export function continuationItems(documents: readonly string[]): KickItem[] {
  return continuationRows(documents, { contextWords: 40, words: 12, choices: 4 }).map((row, i) => {
    const { context, choices, answer } = row as { context: string; choices: string[]; answer: number };
    return { id: `${i}`, question: context, choices, answers: [choices[answer]!] };
  });
}

/** Whether the true continuation is the most likely one. */
export function likeliestContinuation(
  items: readonly KickItem[],
  { name = "continuations" }: { readonly name?: string } = {},
): KickTask {
  return {
    name,
    metrics: ["likeliest"],
    items,
    settings: null,
    async run(reader, asked) {
      const results = [];
      for (const { id, question, choices, answers } of asked) {
        if (!choices) throw new TaskError(`${name}: the item ${id} has no choices`);
        const [weights] = await reader.weigh(
          [question],
          choices.map((choice) => ` ${choice}`),
        );
        const output = choices[weights!.indexOf(Math.max(...weights!))]!;
        results.push({ values: { likeliest: Number(answers.includes(output)) }, output });
      }
      return results;
    },
  };
}
