import { readFileSync } from "node:fs";
import { inspect } from "node:util";
import { PareError } from "../tensor/errors.ts";
import { didYouMean } from "../tensor/suggest.ts";
import type { Input } from "./command.ts";
import type { CommandTable } from "./commands/index.ts";
import { UsageError } from "./errors.ts";
import { commandHelp, generalHelp } from "./help.ts";
import { parseCommandLine } from "./parse.ts";

/** What a command line is run with: where its output goes, and what reaches it from outside. */
export interface Surroundings {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** The signal that Ctrl-C aborts. Called once, before a `graceful` command runs; others never ask for it. */
  readonly interrupts: () => AbortSignal;
  /** Whether errors are printed with their stack. */
  readonly debug: boolean;
}

/** Exit codes of `pare`. */
export const exitCodes = { ok: 0, failed: 1, couldNotRun: 2, interrupted: 130 } as const;

/** Runs one command line (the words after `pare`) and returns its exit code. */
export async function dispatch(
  words: readonly string[],
  table: CommandTable,
  surroundings: Surroundings,
): Promise<number> {
  try {
    return await runCommand(words, table, surroundings);
  } catch (error) {
    return reportError(error, words, surroundings);
  }
}

/** Says in one line why a command line could not be carried out, and returns the exit code for that. */
export function reportError(error: unknown, words: readonly string[], { out, err, debug }: Surroundings): number {
  const message = (error instanceof Error ? error.message : String(error)).replace(/\s*\n\s*/g, " ");
  // Under --json a program reads standard output: it finds the error there as well.
  if (words.includes("--json")) {
    const code = error instanceof PareError ? error.code : "UNEXPECTED";
    out(`${JSON.stringify({ error: { code, message } })}\n`);
  }
  err(`pare: ${message}\n`);
  if (debug) err(`${inspect(error)}\n`);
  return exitCodes.couldNotRun;
}

async function runCommand(
  words: readonly string[],
  table: CommandTable,
  { out, interrupts }: Surroundings,
): Promise<number> {
  const [name, ...rest] = words;
  if (name === undefined || name === "--help" || name === "-h") {
    out(`${generalHelp(table)}\n`);
    return exitCodes.ok;
  }
  if (name === "--version" || name === "-v") {
    out(`${version()}\n`);
    return exitCodes.ok;
  }
  if (name.startsWith("-")) {
    const hint = didYouMean(name, ["--help", "--version"]);
    throw new UsageError(`unknown option ${name}${hint}; a command's options follow its name: pare <command> ${name}`);
  }
  const entry = Object.hasOwn(table, name) ? table[name] : undefined;
  if (!entry) {
    throw new UsageError(`unknown command "${name}"${didYouMean(name, Object.keys(table))}; pare --help lists them`);
  }
  const command = await entry.load();
  const { args, options, json, help } = parseCommandLine(rest, command);
  if (help) {
    out(`${commandHelp(name, entry.summary, command)}\n`);
    return exitCodes.ok;
  }
  const signal = command.graceful ? interrupts() : new AbortController().signal;
  const outcome = await command.run({ args, options, json, signal } as Input);
  const text = json ? JSON.stringify(outcome.json) : outcome.text;
  if (text !== "") out(`${text}\n`);
  if (signal.aborted) return exitCodes.interrupted;
  return outcome.ok === false ? exitCodes.failed : exitCodes.ok;
}

/** Version of this package. */
export function version(): string {
  const manifest: { version: string } = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  );
  return manifest.version;
}
