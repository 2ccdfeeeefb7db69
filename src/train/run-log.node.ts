import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { writeFileAtomic } from "../formats/node.ts";
import type { LogEntry } from "./trainer.ts";

/** A training log in a file, one JSON object a line. */
export interface RunLog {
  readonly entries: readonly LogEntry[];
  write(entry: LogEntry): void;
}

/**
 * Opens (or begins) a JSON-lines log. Lines of steps beyond `resumeAt` are dropped: a killed run has logged them, and the resumed
 * one will again. A last line that was cut off is dropped as well.
 */
export async function openRunLog(path: string, resumeAt: number): Promise<RunLog> {
  const entries: LogEntry[] = [];
  if (existsSync(path)) {
    for (const line of readFileSync(path, "utf8").split("\n")) {
      const entry = parsed(line);
      if (entry && entry.step <= resumeAt) entries.push(entry);
    }
  }
  const text = entries.map((entry) => `${JSON.stringify(entry)}\n`).join("");
  await writeFileAtomic(path, (sink) => sink.write(new TextEncoder().encode(text)));
  return {
    entries,
    write(entry) {
      entries.push(entry);
      appendFileSync(path, `${JSON.stringify(entry)}\n`);
    },
  };
}

function parsed(line: string): LogEntry | undefined {
  try {
    const entry = JSON.parse(line) as Partial<LogEntry> | null;
    return typeof entry?.step === "number" ? (entry as LogEntry) : undefined;
  } catch {
    return undefined;
  }
}
