import Table from "cli-table3";

export interface TableOptions {
  /** Columns that hold numbers and stand right. */
  readonly right?: readonly number[];
}

const bare = {
  top: "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  bottom: "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  left: "",
  "left-mid": "",
  mid: "",
  "mid-mid": "",
  right: "",
  "right-mid": "",
  middle: "  ",
};

/** A plain table for the terminal: a line of heads, and a line for each row. */
export function textTable(
  heads: readonly string[],
  rows: readonly (readonly string[])[],
  { right = [] }: TableOptions = {},
): string {
  const table = new Table({
    head: [...heads],
    chars: bare,
    colAligns: heads.map((_, i) => (right.includes(i) ? "right" : "left")),
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
  });
  table.push(...rows.map((row) => [...row]));
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd())
    .join("\n");
}
