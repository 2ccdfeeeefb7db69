import { resolve } from "node:path";
import { writeFileAtomic } from "../../formats/node.ts";
import { summaries, summaryOf, type UpdateReport, type UpdateSummary } from "../../methods/index.ts";
import { analyzeUpdate } from "../../methods/node.ts";
import { percent, updatePage } from "../../report/node.ts";
import { harmless } from "../answer.ts";
import { command } from "../command.ts";
import { UsageError } from "../errors.ts";
import { textTable } from "../table.ts";

/** Shows which weights training changed, and how. */
export const diff = command({
  args: {
    before: {
      summary: "the checkpoint that training began with: a folder, .gguf, llama2.c .bin, or a name on the hub",
      required: true,
    },
    after: { summary: "the one that came of it, of the same architecture", required: true },
  },
  options: {
    alpha: {
      type: "number",
      value: "share",
      default: 0.3,
      summary: "share of a matrix's entries that count as principal, and as small",
    },
    rank: { type: "integer", value: "n", min: 1, summary: "rank of the principal part; default half of the energy" },
    k: {
      type: "integer",
      value: "n",
      min: 1,
      summary: "singular vectors whose rotation is measured; default as many as hold half of the energy",
    },
    matrices: { type: "string", value: "regex", summary: "which matrices, by name; default all of the layers" },
    out: { type: "string", value: "file", short: "o", default: "report.html", summary: "where the picture goes" },
  },
  graceful: true,
  example: "pare diff base/ tuned/ --out report.html",
  async run({ args: { before, after }, options, signal }) {
    const { alpha, rank, k, out, matrices } = options;
    const report = await analyzeUpdate(
      before,
      after,
      {
        alpha,
        signal,
        ...(rank !== undefined && { rank }),
        ...(k !== undefined && { k }),
        ...(matrices !== undefined && { matrices: pattern(matrices) }),
      },
      ({ name }, done, count) => process.stderr.write(`${done}/${count}  ${harmless(name)}\n`),
    );
    await writeFileAtomic(resolve(out), (sink) =>
      sink.write(new TextEncoder().encode(updatePage({ before, after, report }))),
    );
    const rows = [...summaries(report.matrices), summaryOf("all", report.matrices)];
    return {
      text: `${harmless(tableOf(rows, report))}\n\n${resolve(out)} shows more`,
      json: { before, after, ...report, summaries: rows },
    };
  },
});

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    throw new UsageError(`--matrices is no regular expression: ${(error as Error).message}`);
  }
}

function tableOf(rows: readonly UpdateSummary[], { alpha }: UpdateReport): string {
  const optional = (value: number | null, show: (value: number) => string): string =>
    value === null ? "-" : show(value);
  const heads = [
    "matrices",
    "count",
    "unchanged bf16",
    "as stored",
    "drift",
    "angle",
    "size",
    `principal (${percent(alpha)})`,
    `small (${percent(alpha)})`,
    "bounds",
  ];
  const cells = rows.map((s) => [
    s.name,
    `${s.matrices}`,
    percent(s.sparsity),
    percent(s.storedSparsity),
    s.nss.toExponential(2),
    `${Number(s.angle.toPrecision(3))}°`,
    s.size.toExponential(2),
    optional(s.overlaps.principal.share, percent),
    optional(s.overlaps.small.share, percent),
    s.boundsHold ? "hold" : "broken",
  ]);
  return textTable(heads, cells, { right: [1, 2, 3, 4, 5, 6, 7, 8] });
}
