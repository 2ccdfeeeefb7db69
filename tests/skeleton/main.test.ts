import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";

const root = fileURLToPath(new URL("../../", import.meta.url));
const main = new URL("../../src/cli/main.ts", import.meta.url).href;
const tsx = import.meta.resolve("tsx");
let folder: string;

/** A program that runs `main` over two commands, which say when they have begun. */
const program = `
import { main } from ${JSON.stringify(main)};
const outcome = { text: "saved", json: {} };
const command = (graceful, run) => ({ summary: "", load: async () => ({ args: {}, options: {}, graceful, run }) });
const begun = () => process.stderr.write("begun\\n");
await main({
  wait: command(false, () => { begun(); return new Promise(() => setInterval(() => {}, 1000)); }),
  save: command(true, ({ signal }) => {
    begun();
    const work = setInterval(() => {}, 1000);
    return new Promise((resolve) => signal.addEventListener("abort", () => { clearInterval(work); resolve(outcome); }));
  }),
  stubborn: command(true, () => { begun(); return new Promise(() => setInterval(() => {}, 1000)); }),
  stray: command(false, () => { setTimeout(() => { throw new Error("late"); }); return new Promise(() => {}); }),
  linger: command(false, async () => { setInterval(() => {}, 1000); return outcome; }),
});
`;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "pare-main-"));
  writeFileSync(join(folder, "program.mjs"), program);
});
afterAll(() => rmSync(folder, { recursive: true }));

function start(words: string[]): {
  child: ChildProcess;
  ended: Promise<{ code: number | null; out: string; err: string }>;
} {
  const child = spawn(process.execPath, words, { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  let out = "";
  let err = "";
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (err += data));
  return { child, ended: new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err }))) };
}

/** Runs a command of the program, and presses Ctrl-C each time that it has said `presses[i]`. */
async function interrupt(name: string, ...presses: string[]) {
  const { child, ended } = start(["--import", tsx, join(folder, "program.mjs"), name]);
  let said = "";
  child.stderr?.on("data", (data) => {
    said += data;
    if (presses[0] !== undefined && said.includes(presses[0])) {
      presses.shift();
      child.kill("SIGINT");
    }
  });
  return ended;
}

test("Ctrl-C ends a command at once with exit code 130", async () => {
  expect(await interrupt("wait", "begun")).toMatchObject({ code: 130, out: "" });
});

test("Ctrl-C lets a graceful command save first", async () => {
  expect(await interrupt("save", "begun")).toMatchObject({ code: 130, out: "saved\n" });
});

test("a second Ctrl-C ends a graceful command at once", async () => {
  expect(await interrupt("stubborn", "begun", "again to stop")).toMatchObject({ code: 130, out: "" });
});

test("a finished command ends the process, whatever it left behind", async () => {
  expect(await interrupt("linger")).toMatchObject({ code: 0, out: "saved\n" });
});

test("an error that nothing waits for is reported like any other", async () => {
  expect(await interrupt("stray")).toEqual({ code: 2, out: "", err: "pare: late\n" });
});

test("bin/pare.js runs the checkout without a build", async () => {
  expect(await start([join(root, "bin/pare.js"), "docter"]).ended).toEqual({
    code: 2,
    out: "",
    err: 'pare: unknown command "docter" (did you mean "doctor"?); pare --help lists them\n',
  });
});
