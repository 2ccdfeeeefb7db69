import { expect, test } from "vitest";
import { command, type Outcome } from "../../src/cli/command.ts";
import type { CommandTable } from "../../src/cli/commands/index.ts";
import { dispatch } from "../../src/cli/dispatch.ts";
import { ShapeError } from "../../src/tensor/index.ts";

/** A table with one command, `measure`, that does what is given. */
function tableOf(run: () => Outcome, graceful = false): CommandTable {
  const measure = command({
    args: { model: { summary: "what to measure", required: true }, more: { summary: "others", many: true } },
    options: {
      device: { type: "string", value: "name", choices: ["cpu", "wasm"], default: "cpu", short: "d", summary: "where" },
      dryRun: { type: "flag", summary: "only say what would be done" },
    },
    graceful,
    run: async () => run(),
  });
  return { measure: { summary: "measure a model", load: async () => measure } };
}

const good: Outcome = { text: "4 bits", json: { bits: 4 } };

async function pare(words: string, table = tableOf(() => good), { debug = false, aborted = false } = {}) {
  let out = "";
  let err = "";
  const code = await dispatch(words.split(" ").filter(Boolean), table, {
    out: (text) => (out += text),
    err: (text) => (err += text),
    interrupts: () => (aborted ? AbortSignal.abort() : new AbortController().signal),
    debug,
  });
  return { code, out, err };
}

test("a command prints its text, or one JSON document", async () => {
  expect(await pare("measure m")).toEqual({ code: 0, out: "4 bits\n", err: "" });
  expect(await pare("measure m --json")).toEqual({ code: 0, out: '{"bits":4}\n', err: "" });
});

test("a claim that does not hold gives exit code 1", async () => {
  expect(
    (
      await pare(
        "measure m",
        tableOf(() => ({ ...good, ok: false })),
      )
    ).code,
  ).toBe(1);
});

test("a graceful command that was interrupted gives exit code 130 after what it still has to say", async () => {
  const outcome = await pare(
    "measure m",
    tableOf(() => good, true),
    { aborted: true },
  );
  expect(outcome).toEqual({ code: 130, out: "4 bits\n", err: "" });
});

test("no command, --help and --version print to standard output", async () => {
  for (const words of ["", "--help", "-h"]) {
    const { code, out } = await pare(words);
    expect(code).toBe(0);
    expect(out).toContain("Usage: pare <command>");
    expect(out).toContain("  measure  measure a model\n");
  }
  expect((await pare("--version")).out).toMatch(/^\d+\.\d+\.\d+\S*\n$/);
});

test("a command's help shows its arguments and options", async () => {
  expect(await pare("measure --help")).toEqual({
    code: 0,
    err: "",
    out: [
      "measure a model",
      "",
      "Usage: pare measure <model> [more...] [options]",
      "",
      "Arguments:",
      "  <model>    what to measure",
      "  [more...]  others",
      "",
      "Options:",
      "  -d, --device <name>  where (one of cpu, wasm; default cpu)",
      "      --dry-run        only say what would be done",
      "      --json           print one JSON document on standard output, for programs",
      "  -h, --help           show this help",
      "",
    ].join("\n"),
  });
});

test("a command line that makes no sense gives one line and exit code 2", async () => {
  const refusals = {
    mesure: 'pare: unknown command "mesure" (did you mean "measure"?); pare --help lists them\n',
    constructor: 'pare: unknown command "constructor"; pare --help lists them\n',
    "--hepl":
      'pare: unknown option --hepl (did you mean "--help"?); a command\'s options follow its name: pare <command> --hepl\n',
    measure: "pare: missing argument <model>: what to measure\n",
  };
  for (const [words, err] of Object.entries(refusals)) expect(await pare(words)).toEqual({ code: 2, out: "", err });
});

test("errors are one line for people, JSON for programs, and have a stack on request", async () => {
  const table = tableOf(() => {
    throw new ShapeError("3 rows\n  do not fit 4");
  });
  expect(await pare("measure m", table)).toEqual({ code: 2, out: "", err: "pare: 3 rows do not fit 4\n" });
  const json = await pare("measure m --json", table);
  expect(json.code).toBe(2);
  expect(JSON.parse(json.out)).toEqual({ error: { code: "SHAPE", message: "3 rows do not fit 4" } });
  expect((await pare("measure m", table, { debug: true })).err).toContain("dispatch.test.ts");
});
