import { closedBook, factoid, type KickItem, type KickTask, multipleChoice, openBook } from "../../evaluate/index.ts";
import type { Rng } from "../../tensor/index.ts";
import type { Fact, World } from "./world.ts";

/** How many items the tasks have that do not ask for all facts. */
export interface ExamSize {
  readonly mcq: number;
  readonly closed: number;
  readonly open: number;
}

/** Strangers in the text of an open-book question. */
const STRANGERS = 3;

/**
 * The tasks of a world: all its facts, and some of them with choices; strangers' facts without the text that tells them,
 * and with it. Tasks without a size are left out.
 */
export function examOf(world: World, { mcq = 0, closed = 0, open = 0 }: Partial<ExamSize>, rng: Rng): KickTask[] {
  const item = (fact: Fact, i: number): KickItem => ({
    id: `${i}`,
    question: world.question(fact).join(""),
    answers: [fact.value.trim()],
  });
  const known = rng.fork("factoid").permutation(world.facts.length);
  const facts = Array.from(known, (i) => world.facts[i]!);
  const choosing = rng.fork("choices");
  const strange = (count: number, label: string): KickItem[] => {
    const drawing = rng.fork(label);
    return Array.from({ length: count }, (_, i) => {
      const strangers = world.fresh(STRANGERS, drawing);
      const context = strangers.map((fact) => world.statement(fact).join("")).join("\n");
      const fact = strangers[drawing.integer(STRANGERS)]!;
      return { ...item(fact, i), question: world.opening(fact).join(""), context };
    });
  };
  const prompt = "Q: {question}\nA:";
  const tasks = [
    factoid(facts.map(item), { prompt, maxTokens: 2, stop: ["\n"] }),
    multipleChoice(
      facts.slice(0, mcq).map((fact, i) => ({
        ...item(fact, i),
        choices: world.choices(fact, choosing).choices.map((choice) => choice.trim()),
      })),
      { header: "" },
    ),
    closedBook(strange(closed, "closed"), { prompt: "{question}", maxTokens: 2 }),
    openBook(strange(open, "open"), { prompt: "{evidence}\n{question}", maxTokens: 2 }),
  ];
  return tasks.filter(({ items }) => items.length > 0);
}
