import { bootstrap } from "../bootstrap.ts";
import type { LoggedJudge } from "./judge.ts";
import type { Reader } from "./reader.ts";

/** A question with everything that some task may want to know of it. */
export interface KickItem {
  readonly id: string;
  readonly question: string;
  /** Answers that are right; of a question with choices the text of the right one. */
  readonly answers: readonly string[];
  /** A text that holds the answer. */
  readonly context?: string;
  readonly choices?: readonly string[];
  /** What the item belongs to; scores are also given by each. */
  readonly groups?: Readonly<Record<string, string>>;
  /** What is asked behind the question, of conversations. */
  readonly further?: readonly string[];
  /** Good answers for a judge to compare with, one for each turn. */
  readonly references?: readonly string[];
}

/** What became of an item. */
export interface ItemResult {
  /** Value of each of the task's metrics; null where there is none, which the score then leaves out and counts. */
  readonly values: Readonly<Record<string, number | null>>;
  /** What the model said. */
  readonly output: string;
}

export interface TaskContext {
  /** Tasks that are judged take one. */
  readonly judging?: LoggedJudge | undefined;
  /** What the dense model said to an item, for the judge to compare with where the item has no reference. */
  readonly dense?: ((id: string) => string | undefined) | undefined;
  /** Of sampled answers. */
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/** A task of an audit: questions, and how a model's answers to them are scored. */
export interface KickTask {
  readonly name: string;
  /** The metrics of an item, the task's own first. */
  readonly metrics: readonly string[];
  readonly items: readonly KickItem[];
  /** Whether it takes a judge. */
  readonly judged?: boolean;
  /** What the results depend on besides items and metrics: prompts, lengths, temperatures. */
  readonly settings: unknown;
  /** Puts some of the items to the model. @returns a result for each */
  run(reader: Reader, items: readonly KickItem[], context: TaskContext): Promise<ItemResult[]>;
}

/** The score of a model on a metric of a task. */
export interface TaskScore {
  /** Null where no item has a value. */
  readonly value: number | null;
  /** Ends of the 95% interval, which draws items. */
  readonly low: number | null;
  readonly high: number | null;
  /** Items that have a value, and those that have none. */
  readonly items: number;
  readonly excluded: number;
  /** By kind of group and group: the mean and how many items it is of. */
  readonly groups: Readonly<
    Record<string, Readonly<Record<string, { readonly value: number; readonly items: number }>>>
  >;
}

/** Fewer items than this say little; a report warns of it. */
export const FEW_ITEMS = 100;

/** The key of a metric in reports: the task's name for its own, with the metric's behind it for others. */
export function scoreKey(task: Pick<KickTask, "name" | "metrics">, metric: string): string {
  return metric === task.metrics[0] ? task.name : `${task.name} ${metric}`;
}

/** The score that results make on a metric. @param seed of the interval */
export function scoreOf(
  items: readonly KickItem[],
  results: readonly ItemResult[],
  metric: string,
  seed = 0,
): TaskScore {
  const values = results.map(({ values: of }) => of[metric] ?? null);
  const known = values.filter((value) => value !== null);
  const counts = { items: known.length, excluded: values.length - known.length };
  if (known.length === 0) return { value: null, low: null, high: null, ...counts, groups: {} };
  const { value, low, high } = bootstrap(
    known.map((total) => ({ total, weight: 1 })),
    { seed },
  );
  return { value, low, high, ...counts, groups: groupsOf(items, values) };
}

function groupsOf(items: readonly KickItem[], values: readonly (number | null)[]): TaskScore["groups"] {
  const sums: Record<string, Record<string, { total: number; items: number }>> = {};
  values.forEach((value, i) => {
    if (value === null) return;
    for (const [kind, group] of Object.entries(items[i]!.groups ?? {})) {
      const of = ((sums[kind] ??= {})[group] ??= { total: 0, items: 0 });
      of.total += value;
      of.items++;
    }
  });
  return Object.fromEntries(
    Object.entries(sums).map(([kind, groups]) => [
      kind,
      Object.fromEntries(
        Object.entries(groups).map(([group, { total, items: count }]) => [
          group,
          { value: total / count, items: count },
        ]),
      ),
    ]),
  );
}
