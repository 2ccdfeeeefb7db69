/** `tsx bench/main.ts <name> [--json] [--rounds N] [--threads N]` and options of the bench; see README.md. */
import { parseArgs } from "node:util";
import { type Command, UsageError } from "./command.ts";
import { compress } from "./compress.ts";
import { decode } from "./decode/decode.ts";
import { linalg } from "./linalg.ts";
import { merge } from "./merge/merge.ts";
import { qat } from "./qat/qat.ts";
import { throughput } from "./report.ts";
import { train } from "./train.ts";

const benches: Readonly<Record<string, Command>> = { train: throughput(train), decode, compress, linalg, merge, qat };

const { rounds, threads, json, ...given } = readArguments();
try {
  const { result, text } = await given.bench.run({
    rounds: positive("rounds", rounds),
    threads: positive("threads", threads),
    options: given.options,
    log: console.error,
  });
  // Standard output is for programs where they asked for it.
  (json ? console.error : console.log)(`\n${text}`);
  if (json) console.log(JSON.stringify(result));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  refuse(error.message);
}

function readArguments() {
  const [name = "", ...args] = process.argv.slice(2);
  const bench = Object.hasOwn(benches, name)
    ? benches[name]!
    : refuse(`name one bench: ${Object.keys(benches).join(", ")}`);
  const own = Object.entries(bench.options).map(([key, value]) => [key, { type: "string", default: value }] as const);
  const { json, rounds, threads, ...options } = parseArgs({
    args,
    options: {
      json: { type: "boolean", default: false },
      rounds: { type: "string", default: "5" },
      threads: { type: "string", default: "2" },
      ...Object.fromEntries(own),
    },
  }).values;
  return { bench, json, rounds, threads, options: options as Record<string, string> };
}

function positive(option: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new UsageError(`--${option} takes a whole number from 1, not ${text}`);
}

function refuse(message: string): never {
  console.error(message);
  process.exit(2);
}
