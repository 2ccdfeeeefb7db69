/** A Python program with the limits that it runs under. */
export interface PythonProgram {
  readonly code: string;
  /** Wall-clock limit, from the program's start. */
  readonly seconds: number;
  /** Limit of the interpreter's memory, its own 30 MB included. */
  readonly megabytes: number;
}

/** How a program ended. */
export interface ProgramResult {
  /**
   * `passed`: it ran to its end. `failed`: an exception, `SystemExit` included. `timeout`: killed at the time limit.
   * `memory`: it asked for more memory than it may have. `crashed`: the interpreter ended otherwise.
   */
  readonly status: "passed" | "failed" | "timeout" | "memory" | "crashed";
  /** The last line of the exception's report. */
  readonly error: string | null;
  /** What it printed, cut off at a limit. */
  readonly output: string;
}
