/** `tsx bench/main.ts <name> [--json] [--rounds N] [--threads N]`; see README.md. */
import { parseArgs } from "node:util";
import { compare } from "./harness.ts";
import { type Bench, loadAverages, product, summarize, table } from "./report.ts";
import { train } from "./train.ts";

const benches: Readonly<Record<string, Bench>> = { train };

/** How long each participant works in a round, in seconds; a step that has begun is finished. */
const turn = 2;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    rounds: { type: "string", default: "5" },
    threads: { type: "string", default: "2" },
  },
});
const [name] = positionals;
const bench = Object.hasOwn(benches, name ?? "") ? benches[name!] : undefined;
if (!bench || positionals.length > 1) {
  console.error(`name one bench: ${Object.keys(benches).join(", ")}`);
  process.exit(2);
}

/** A line for people: on standard error where standard output is for programs. */
const say = values.json ? console.error : console.log;

const load = loadAverages();
const measured = await compare([bench.ours, ...bench.peers, product], {
  rounds: positive("rounds"),
  threads: positive("threads"),
  seconds: turn,
  log: console.error,
});
bench.check(measured);
const result = summarize(bench, measured, load);
say(`\n${table(bench, measured, result)}`);
if (values.json) console.log(JSON.stringify(result));

function positive(option: "rounds" | "threads"): number {
  const value = Number(values[option]);
  if (Number.isInteger(value) && value > 0) return value;
  console.error(`--${option} takes a whole number from 1, not ${values[option]}`);
  process.exit(2);
}
