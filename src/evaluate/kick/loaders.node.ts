import { readdir, readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { explained } from "../../formats/files.node.ts";
import { decodeUtf8, isJsonObject, type JsonObject, parseJson } from "../../formats/json.ts";
import { TaskError } from "../errors.ts";
import { parseCsv } from "../tasks/csv.ts";
import { mmluCategory } from "./categories.ts";
import type { KickItem } from "./task.ts";
import { storySize } from "./tasks/summary.ts";

/** What a loader reads, for the error when it is not there. */
const formats = {
  freebaseqa:
    'FreebaseQA as published: a .json file {"Questions": [{"RawQuestion", "Parses": [{"Answers": [{"AnswersName"}]}]}]}',
  mmlu: "MMLU as published: a folder with test/<subject>_test.csv and dev/<subject>_dev.csv, six columns and no header",
  triviaqa:
    'TriviaQA rc as published: a folder with qa/<name>.json ({"Data": [{"Question", "Answer", "EntityPages", "SearchResults"}]}) and evidence/wikipedia and evidence/web beside it',
  stories: 'CNN/DailyMail stories: a folder of .story files, the text first, then each "@highlight" with its sentence',
  mtbench:
    'MT-Bench as published: a folder with question.jsonl ({"question_id", "category", "turns"}) and, for references, reference_answer/<model>.jsonl',
  questions: 'a .jsonl file with {"question", "answers": [...], "context"?, "choices"?} in each line',
} as const;
export type KickFormat = keyof typeof formats;

/** Items of FreebaseQA (Jiang et al. 2019). @throws TaskError */
export async function loadFreebaseQa(path: string): Promise<KickItem[]> {
  const json = await jsonIn(path, "freebaseqa");
  return list(json, "Questions", path, "freebaseqa").map((entry, i) => {
    const parses = Array.isArray(entry["Parses"]) ? (entry["Parses"] as JsonObject[]) : [];
    const found = parses.flatMap((parse) =>
      Array.isArray(parse["Answers"]) ? (parse["Answers"] as JsonObject[]) : [],
    );
    const answers = found.flatMap(({ AnswersName: names }) => (Array.isArray(names) ? (names as unknown[]) : []));
    return {
      id: String(entry["Question-ID"] ?? i),
      question: textOf(entry, "RawQuestion", path, i, "freebaseqa"),
      answers: [...new Set(answers.filter((answer) => typeof answer === "string"))],
    };
  });
}

/** Questions and development examples of MMLU (Hendrycks et al. 2021), grouped by subject and category. @throws TaskError */
export async function loadMmlu(folder: string): Promise<{ readonly items: KickItem[]; readonly shots: KickItem[] }> {
  const part = async (split: "test" | "dev"): Promise<KickItem[]> => {
    const inside = join(folder, split);
    const files = (await filesOf(inside, "mmlu")).filter((name) => name.endsWith(`_${split}.csv`));
    if (files.length === 0) throw missing(inside, "mmlu");
    const items: KickItem[] = [];
    for (const file of files) {
      const subject = file.slice(0, -`_${split}.csv`.length).replaceAll("_", " ");
      const path = join(inside, file);
      const records = parseCsv(await textIn(path, "mmlu"), path).filter((record) => record.length > 1);
      for (const [i, record] of records.entries()) items.push(mmluItem(record, subject, `${path}: record ${i + 1}`));
    }
    return items;
  };
  return { items: await part("test"), shots: await part("dev") };
}

function mmluItem(record: readonly string[], subject: string, where: string): KickItem {
  const [question, ...rest] = record;
  const at = "ABCD".indexOf(rest[4] ?? "?");
  if (rest.length !== 5 || at < 0)
    throw new TaskError(`${where} must be a question, four choices and a letter from A to D; expected ${formats.mmlu}`);
  const choices = rest.slice(0, 4);
  return {
    id: where,
    question: question!,
    choices,
    answers: [choices[at]!],
    groups: { subject, category: mmluCategory(subject) },
  };
}

/**
 * Items of TriviaQA's reading comprehension (Joshi et al. 2017), each with its first page of Wikipedia and its first web
 * page that are there.
 * @param path of the .json file; evidence lies beside its folder
 * @throws TaskError
 */
export async function loadTriviaQa(path: string): Promise<KickItem[]> {
  const evidence = join(path, "..", "..", "evidence");
  const items: KickItem[] = [];
  for (const [i, entry] of list(await jsonIn(path, "triviaqa"), "Data", path, "triviaqa").entries()) {
    const answer = isJsonObject(entry["Answer"]) ? entry["Answer"] : {};
    const aliases = Array.isArray(answer["Aliases"]) ? (answer["Aliases"] as unknown[]) : [];
    const answers = [answer["Value"], ...aliases].filter((text) => typeof text === "string");
    const pages = [
      await firstPage(entry["EntityPages"], join(evidence, "wikipedia")),
      await firstPage(entry["SearchResults"], join(evidence, "web")),
    ].filter((text) => text !== "");
    items.push({
      id: String(entry["QuestionId"] ?? i),
      question: textOf(entry, "Question", path, i, "triviaqa"),
      answers: [...new Set(answers)],
      context: pages.join("\n\n"),
    });
  }
  return items;
}

/** The first of the pages that is there. A file's name must not lead out of the folder. */
async function firstPage(pages: unknown, folder: string): Promise<string> {
  for (const page of Array.isArray(pages) ? (pages as unknown[]) : []) {
    const name = isJsonObject(page) ? page["Filename"] : undefined;
    if (typeof name !== "string" || name.split(/[/\\]/).includes("..") || name.startsWith("/")) continue;
    const bytes = await readFile(join(folder, name)).catch(() => null);
    if (bytes) return new TextDecoder().decode(bytes).trim();
  }
  return "";
}

/** Stories with their highlights as the reference summary, grouped by length. @throws TaskError */
export async function loadStories(folder: string): Promise<KickItem[]> {
  const files = (await filesOf(folder, "stories")).filter((name) => name.endsWith(".story"));
  if (files.length === 0) throw missing(folder, "stories");
  const items: KickItem[] = [];
  for (const file of files) {
    const [story, ...highlights] = (await textIn(join(folder, file), "stories")).split("@highlight");
    const context = story!.trim();
    const reference = highlights.map((line) => line.trim()).filter(Boolean);
    items.push({
      id: basename(file, ".story"),
      question: "",
      answers: [],
      context,
      groups: { length: storySize(context) },
      ...(reference.length > 0 && { references: [`${reference.join(". ")}.`] }),
    });
  }
  return items;
}

/** Conversations of MT-Bench (Zheng et al. 2023), with the references that there are. @throws TaskError */
export async function loadMtBench(folder: string): Promise<KickItem[]> {
  const path = join(folder, "question.jsonl");
  const references = new Map<string, readonly string[]>();
  const files = await readdir(join(folder, "reference_answer")).catch(() => []);
  for (const file of files
    .filter((name) => name.endsWith(".jsonl"))
    .sort()
    .slice(0, 1))
    for (const row of await linesIn(join(folder, "reference_answer", file), "mtbench")) {
      const choices = Array.isArray(row["choices"]) ? (row["choices"] as unknown[]) : [];
      const turns = isJsonObject(choices[0]) ? texts(choices[0]["turns"]) : null;
      if (turns) references.set(String(row["question_id"]), turns);
    }
  return (await linesIn(path, "mtbench")).map((row, i) => {
    const [question, ...further] = texts(row["turns"]) ?? [];
    if (question === undefined) throw malformed(path, i, '"turns"', "mtbench");
    const id = String(row["question_id"] ?? i);
    const own = texts(row["reference"]) ?? references.get(id);
    return {
      id,
      question,
      further,
      answers: [],
      groups: { category: String(row["category"] ?? "") },
      ...(own && { references: own }),
    };
  });
}

/** Questions of any other source. A choice may be named as the answer by its letter. @throws TaskError */
export async function loadQuestions(path: string): Promise<KickItem[]> {
  return (await linesIn(path, "questions")).map((row, i) => {
    const choices = texts(row["choices"]);
    const answers = texts(row["answers"]);
    if (!answers || answers.length === 0) throw malformed(path, i, '"answers"', "questions");
    if (row["choices"] !== undefined && !choices) throw malformed(path, i, '"choices"', "questions");
    const named = choices && answers.length === 1 ? choices[["A", "B", "C", "D"].indexOf(answers[0]!)] : undefined;
    return {
      id: String(row["id"] ?? i),
      question: textOf(row, "question", path, i, "questions"),
      answers: named === undefined ? answers : [named],
      ...(typeof row["context"] === "string" && { context: row["context"] }),
      ...(choices && { choices }),
    };
  });
}

function missing(path: string, format: KickFormat): TaskError {
  return new TaskError(`there is no data at ${path}; expected ${formats[format]}`);
}

function malformed(path: string, index: number, field: string, format: KickFormat): TaskError {
  return new TaskError(`${path}: item ${index} has no ${field} of the right kind; expected ${formats[format]}`);
}

async function filesOf(folder: string, format: KickFormat): Promise<string[]> {
  const names = await explained(
    "list",
    folder,
    readdir(folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") throw missing(folder, format);
      throw error;
    }),
  );
  return names.sort();
}

async function textIn(path: string, format: KickFormat): Promise<string> {
  const bytes = await explained(
    "read",
    path,
    readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT" || error.code === "ENOTDIR") throw missing(path, format);
      throw error;
    }),
  );
  return decodeUtf8(bytes, path).replace(/^\uFEFF/, "");
}

async function jsonIn(path: string, format: KickFormat): Promise<unknown> {
  return parseJson(await textIn(path, format), path);
}

async function linesIn(path: string, format: KickFormat): Promise<JsonObject[]> {
  const lines = (await textIn(path, format)).split("\n");
  return lines.flatMap((line, i) => {
    if (line.trim() === "") return [];
    const row = parseJson(line, `${path}:${i + 1}`);
    if (!isJsonObject(row)) throw new TaskError(`${path}:${i + 1} is no object; expected ${formats[format]}`);
    return [row];
  });
}

function list(json: unknown, field: string, path: string, format: KickFormat): JsonObject[] {
  const found = isJsonObject(json) ? json[field] : undefined;
  if (!Array.isArray(found) || !found.every(isJsonObject))
    throw new TaskError(`${path}: it has no list "${field}"; expected ${formats[format]}`);
  return found;
}

function textOf(row: JsonObject, field: string, path: string, index: number, format: KickFormat): string {
  const value = row[field];
  if (typeof value !== "string") throw malformed(path, index, `"${field}"`, format);
  return value;
}

const texts = (value: unknown): string[] | null =>
  Array.isArray(value) && value.every((item) => typeof item === "string") ? value : null;
