import type { Item } from "./contents.ts";
import { merged, type Values } from "./values.ts";

/** An item with what was found out about it. */
export interface Inspected extends Omit<Item, "read"> {
  readonly parameters: number;
  readonly values: Values | null;
}

/** Items that differ by the number of their layer only. */
export interface Group extends Inspected {
  readonly items: number;
}

/** Groups in the order of their first items; `*` stands for the numbers in their names. */
export function grouped(items: readonly Inspected[], alone: boolean): Group[] {
  const groups = new Map<string, Inspected[]>();
  for (const item of items) {
    const key = alone ? item.name : JSON.stringify([patternOf(item.name), item.type, item.shape]);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return [...groups.values()].map((group) => {
    const { name, type, shape } = group[0]!;
    const total = (of: (item: Inspected) => number): number => group.reduce((sum, item) => sum + of(item), 0);
    return {
      name: group.length > 1 ? patternOf(name) : name,
      type,
      shape,
      items: group.length,
      bytes: total(({ bytes }) => bytes),
      parameters: total(({ parameters }) => parameters),
      values: merged(group.flatMap(({ values }) => values ?? [])),
    };
  });
}

const patternOf = (name: string): string => name.replace(/\.\d+(?=\.)/g, ".*");
