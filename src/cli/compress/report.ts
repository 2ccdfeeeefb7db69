import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { writeFileAtomic } from "../../formats/node.ts";
import type { Report } from "../../report/index.ts";
import { reportPage } from "../../report/node.ts";

/** Writes report.html and report.json. */
export async function writeReport(folder: string, report: Report): Promise<void> {
  await mkdir(folder, { recursive: true });
  const files = { "report.html": reportPage(report), "report.json": `${JSON.stringify(report, null, 2)}\n` };
  for (const [file, text] of Object.entries(files))
    await writeFileAtomic(join(folder, file), (sink) => sink.write(new TextEncoder().encode(text)));
}
