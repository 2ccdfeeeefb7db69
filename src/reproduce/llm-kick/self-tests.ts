import { type KickTask, type Reader, scoreOf, type TaskScore } from "../../evaluate/index.ts";
import type { Rng } from "../../tensor/index.ts";

/** What tasks say of models whose scores are known beforehand. */
export interface SelfTests {
  /** Least score of a model that gives the right answer to everything. */
  readonly oracle: number;
  /** Largest score of a model that says nothing. */
  readonly silent: number;
  /** Share of models that draw letters whose interval holds a quarter, which 95 % intervals do for 19 of 20. */
  readonly guessers: number;
}

/** Models that draw letters: one alone would be outside of its interval for one seed of 20. */
const GUESSERS = 400;

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
  let held = 0;
  for (let i = 0; i < GUESSERS; i++) {
    const guessing = saying((n) => Array.from({ length: n }, () => "ABCD"[rng.integer(4)]!));
    const { low, high } = await scores(() => guessing, chosen);
    if (low! <= 0.25 && 0.25 <= high!) held++;
  }
  return {
    oracle: Math.min(...oracle.map(({ value }) => value!)),
    silent: Math.max(...silent.map(({ value }) => value!)),
    guessers: held / GUESSERS,
  };
}
