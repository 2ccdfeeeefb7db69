import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { commands } from "../../src/cli/commands/index.ts";
import { dispatch } from "../../src/cli/dispatch.ts";

const program = fileURLToPath(new URL("../../bin/pare.js", import.meta.url));

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

/** Starts `pare` as users do. */
export function start(...words: string[]): { child: ChildProcessWithoutNullStreams; ended: Promise<Ended> } {
  const child = spawn(process.execPath, [program, ...words]);
  let [out, err] = ["", ""];
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (err += data));
  return { child, ended: new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err }))) };
}

/** Runs a command line in this process, which is faster. */
export async function pare(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  let [out, err] = ["", ""];
  const code = await dispatch(words, commands, {
    out: (text) => (out += text),
    err: (text) => (err += text),
    interrupts: () => new AbortController().signal,
    debug: false,
  });
  return { code, out, err };
}
