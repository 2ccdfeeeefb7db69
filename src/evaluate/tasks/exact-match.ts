import type { Filter, GenerateTask } from "./task.ts";

/** What stands for an answer where a filter finds none, as in lm-evaluation-harness. */
const INVALID = "[invalid]";

/** The answer that a filter finds in a text. */
export function extract({ regex, select }: Filter, text: string): string {
  if (regex === null) return text.trim();
  const found = [...text.matchAll(new RegExp(regex, "g"))].at(select === "first" ? 0 : -1);
  if (!found) return INVALID;
  const [whole, ...groups] = found;
  return (groups.find((group) => group) ?? whole).trim();
}

/** Whether two answers are the same but for what the task ignores. */
export function exactMatch(task: Pick<GenerateTask, "ignore" | "ignoreCase">, answer: string, target: string): boolean {
  const plain = (text: string): string => {
    const cut = task.ignore.reduce((rest, pattern) => rest.replace(new RegExp(pattern, "g"), ""), text);
    return task.ignoreCase ? cut.toLowerCase() : cut;
  };
  return plain(answer) === plain(target);
}
