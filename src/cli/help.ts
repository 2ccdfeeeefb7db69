import type { ArgSpec, Command, OptionSpec } from "./command.ts";
import type { CommandTable } from "./commands/index.ts";
import { commonOptions, flagName } from "./parse.ts";

/** Two columns, the first as wide as its widest entry. */
function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join("\n");
}

function argUsage(name: string, spec: ArgSpec): string {
  const label = spec.many ? `${name}...` : name;
  return spec.required ? `<${label}>` : `[${label}]`;
}

function optionRow(key: string, spec: OptionSpec): readonly [string, string] {
  const short = spec.short ? `-${spec.short}, ` : "    ";
  const value = spec.type === "flag" ? "" : ` <${spec.value}>`;
  const notes: string[] = [];
  if (spec.type === "string" && spec.choices) notes.push(`one of ${spec.choices.join(", ")}`);
  if (spec.type !== "flag" && spec.default !== undefined) notes.push(`default ${spec.default}`);
  return [
    `${short}--${flagName(key)}${value}`,
    notes.length > 0 ? `${spec.summary} (${notes.join("; ")})` : spec.summary,
  ];
}

/** What `pare --help` shows. */
export function generalHelp(table: CommandTable): string {
  return [
    "Usage: pare <command> [arguments] [options]",
    `Commands:\n${columns(Object.entries(table).map(([name, entry]) => [name, entry.summary] as const))}`,
    `Options:\n${columns([
      ["-h, --help", "show this help, or a command's: pare <command> --help"],
      ["-v, --version", "show the version"],
    ])}`,
    "Exit codes: 0 done, 1 a claim or check did not hold, 2 could not run, 130 stopped by Ctrl-C.",
  ].join("\n\n");
}

/** What `pare <command> --help` shows. */
export function commandHelp(name: string, summary: string, command: Command): string {
  const args = Object.entries(command.args);
  const usage = ["pare", name, ...args.map(([arg, spec]) => argUsage(arg, spec)), "[options]"].join(" ");
  const sections = [summary, `Usage: ${usage}`];
  if (args.length > 0) {
    sections.push(`Arguments:\n${columns(args.map(([arg, spec]) => [argUsage(arg, spec), spec.summary] as const))}`);
  }
  const options = Object.entries({ ...command.options, ...commonOptions });
  sections.push(`Options:\n${columns(options.map(([key, spec]) => optionRow(key, spec)))}`);
  if (command.example !== undefined) sections.push(`Example:\n  ${command.example}`);
  return sections.join("\n\n");
}
