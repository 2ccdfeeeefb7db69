import { Rng } from "../../tensor/index.ts";
import { TaskError } from "../errors.ts";
import { logLikelihoods } from "../likelihood.ts";
import { passAtK } from "../pass-at-k.ts";
import { perplexity, type WindowOptions } from "../perplexity.ts";
import type { ProgramResult, PythonProgram } from "../python.ts";
import type { Continuation, Scorer } from "../scorer.ts";
import { exactMatch, extract } from "./exact-match.ts";
import { type Splits, shotsFor } from "./few-shot.ts";
import type { CodeTask, GenerateTask, MultipleChoiceTask, PerplexityTask, Task } from "./task.ts";
import { lookUp, type Row, render } from "./template.ts";

/** What an evaluation runs with. */
export interface Judging {
  readonly scorer: Scorer;
  readonly splits: Splits;
  readonly seed: number;
  readonly windows: WindowOptions;
  /** Runs generated programs; tasks of code need it. */
  readonly runPython: ((program: PythonProgram) => Promise<ProgramResult>) | undefined;
  readonly signal: AbortSignal | undefined;
}

/** What is kept of a document. */
export interface DocumentRecord {
  /** Index in the task's test split. */
  readonly document: number;
  /** Of perplexity: nats, tokens, bytes, words. Else the value of each metric. */
  readonly values: Readonly<Record<string, number>>;
  /** Rows that were its examples. */
  readonly fewShot: readonly number[];
  /** Whether a text was too long for the model and lost its beginning. */
  readonly truncated: boolean;
  /** What was generated, and for programs how each ended. */
  readonly outputs?: readonly string[];
  readonly ends?: readonly string[];
}

/** Evaluates one document. @throws TaskError for a row that does not fit the task */
export function evaluateDocument(task: Task, document: number, judging: Judging): Promise<DocumentRecord> {
  switch (task.kind) {
    case "perplexity":
      return judgeText(task, document, judging);
    case "multiple_choice":
      return judgeChoices(task, document, judging);
    case "generate_until":
      return judgeAnswer(task, document, judging);
    case "code":
      return judgePrograms(task, document, judging);
  }
}

const rowOf = ({ splits }: Judging, document: number): Row => splits["test"]![document]!;

async function judgeText(task: PerplexityTask, document: number, judging: Judging): Promise<DocumentRecord> {
  const text = render(task.text, rowOf(judging, document));
  const { nats, tokens, bytes, words } = await perplexity(judging.scorer, text, judging.windows);
  return { document, values: { nats, tokens, bytes, words }, fewShot: [], truncated: false };
}

/** The prompt of a document, behind the description and the examples with their answers. */
function promptOf(
  task: MultipleChoiceTask | GenerateTask,
  document: number,
  { splits, seed }: Judging,
  answerOf: (row: Row) => string,
): { readonly prompt: string; readonly fewShot: readonly number[] } {
  const row = splits["test"]![document]!;
  const shots = shotsFor(task.fewShot, splits, document, seed);
  const examples = shots.rows.map((shot) => render(task.prompt, shot) + task.delimiter + answerOf(shot));
  const parts = [...examples, render(task.prompt, row)].join(task.fewShot?.separator ?? "");
  return { prompt: render(task.description, row) + parts, fewShot: shots.ids };
}

async function judgeChoices(task: MultipleChoiceTask, document: number, judging: Judging): Promise<DocumentRecord> {
  const row = rowOf(judging, document);
  const choices = choicesOf(task, row);
  const right = rightChoice(task, row, choices);
  const { prompt, fewShot } = promptOf(task, document, judging, (shot) => {
    const given = choicesOf(task, shot);
    return given[rightChoice(task, shot, given)]!;
  });
  const requests = choices.map((choice) => ({ context: prompt, continuation: task.delimiter + choice }));
  const found = await logLikelihoods(judging.scorer, requests);
  const scores = found.map(({ logLikelihood }) => logLikelihood);
  const perCharacter = scores.map((score, i) => score / Math.max(1, [...choices[i]!].length));
  return {
    document,
    values: { acc: Number(largest(scores) === right), acc_norm: Number(largest(perCharacter) === right) },
    fewShot,
    truncated: found.some(({ truncated }) => truncated),
  };
}

const largest = (values: readonly number[]): number => values.indexOf(Math.max(...values));

function choicesOf({ choices }: MultipleChoiceTask, row: Row): readonly string[] {
  if (typeof choices !== "string") return choices.map((choice) => render(choice, row));
  const listed = lookUp(choices, row);
  if (!Array.isArray(listed) || listed.length < 2 || !listed.every((choice) => typeof choice === "string"))
    throw new TaskError(`the field "${choices}" must list two or more texts, not ${JSON.stringify(listed)}`);
  return listed;
}

function rightChoice({ answer }: MultipleChoiceTask, row: Row, choices: readonly string[]): number {
  const given = render(answer.template, row);
  const index = answer.by === "text" ? choices.indexOf(given) : /^\d+$/.test(given) ? Number(given) : -1;
  if (index >= 0 && index < choices.length) return index;
  throw new TaskError(`the answer ${JSON.stringify(given)} is none of the choices ${JSON.stringify(choices)}`);
}

/** Temperature above 0 gives every sample of every document a seed of its own. */
function continued(
  task: GenerateTask | CodeTask,
  prompt: string,
  document: number,
  sample: number,
  { scorer, seed, signal }: Judging,
): Promise<Continuation> {
  const own = new Rng(seed).fork(document).fork(sample).next();
  return scorer.generate(prompt, { ...task.generation, seed: own, signal });
}

async function judgeAnswer(task: GenerateTask, document: number, judging: Judging): Promise<DocumentRecord> {
  const target = render(task.target, rowOf(judging, document));
  const { prompt, fewShot } = promptOf(task, document, judging, (shot) => render(task.target, shot));
  const { text, truncated } = await continued(task, prompt, document, 0, judging);
  const values = Object.fromEntries(
    task.filters.map((filter) => {
      const name = filter.name === "none" ? "exact_match" : `exact_match,${filter.name}`;
      return [name, Number(exactMatch(task, extract(filter, text), target))];
    }),
  );
  return { document, values, fewShot, truncated, outputs: [text] };
}

async function judgePrograms(task: CodeTask, document: number, judging: Judging): Promise<DocumentRecord> {
  const { runPython } = judging;
  if (!runPython) throw new TaskError(`the task ${task.name} runs programs, which takes "runPython"`);
  const row = rowOf(judging, document);
  const prompt = render(task.prompt, row);
  const outputs: string[] = [];
  const ends: string[] = [];
  let truncated = false;
  for (let sample = 0; sample < task.samples; sample++) {
    const completion = await continued(task, prompt, document, sample, judging);
    const code = render(task.program, { ...row, completion: completion.text });
    const { status } = await runPython({ code, seconds: task.seconds, megabytes: task.megabytes });
    outputs.push(completion.text);
    ends.push(status);
    truncated ||= completion.truncated;
  }
  const correct = ends.filter((status) => status === "passed").length;
  const values = Object.fromEntries(task.k.map((k) => [`pass@${k}`, passAtK(task.samples, correct, k)]));
  return { document, values, fewShot: [], truncated, outputs, ends };
}
