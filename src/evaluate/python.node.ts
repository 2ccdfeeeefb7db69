import { type ChildProcess, fork } from "node:child_process";
import { mkdtemp, realpath, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ArgumentError } from "../tensor/index.ts";
import { SandboxError } from "./errors.ts";
import type { ProgramResult, PythonProgram } from "./python.ts";

/** What of a program's output is kept. */
const OUTPUT_BYTES = 64 * 2 ** 10;
/** The interpreter starts in well under a second; on a machine with much else to do it may take long. */
const START_SECONDS = 120;

const child = fileURLToPath(new URL("./python-child.node.mjs", import.meta.url));

/**
 * Runs Python programs that nobody vouches for, each in a process of its own that is killed afterwards: CPython compiled
 * to WebAssembly (Pyodide), without the network, without the host's files, under limits of time and memory. While a
 * program runs, the process for the next one already starts.
 */
export class PythonRunner implements AsyncDisposable {
  readonly #folder: string;
  readonly #interpreter: string;
  #spare: Promise<ChildProcess> | undefined;
  #disposed = false;

  private constructor(folder: string, interpreter: string) {
    this.#folder = folder;
    this.#interpreter = interpreter;
  }

  /** Starts the interpreter once and keeps its image. @throws SandboxError where that fails */
  static async open(): Promise<PythonRunner> {
    // Permissions are checked for real paths.
    const folder = await realpath(await mkdtemp(join(tmpdir(), "pare-python-")));
    const interpreter = await realpath(createRequire(import.meta.url).resolve("pyodide/pyodide.mjs"));
    const runner = new PythonRunner(folder, interpreter);
    const maker = runner.#fork("snapshot");
    const code = await new Promise<number | null>((resolve) => maker.once("exit", resolve));
    if (code === 0) return runner;
    await runner.dispose();
    throw new SandboxError(`the Python interpreter did not start (exit code ${code}); is the package pyodide whole?`);
  }

  /** Runs a program to its end or to a limit. @throws SandboxError when no process can be started */
  async run({ code, seconds, megabytes }: PythonProgram): Promise<ProgramResult> {
    if (this.#disposed) throw new SandboxError("this runner has been disposed of");
    if (!(seconds > 0) || !(megabytes >= 64))
      throw new ArgumentError(`a program needs time and at least 64 MB, not ${seconds} s and ${megabytes} MB`);
    const running = await (this.#spare ?? this.#start());
    this.#spare = this.#start();
    // Waited for by the next run; when there is none, its failure means nothing.
    this.#spare.catch(() => undefined);
    return await new Promise((resolve) => {
      // A program that loops would outlive this process.
      const kill = (): boolean => running.kill("SIGKILL");
      process.once("exit", kill);
      const end = (result: ProgramResult): void => {
        clearTimeout(timer);
        process.off("exit", kill);
        kill();
        resolve(result);
      };
      const ended = (status: ProgramResult["status"], error: string): void => end({ status, error, output: "" });
      const timer = setTimeout(() => ended("timeout", `no end after ${seconds} s`), seconds * 1000);
      running.once("message", (result: ProgramResult) => end(result));
      running.once("exit", (exit, signal) => ended("crashed", `the interpreter ended with ${signal ?? exit}`));
      running.send({ code, megabytes, outputBytes: OUTPUT_BYTES }, (error) => {
        if (error) ended("crashed", error.message);
      });
    });
  }

  /** Ends what still runs and removes the interpreter's image. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    (await this.#spare?.catch(() => undefined))?.kill("SIGKILL");
    await rm(this.#folder, { recursive: true, force: true });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  #fork(task: "snapshot" | "run"): ChildProcess {
    const flag = process.allowedNodeEnvironmentFlags.has("--permission") ? "--permission" : "--experimental-permission";
    // The interpreter loads `ws` when it starts, which lies beside it or further up.
    const sockets = createRequire(this.#interpreter).resolve("ws/package.json");
    const readable = [`${dirname(this.#interpreter)}/*`, `${dirname(sockets)}/*`, child, `${this.#folder}/*`];
    return fork(child, [this.#interpreter, join(this.#folder, "image"), task], {
      execArgv: [
        flag,
        ...readable.map((path) => `--allow-fs-read=${path}`),
        ...(task === "snapshot" ? [`--allow-fs-write=${this.#folder}/*`] : []),
        "--disallow-code-generation-from-strings",
        "--max-old-space-size=256",
        "--no-warnings",
      ],
      env: {},
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
  }

  /** A process that waits for its program. */
  #start(): Promise<ChildProcess> {
    const started = this.#fork("run");
    return new Promise((resolve, reject) => {
      const failed = (why: string): void => {
        clearTimeout(timer);
        started.kill("SIGKILL");
        reject(new SandboxError(`the Python interpreter did not start: ${why}`));
      };
      const timer = setTimeout(() => failed(`no answer after ${START_SECONDS} s`), START_SECONDS * 1000);
      const onExit = (code: number | null): void => failed(`it ended with ${code}`);
      started.once("exit", onExit);
      started.once("error", (error) => failed(error.message));
      started.once("message", () => {
        clearTimeout(timer);
        started.off("exit", onExit);
        resolve(started);
      });
    });
  }
}
