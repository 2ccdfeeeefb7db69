import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  closedBook,
  continuationItems,
  factoid,
  instruct,
  type KickItem,
  type KickTask,
  likeliestContinuation,
  multipleChoice,
  nextWord,
  openBook,
  summary,
  uniqueTokens,
  wordItems,
} from "../../evaluate/index.ts";
import {
  loadFreebaseQa,
  loadMmlu,
  loadMtBench,
  loadQuestions,
  loadStories,
  loadTriviaQa,
} from "../../evaluate/node.ts";
import { embeddedModel } from "../../models/node.ts";
import { didYouMean } from "../../tensor/suggest.ts";
import { UsageError } from "../errors.ts";

/** Tasks made of the text that comes with pare. */
const fromText = {
  "next-word": ({ unseen }) => nextWord(unseen, { name: "next-word" }),
  "repeated-word": ({ seen }) => nextWord(seen, { name: "repeated-word" }),
  continuations: ({ documents }) => likeliestContinuation(continuationItems(documents)),
  "unique-tokens": ({ unseen }) => uniqueTokens(unseen),
} satisfies Record<string, (parts: ReturnType<typeof wordItems> & { documents: readonly string[] }) => KickTask>;

/** Tasks of the paper: where their data lies in the folder of data, how it is read, and what is made of it. */
const published: Readonly<
  Record<string, { readonly place: string; tasks(path: string, questions: boolean): Promise<KickTask[]> }>
> = {
  factoid: {
    place: "freebaseqa/FreebaseQA-eval.json",
    tasks: async (path, own) => [factoid(own ? await loadQuestions(path) : await loadFreebaseQa(path))],
  },
  mcq: {
    place: "mmlu",
    async tasks(path, own) {
      if (own) return [multipleChoice(await loadQuestions(path), { header: "" })];
      const { items, shots } = await loadMmlu(path);
      return [multipleChoice(items, { shots })];
    },
  },
  icrqa: {
    place: "triviaqa/qa/wikipedia-dev.json",
    async tasks(path, own) {
      const items = await triviaItems(path, own);
      return [closedBook(items), openBook(items)];
    },
  },
  "icrqa-closed": {
    place: "triviaqa/qa/wikipedia-dev.json",
    tasks: async (path, own) => [closedBook(await triviaItems(path, own))],
  },
  "icrqa-open": {
    place: "triviaqa/qa/wikipedia-dev.json",
    tasks: async (path, own) => [openBook(await triviaItems(path, own))],
  },
  summary: { place: "stories", tasks: async (path) => [summary(await loadStories(path))] },
  instruct: { place: "mt_bench", tasks: async (path) => [instruct(await loadMtBench(path))] },
};

const triviaItems = (path: string, own: boolean): Promise<KickItem[]> =>
  own ? loadQuestions(path) : loadTriviaQa(path);

/** Names of all tasks. */
export const kickTaskNames = [...Object.keys(fromText), ...Object.keys(published)];

/** Those that need no data. */
export const ownTaskNames = Object.keys(fromText);

/**
 * The tasks that a user names, with commas between them. `factoid=questions.jsonl` takes a task's items from there.
 * @param data folder of the published sets of questions
 * @throws UsageError for a task that there is not, or whose data no one named; TaskError for data that is missing
 */
export async function readKickTasks(names: string, data: string | undefined): Promise<KickTask[]> {
  const tasks: KickTask[] = [];
  for (const entry of names.split(",").map((name) => name.trim())) {
    const [name, path] = entry.split("=", 2) as [string, string?];
    if (Object.hasOwn(fromText, name)) {
      tasks.push(fromText[name as keyof typeof fromText](await ownParts()));
      continue;
    }
    if (!Object.hasOwn(published, name))
      throw new UsageError(
        `there is no task "${name}"${didYouMean(name, kickTaskNames)}; there are ${kickTaskNames.join(", ")}`,
      );
    const { place, tasks: make } = published[name]!;
    const from = path ?? (data === undefined ? undefined : join(data, place));
    if (from === undefined)
      throw new UsageError(
        `the task ${name} needs data: --data <folder> with ${place} in it, or ${name}=<file.jsonl> with {"question", "answers"} in each line`,
      );
    tasks.push(...(await make(from, from.endsWith(".jsonl"))));
  }
  const twice = tasks.find(({ name }, i) => tasks.findIndex((other) => other.name === name) !== i);
  if (twice) throw new UsageError(`the task ${twice.name} is named twice`);
  return tasks;
}

async function ownParts() {
  const text = await readFile(join(embeddedModel, "held-out.txt"), "utf8");
  const documents = text
    .split("<|endoftext|>")
    .map((story) => story.trim())
    .filter((story) => story !== "");
  return { ...wordItems(documents), documents };
}
