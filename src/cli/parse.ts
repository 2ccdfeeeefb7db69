import { parseArgs } from "node:util";
import { didYouMean } from "../tensor/suggest.ts";
import type { Command, OptionSpec } from "./command.ts";
import { UsageError } from "./errors.ts";

/** Options that every command takes. */
export const commonOptions = {
  json: { type: "flag", summary: "print one JSON document on standard output, for programs" },
  help: { type: "flag", short: "h", summary: "show this help" },
} as const satisfies Record<string, OptionSpec>;

/** How an option is written: `maxTokens` as `max-tokens`. */
export function flagName(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

/** What a command line says, by the names that the command's declaration gives. */
export interface Parsed {
  readonly args: Record<string, string | string[] | undefined>;
  readonly options: Record<string, string | number | boolean | undefined>;
  readonly json: boolean;
  readonly help: boolean;
}

/**
 * The words after the command's name, checked against its declaration. Values stay the text that was written unless
 * their option is a number.
 * @throws UsageError for an unknown option, a missing or malformed value, a missing or superfluous argument; asking
 *   for help forgives the arguments.
 */
export function parseCommandLine(words: readonly string[], command: Pick<Command, "args" | "options">): Parsed {
  const specs: Record<string, OptionSpec> = { ...command.options, ...commonOptions };
  const keys = new Map(Object.keys(specs).map((key) => [flagName(key), key]));
  const { tokens } = parseArgs({
    args: [...words],
    // Not strict: it only splits the words; what they may be is checked below, with better messages.
    strict: false,
    tokens: true,
    options: Object.fromEntries(
      Object.entries(specs).map(([key, spec]) => [
        flagName(key),
        { type: spec.type === "flag" ? "boolean" : "string", ...(spec.short ? { short: spec.short } : {}) },
      ]),
    ),
  });
  const options: Parsed["options"] = {};
  for (const [key, spec] of Object.entries(specs)) options[key] = spec.type === "flag" ? false : spec.default;
  const positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const key = keys.get(token.name);
    if (key === undefined) {
      const flags = [...keys.keys()].map((name) => `--${name}`);
      throw new UsageError(`unknown option ${token.rawName}${didYouMean(token.rawName, flags)}`);
    }
    options[key] = optionValue(token.rawName, specs[key]!, token.value, token.inlineValue === true);
  }
  const { json, help, ...own } = options;
  const args = help === true ? {} : assignArguments(positionals, command.args);
  return { args, options: own, json: json === true, help: help === true };
}

function optionValue(
  flag: string,
  spec: OptionSpec,
  value: string | undefined,
  inline: boolean,
): string | number | boolean {
  if (spec.type === "flag") {
    if (inline) throw new UsageError(`${flag} takes no value, but was given "${value}"`);
    return true;
  }
  if (value === undefined) throw new UsageError(`${flag} needs a value: ${flag} <${spec.value}>`);
  if (!inline && value.startsWith("--")) {
    throw new UsageError(
      `${flag} needs a value, but ${value} follows it (write ${flag}=${value} if that is the value)`,
    );
  }
  if (spec.type === "string") {
    if (spec.choices && !spec.choices.includes(value)) {
      throw new UsageError(
        `${flag} is one of ${spec.choices.join(", ")}, not "${value}"${didYouMean(value, spec.choices)}`,
      );
    }
    return value;
  }
  const number = value.trim() === "" ? Number.NaN : Number(value);
  const whole = spec.type === "integer";
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = spec;
  if (!Number.isFinite(number) || (whole && !Number.isSafeInteger(number)) || number < min || number > max) {
    const bounds = [spec.min === undefined ? "" : ` >= ${spec.min}`, spec.max === undefined ? "" : ` <= ${spec.max}`];
    throw new UsageError(
      `${flag} is ${whole ? "a whole number" : "a number"}${bounds.filter(Boolean).join(" and")}, not "${value}"`,
    );
  }
  return number;
}

function assignArguments(words: readonly string[], specs: Command["args"]): Parsed["args"] {
  const args: Parsed["args"] = {};
  let at = 0;
  for (const [name, spec] of Object.entries(specs)) {
    if (spec.required && at >= words.length) throw new UsageError(`missing argument <${name}>: ${spec.summary}`);
    args[name] = spec.many ? words.slice(at) : words[at];
    at = spec.many ? words.length : at + 1;
  }
  if (at < words.length) throw new UsageError(`unexpected argument "${words[at]}"`);
  return args;
}
