import { TaskError } from "../../errors.ts";
import { judgeBothOrders, type Rubric } from "../judge.ts";
import type { Reader } from "../reader.ts";
import type { KickItem, KickTask, TaskContext } from "../task.ts";

export interface InstructOptions {
  readonly name?: string;
  /** Tokens of an answer at most. Default 1024. */
  readonly maxTokens?: number;
}

const TEMPERATURE = 0.7;

const asks: Readonly<Record<"general" | "coding" | "math", string>> = {
  general:
    "You judge two answers of assistants to a user's question: how helpful, relevant, accurate, deep and detailed each is.",
  coding:
    "You judge two answers of assistants to a question about programming: whether each program is right, does all that was asked, runs efficiently and is explained well.",
  math: "You judge two answers of assistants to a question of mathematics or logic: work out the right answer first; what matters most is whether each result is right, and then whether its steps are.",
};

function rubricOf({ groups }: KickItem): Rubric {
  const category = groups?.["category"] ?? "";
  const kind = category === "coding" ? "coding" : /^(math|reasoning)$/.test(category) ? "math" : "general";
  return { text: asks[kind], dimensions: ["overall quality"] };
}

/**
 * Conversations of open questions (Jaiswal et al. 2024, section 3.3): a judge scores each answer from 1 to 10 beside a
 * reference, the item's own or the dense model's. `unique` counts the different tokens of an answer: a model that goes
 * round in circles has few.
 */
export function instruct(
  items: readonly KickItem[],
  { name = "instruct", maxTokens = 1024 }: InstructOptions = {},
): KickTask {
  return {
    name,
    metrics: ["score", "unique"],
    items,
    judged: true,
    settings: { temperature: TEMPERATURE, maxTokens },
    async run(reader, asked, context) {
      const results = [];
      for (const item of asked) {
        const answers = await converse(reader, item, maxTokens, context);
        const output = answers.map(({ text }) => text.trim()).join(TURN);
        const unique = answers.reduce((sum, { ids }) => sum + new Set(ids).size, 0) / answers.length;
        results.push({ values: { score: await scored(name, item, output, context), unique }, output });
      }
      return results;
    },
  };
}

/** Between the answers of a conversation. */
const TURN = "\n\n[next answer]\n";

/** The answers to an item's turns, each behind the conversation so far as far as there is room for it. */
async function converse(reader: Reader, { question, further = [] }: KickItem, maxTokens: number, context: TaskContext) {
  const { seed, signal } = context;
  const messages: { role: string; content: string }[] = [];
  const answers = [];
  for (const turn of [question, ...further]) {
    messages.push({ role: "user", content: turn });
    const room = reader.maxLength - Math.min(maxTokens, reader.maxLength >> 1);
    let ids = reader.chat(messages);
    for (let dropped = 2; ids.length > room && dropped < messages.length; dropped += 2)
      ids = reader.chat(messages.slice(dropped));
    const [answer] = await reader.answer([ids.slice(-room)], { maxTokens, temperature: TEMPERATURE, seed, signal });
    answers.push(answer!);
    messages.push({ role: "assistant", content: answer!.text });
  }
  return answers;
}

async function scored(name: string, item: KickItem, output: string, context: TaskContext): Promise<number | null> {
  const { judging, dense } = context;
  if (!judging) throw new TaskError(`the task ${name} is judged; name a judge with --judge`);
  if (output.replaceAll(TURN, "").trim() === "") return 0;
  const question = [item.question, ...(item.further ?? [])].join("\n\n[next question]\n");
  const reference = item.references?.join(TURN) ?? dense?.(item.id) ?? output;
  const scores = await judgeBothOrders(judging, question, output, reference, rubricOf(item));
  return scores && scores.answer[0]!;
}
