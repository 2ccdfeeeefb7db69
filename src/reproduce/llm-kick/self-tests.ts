import { type KickTask, type Reader, scoreOf, type TaskScore } from "../../evaluate/index.ts";
import type { Rng } from "../../tensor/index.ts";

/** What tasks say of models whose scores are known beforehand. */
export interface SelfTests {
  /** Least score of a model that gives the right answer to everything. */
  readonly oracle: number;
  /** Largest score of a model that says nothing. */
  readonly silent: number;
  /** Of a model that draws letters. */
  readonly guesser: TaskScore;
}

/** Puts three models of known skill to the tasks. */
export async function selfTests(
  tasks: readonly KickTask[],
  tokenizer: Reader["tokenizer"],
  rng: Rng,
): Promise<SelfTests> {
  const scores = async (reader: (task: KickTask) => Reader, task: KickTask): Promise<TaskScore> => {
    const results = await task.run(reader(task), task.items, { seed: 0 });
    return scoreOf(task.items, results, task.metrics[0]!);
  };
  const saying = (answers: (count: number) => readonly string[]): Reader => ({
    tokenizer,
    maxLength: 256,
    answer: async (prompts) => answers(prompts.length).map((text) => ({ text, ids: [] })),
    chat: () => [],
    weigh: async (prompts, continuations) => prompts.map(() => continuations.map(() => 0)),
  });
  const oracle = await Promise.all(
    tasks.map((task) =>
      scores(
        () =>
          saying(() =>
            task.items.map(({ answers, choices }) =>
              choices ? "ABCD"[choices.findIndex((choice) => answers.includes(choice))]! : answers[0]!,
            ),
          ),
        task,
      ),
    ),
  );
  const silent = await Promise.all(
    tasks.map((task) => scores(() => saying((n) => Array.from({ length: n }, () => "")), task)),
  );
  const chosen = tasks.find(({ name }) => name === "mcq")!;
  const guessing = saying((n) => Array.from({ length: n }, () => "ABCD"[rng.integer(4)]!));
  return {
    oracle: Math.min(...oracle.map(({ value }) => value!)),
    silent: Math.max(...silent.map(({ value }) => value!)),
    guesser: await scores(() => guessing, chosen),
  };
}
