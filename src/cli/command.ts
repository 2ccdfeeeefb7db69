/**
 * What a command is: the arguments and options it takes, and what it does with them. Each command is one file of
 * `commands/` that exports one of these, and one line in the table of `commands/index.ts`.
 */
export interface Command {
  /** Positional arguments in order. A required one cannot follow one that is not; only the last may be `many`. */
  readonly args: Readonly<Record<string, ArgSpec>>;
  /** Options by their name in camel case: `maxTokens` is `--max-tokens`. All commands take `--json` and `--help`. */
  readonly options: Readonly<Record<string, OptionSpec>>;
  /** Whether `run` heeds `signal` on Ctrl-C: it saves what it has and returns. Without it Ctrl-C ends at once. */
  readonly graceful?: boolean;
  /** A command line that shows a usual case, for its help. */
  readonly example?: string;
  run(input: Input): Promise<Outcome>;
}

export interface ArgSpec {
  readonly summary: string;
  readonly required?: boolean;
  /** Takes all the arguments that are left. */
  readonly many?: boolean;
}

export type OptionSpec = { readonly summary: string; readonly short?: string } & (
  | { readonly type: "flag" }
  | { readonly type: "string"; readonly value: string; readonly choices?: readonly string[]; readonly default?: string }
  | {
      readonly type: "number" | "integer";
      readonly value: string;
      readonly min?: number;
      readonly max?: number;
      readonly default?: number;
    }
);

export type ArgValue<A extends ArgSpec> = A extends { many: true }
  ? string[]
  : A extends { required: true }
    ? string
    : string | undefined;

type Scalar<O extends OptionSpec> = O extends { choices: readonly (infer C)[] }
  ? C
  : O extends { type: "string" }
    ? string
    : number;

export type OptionValue<O extends OptionSpec> = O extends { type: "flag" }
  ? boolean
  : Scalar<O> | (O extends { default: string | number } ? never : undefined);

/** What `run` receives. */
export interface Input<
  A extends Record<string, ArgSpec> = Record<string, ArgSpec>,
  O extends Record<string, OptionSpec> = Record<string, OptionSpec>,
> {
  readonly args: { readonly [K in keyof A]: ArgValue<A[K]> };
  readonly options: { readonly [K in keyof O]: OptionValue<O[K]> };
  /** Whether standard output is kept for one JSON document: anything said along the way goes to standard error. */
  readonly json: boolean;
  /** Aborted by Ctrl-C, for commands that are `graceful`. */
  readonly signal: AbortSignal;
}

/** What a command found. */
export interface Outcome {
  /** False when a claim or a check did not hold: the exit code is then 1 instead of 0. */
  readonly ok?: boolean;
  /** Printed for people. */
  readonly text: string;
  /** Printed under `--json`. */
  readonly json: unknown;
}

/** A command whose `run` sees its arguments and options with the types that its declaration gives them. */
export function command<const A extends Record<string, ArgSpec>, const O extends Record<string, OptionSpec>>(
  declaration: Omit<Command, "args" | "options" | "run"> & {
    args: A;
    options: O;
    run(input: Input<A, O>): Promise<Outcome>;
  },
): Command {
  return declaration as unknown as Command;
}
