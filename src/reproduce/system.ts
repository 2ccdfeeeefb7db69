import type { Workbench } from "./workbench.ts";

/** Families of systems, as in the table of `pare systems`. */
export const families = [
  "weights",
  "activations",
  "attention",
  "reasoning",
  "context",
  "vision",
  "generative",
  "embodied",
  "data",
  "interpret",
  "evaluate",
] as const;
export type Family = (typeof families)[number];

/** A published method with the experiment that shows it at work. Each is one file that exports one of these. */
export interface System {
  readonly name: string;
  readonly family: Family;
  /** What a user gets, in one line. */
  readonly summary: string;
  readonly paper: { readonly title: string; readonly authors: string; readonly year: number; readonly url: string };
  /** Source file of the method, relative to the package. */
  readonly file: string;
  /** A command line that uses the method, where there is one. A program that does is `examples/<id>.ts`. */
  readonly command?: string;
  /** What the paper says, as far as the experiment can tell. */
  readonly claim: string;
  /** What must hold here. */
  readonly bar: string;
  /** Runs the experiment. Everything that it returns is measured in this run. */
  experiment(setting: Setting): Promise<Finding>;
}

/** What an experiment is run with. */
export interface Setting {
  readonly seed: number;
  /** The full proof instead of the short true variant of it. */
  readonly full: boolean;
  readonly bench: Workbench;
  readonly signal: AbortSignal;
  /** Tells what is going on. */
  log(line: string): void;
}

/** One comparison of the experiment. */
export interface Check {
  /** What is compared, such as `4 bits, loss`. */
  readonly what: string;
  readonly ours: number;
  readonly baseline: number;
  /** What the bar asks of the two. */
  readonly holds: boolean;
}

export interface Finding {
  readonly checks: readonly Check[];
  /** What was measured of the method. */
  readonly metrics: Readonly<Record<string, number>>;
  /** The same of what it is compared with. */
  readonly baseline: Readonly<Record<string, number>>;
  /** What a reader should know about the result. */
  readonly notes?: readonly string[];
}
