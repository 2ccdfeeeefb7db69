import { TaskError } from "../errors.ts";
import { Fields } from "./fields.ts";
import type { Row } from "./template.ts";

/** Where a task's rows come from. Paths are relative to the task's file or the folder given for data. */
export interface TaskData {
  /** Path of each split; `test` is what is evaluated. One `*` in a file's name stands for anything. */
  readonly splits: Readonly<Record<string, string>>;
  /** Where to get the data. */
  readonly source: string;
  /** Names of a CSV's columns, where its first line does not give them. */
  readonly columns: readonly string[] | null;
  /** The field that holds what the `*` of the path stood for, underscores as spaces. */
  readonly star: string | null;
  /** What separates the documents of a text file. */
  readonly separator: string | null;
  /** Makes questions of the documents: which of several continuations is the true one. */
  readonly continuations: ContinuationSpec | null;
}

export interface ContinuationSpec {
  readonly contextWords: number;
  readonly words: number;
  readonly choices: number;
}

/** Examples before the question. */
export interface FewShot {
  readonly count: number;
  /** The split that they are from, or the examples themselves. */
  readonly from: string | readonly Row[];
  /** The first ones, or for each document others, drawn by the seed. */
  readonly select: "first" | "random";
  /** A field in which examples must be like the document. */
  readonly matching: string | null;
  readonly separator: string;
}

interface TaskBase {
  readonly name: string;
  /** Raised when a change makes results incomparable with earlier ones. */
  readonly version: number;
  readonly about: string;
  readonly data: TaskData;
}

interface PromptedTask extends TaskBase {
  /** Stands once before the examples. */
  readonly description: string;
  readonly prompt: string;
  /** Stands between a prompt and its answer. */
  readonly delimiter: string;
  readonly fewShot: FewShot | null;
}

/** Word and byte perplexity and bits per byte of documents. */
export interface PerplexityTask extends TaskBase {
  readonly kind: "perplexity";
  readonly text: string;
}

/** Which of several continuations is the most likely. */
export interface MultipleChoiceTask extends PromptedTask {
  readonly kind: "multiple_choice";
  /** A template for each choice, or the field that lists them. */
  readonly choices: readonly string[] | string;
  /** A template of the right choice's index from 0, or of its text. */
  readonly answer: { readonly by: "index" | "text"; readonly template: string };
}

/** What of a generated text counts as its answer. */
export interface Filter {
  readonly name: string;
  /** The answer is the first group that matched, or the whole match. Null takes the whole text. */
  readonly regex: string | null;
  readonly select: "first" | "last";
}

export interface GenerationSettings {
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly temperature: number;
}

/** Whether a generated answer is exactly the right one. */
export interface GenerateTask extends PromptedTask {
  readonly kind: "generate_until";
  readonly target: string;
  readonly generation: GenerationSettings;
  readonly filters: readonly Filter[];
  /** Regular expressions whose matches are taken out of both answers before they are compared. */
  readonly ignore: readonly string[];
  readonly ignoreCase: boolean;
}

/** Whether generated programs pass their tests. */
export interface CodeTask extends TaskBase {
  readonly kind: "code";
  readonly prompt: string;
  /** The Python program to run; `{{completion}}` is what was generated. It passes when it ends without an exception. */
  readonly program: string;
  readonly generation: GenerationSettings;
  readonly samples: number;
  readonly k: readonly number[];
  readonly seconds: number;
  readonly megabytes: number;
}

export type Task = PerplexityTask | MultipleChoiceTask | GenerateTask | CodeTask;

const kinds = ["perplexity", "multiple_choice", "generate_until", "code"] as const;
const base = ["name", "version", "kind", "about", "data"];
const prompted = [...base, "description", "prompt", "delimiter", "fewShot"];
const fieldsOf: Readonly<Record<Task["kind"], readonly string[]>> = {
  perplexity: [...base, "text"],
  multiple_choice: [...prompted, "choices", "answer"],
  generate_until: [...prompted, "target", "generation", "filters", "ignore", "ignoreCase"],
  code: [...base, "prompt", "program", "generation", "samples", "k", "seconds", "megabytes"],
};

/**
 * Reads a task's definition.
 * @param where name of its file, for errors
 * @throws TaskError naming the field that is missing, unknown or malformed
 */
export function readTask(json: unknown, where: string): Task {
  const kind = new Fields(json, where, [...new Set(Object.values(fieldsOf).flat())]).choice("kind", kinds);
  const read = new Fields(json, where, fieldsOf[kind]);
  const common = {
    name: nameOf(read),
    version: read.whole("version", 1),
    about: read.text("about", ""),
    data: readData(read),
  };
  if (kind === "perplexity") return { ...common, kind, text: read.text("text") };
  if (kind === "code") return { ...common, kind, ...readCode(read) };
  const shared = {
    ...common,
    description: read.text("description", ""),
    prompt: read.text("prompt"),
    delimiter: read.text("delimiter", " "),
    fewShot: readFewShot(read, common.data),
  };
  if (kind === "multiple_choice") {
    const choices = typeof read.raw("choices") === "string" ? read.text("choices") : read.texts("choices");
    if (typeof choices !== "string" && choices.length < 2) throw read.wrong("choices", "two or more templates");
    return { ...shared, kind, choices, answer: readAnswer(read) };
  }
  return {
    ...shared,
    kind,
    generation: readGeneration(read),
    target: read.text("target"),
    filters: readFilters(read),
    ignore: read.texts("ignore", []).map((pattern) => checkRegex(pattern, read, "ignore")),
    ignoreCase: read.flag("ignoreCase", false),
  };
}

function readCode(read: Fields): Omit<CodeTask, keyof TaskBase | "kind"> {
  const program = read.text("program");
  if (!/\{\{\s*completion\s*\}\}/.test(program)) throw read.wrong("program", "a template with {{completion}}");
  const samples = read.whole("samples", 1, 1);
  return {
    program,
    samples,
    prompt: read.text("prompt"),
    generation: readGeneration(read),
    k: readK(read, samples),
    seconds: read.number("seconds", 0.1, 5),
    megabytes: read.whole("megabytes", 64, 512),
  };
}

/** It becomes part of files' names. */
function nameOf(read: Fields): string {
  const name = read.text("name");
  if (!/^[a-z0-9][a-z0-9_-]{0,63}$/i.test(name))
    throw read.wrong("name", "a name of letters, digits, _ and - (64 at most)");
  return name;
}

function readData(read: Fields): TaskData {
  const data = read.inner("data", ["splits", "source", "columns", "star", "separator", "continuations"]);
  const splits = data?.raw("splits");
  if (!data || typeof splits !== "object" || splits === null || Array.isArray(splits) || !Object.hasOwn(splits, "test"))
    throw read.wrong("data", 'an object with "splits", of which "test" is one');
  const paths = data.inner("splits", Object.keys(splits))!;
  for (const split of Object.keys(splits)) {
    const path = paths.text(split);
    const leaves = path.split(/[/\\]/).includes("..") || /^([/\\]|[a-z]:)/i.test(path);
    if (path === "" || leaves) throw paths.wrong(split, "a path inside the folder of the data");
    if (/\*.*[*/\\]/.test(path)) throw paths.wrong(split, "a path with at most one *, in the file's name");
  }
  const made = data.inner("continuations", ["contextWords", "words", "choices"]);
  return {
    splits: splits as Record<string, string>,
    source: data.text("source", ""),
    columns: data.has("columns") ? data.texts("columns") : null,
    star: data.has("star") ? data.text("star") : null,
    separator: data.has("separator") ? data.text("separator") : null,
    continuations: made
      ? {
          contextWords: made.whole("contextWords", 1),
          words: made.whole("words", 1),
          choices: made.whole("choices", 2),
        }
      : null,
  };
}

function readFewShot(read: Fields, data: TaskData): FewShot | null {
  const shots = read.inner("fewShot", ["count", "from", "select", "matching", "separator"]);
  if (!shots) return null;
  const given = shots.raw("from");
  const from = Array.isArray(given) ? (given as Row[]) : shots.text("from");
  if (
    typeof from === "string" ? !Object.hasOwn(data.splits, from) : from.some((row) => typeof row !== "object" || !row)
  )
    throw shots.wrong("from", `one of the splits ${Object.keys(data.splits).join(", ")}, or a list of examples`);
  const count = shots.whole("count", 1);
  if (typeof from !== "string" && from.length < count) throw shots.wrong("from", `a list of ${count} examples`);
  return {
    count,
    from,
    select: shots.choice("select", ["first", "random"]),
    matching: shots.has("matching") ? shots.text("matching") : null,
    separator: shots.text("separator", "\n\n"),
  };
}

function readAnswer(read: Fields): MultipleChoiceTask["answer"] {
  const answer = read.inner("answer", ["index", "text"]);
  if (!answer || answer.has("index") === answer.has("text"))
    throw read.wrong("answer", 'an object with either "index" or "text"');
  const by = answer.has("index") ? "index" : "text";
  return { by, template: answer.text(by) };
}

function readGeneration(read: Fields): GenerationSettings {
  const settings = read.inner("generation", ["maxTokens", "stop", "temperature"]);
  if (!settings) throw read.wrong("generation", 'an object with "maxTokens" and "stop"');
  const stop = settings.texts("stop");
  if (stop.includes("")) throw settings.wrong("stop", "a list of texts that are not empty");
  return { stop, maxTokens: settings.whole("maxTokens", 1), temperature: settings.number("temperature", 0, 0) };
}

function readFilters(read: Fields): Filter[] {
  const filters = read.list("filters", ["name", "regex", "select"]).map(
    (filter): Filter => ({
      name: filter.text("name"),
      regex: filter.has("regex") ? checkRegex(filter.text("regex"), filter, "regex") : null,
      select: filter.choice("select", ["first", "last"], "first"),
    }),
  );
  if (new Set(filters.map(({ name }) => name)).size < filters.length)
    throw read.wrong("filters", "filters of different names");
  return filters.length > 0 ? filters : [{ name: "none", regex: null, select: "first" }];
}

function readK(read: Fields, samples: number): readonly number[] {
  const k = read.raw("k") ?? [1];
  const fits = (value: unknown): boolean =>
    Number.isInteger(value) && (value as number) >= 1 && (value as number) <= samples;
  if (!Array.isArray(k) || k.length === 0 || !k.every(fits))
    throw read.wrong("k", `a list of whole numbers from 1 to the ${samples} samples`);
  return k;
}

function checkRegex(pattern: string, read: Fields, field: string): string {
  try {
    new RegExp(pattern);
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw new TaskError(`${read.wrong(field, "regular expressions").message}: ${cause.message}`, { cause });
  }
  return pattern;
}
