/** What `main.ts` runs under a name. */
export interface Command {
  /** Options of its own, each with a value, and the value that it has when it is not given. */
  readonly options: Readonly<Record<string, string>>;
  run(given: Given): Promise<Report>;
}

export interface Given {
  readonly rounds: number;
  readonly threads: number;
  /** Values of the command's own options. */
  readonly options: Readonly<Record<string, string>>;
  /** For lines on what is going on. */
  readonly log: (line: string) => void;
}

export interface Report {
  /** What `--json` prints. */
  readonly result: unknown;
  /** The same for people. */
  readonly text: string;
}

/** What the caller did wrong; printed without a stack. */
export class UsageError extends Error {}
