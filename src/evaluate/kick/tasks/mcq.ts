import { TaskError } from "../../errors.ts";
import { tokensOf } from "../prompts.ts";
import type { KickItem, KickTask } from "../task.ts";

export interface McqOptions {
  readonly name?: string;
  /** Solved examples, used for questions of their own group. */
  readonly shots?: readonly KickItem[];
  /** Most shots of a prompt. Default 5. */
  readonly count?: number;
  /** Tokens of a prompt at most; default 2048. Shots that do not fit are left out. */
  readonly promptTokens?: number;
  /** What stands above the examples; `{subject}` is the questions' subject. */
  readonly header?: string;
}

export const LETTERS = ["A", "B", "C", "D", "E", "F", "G", "H"] as const;

/**
 * Multiple choice as MMLU has it (Hendrycks et al. 2021), scored in two ways: `letter`, whether the token that the model
 * writes is the right letter, and `argmax`, whether the right letter is the most likely of the letters.
 * @throws TaskError for an item whose answer is none of its choices
 */
export function multipleChoice(items: readonly KickItem[], options: McqOptions = {}): KickTask {
  const {
    name = "mcq",
    shots = [],
    count = 5,
    promptTokens = 2048,
    header = "The following are multiple choice questions (with answers) about {subject}.\n\n",
  } = options;
  for (const item of [...items, ...shots]) rightLetter(item);
  const about = (item: KickItem): string =>
    header.replace("{subject}", item.groups?.["subject"] ?? "general knowledge");
  const solved = (item: KickItem): string => `${unsolved(item)} ${rightLetter(item)}\n\n`;
  return {
    name,
    metrics: ["letter", "argmax"],
    items,
    settings: { shots: shots.map(({ id }) => id), count, promptTokens, header },
    async run(reader, asked, { signal }) {
      const room = Math.min(promptTokens, reader.maxLength - 1);
      const prompts = asked.map((item) => {
        const own = shots.filter(({ groups }) => groups?.["subject"] === item.groups?.["subject"]).slice(0, count);
        for (let kept = own.length; ; kept--) {
          const prompt = about(item) + own.slice(0, kept).map(solved).join("") + unsolved(item);
          if (tokensOf(reader, prompt) <= room) return prompt;
          if (kept === 0)
            throw new TaskError(`${name}: the question ${item.id} alone is longer than the ${room} tokens of a prompt`);
        }
      });
      const written = await reader.answer(prompts, { maxTokens: 1, signal });
      const most = Math.max(...asked.map(({ choices }) => choices!.length));
      const weights = await reader.weigh(
        prompts,
        LETTERS.slice(0, most).map((letter) => ` ${letter}`),
      );
      return asked.map((item, i) => {
        const own = weights[i]!.slice(0, item.choices!.length);
        const likeliest = LETTERS[own.indexOf(Math.max(...own))];
        const output = written[i]!.text.trim();
        const right = rightLetter(item);
        return { values: { letter: Number(output === right), argmax: Number(likeliest === right) }, output };
      });
    },
  };
}

function unsolved({ question, choices = [] }: KickItem): string {
  return [question, ...choices.map((choice, i) => `${LETTERS[i]}. ${choice}`), "Answer:"].join("\n");
}

function rightLetter({ id, choices = [], answers }: KickItem): string {
  if (choices.length < 2 || choices.length > LETTERS.length)
    throw new TaskError(
      `the question ${id} has ${choices.length} choices; multiple choice takes 2 to ${LETTERS.length}`,
    );
  const at = choices.findIndex((choice) => answers.includes(choice));
  if (at < 0) throw new TaskError(`the question ${id}: none of its choices is its answer ${JSON.stringify(answers)}`);
  return LETTERS[at]!;
}
