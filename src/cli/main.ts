import { type CommandTable, commands } from "./commands/index.ts";
import { dispatch, exitCodes, reportError, type Surroundings } from "./dispatch.ts";

/** Runs the process's own command line and ends the process with its exit code. */
export async function main(table: CommandTable = commands): Promise<never> {
  // A reader that has seen enough (`pare ... | head`) closes the pipe: that is no failure of ours.
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code === "EPIPE") process.exit(exitCodes.ok);
    throw error;
  });
  let controller: AbortController | undefined;
  process.on("SIGINT", () => {
    if (!controller || controller.signal.aborted) process.exit(exitCodes.interrupted);
    controller.abort();
    process.stderr.write("pare: stopping; press Ctrl-C again to stop at once\n");
  });
  const words = process.argv.slice(2);
  const surroundings: Surroundings = {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
    interrupts: () => {
      controller = new AbortController();
      return controller.signal;
    },
    debug: Boolean(process.env["PARE_DEBUG"]),
  };
  // What goes wrong outside of the command's own course must not pass for a claim that did not hold, Node's exit code 1.
  process.on("uncaughtException", (error) => process.exit(reportError(error, words, surroundings)));
  const code = await dispatch(words, table, surroundings);
  // Worker threads of a runtime must not keep a finished command alive, nor may ending it cut off what it printed.
  await new Promise<void>((resolve) => process.stdout.write("", () => resolve()));
  process.exit(code);
}
