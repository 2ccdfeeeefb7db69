import { resolve } from "node:path";
import { requireTokenizer } from "../../models/index.ts";
import { openModel } from "../../models/node.ts";
import { bytesOf, type Subject, type Variant } from "../../report/index.ts";
import { command } from "../command.ts";
import { machineName, measureVariant } from "../compress/measure.ts";
import { writeReport } from "../compress/report.ts";
import { variantTable } from "../compress/table.ts";
import { measuredText } from "../compress/texts.ts";
import { UsageError } from "../errors.ts";

/** Measures models side by side, whoever made them. */
export const compare = command({
  args: {
    models: {
      summary: "as pare run takes them; the first is what the others are compared with",
      required: true,
      many: true,
    },
  },
  options: {
    text: { type: "string", value: "file", summary: "text to measure on; default the one that comes with pare" },
    tokens: { type: "integer", value: "n", min: 2, default: 16_384, summary: "tokens of it to measure on at most" },
    prompt: { type: "string", value: "text", default: "Once upon a time", summary: "what the samples continue" },
    out: { type: "string", value: "folder", short: "o", default: ".", summary: "where report.html and report.json go" },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
  },
  async run({ args, options, signal }) {
    if (new Set(args.models).size < args.models.length)
      throw new UsageError("a model is named twice; each is a line of the report");
    const { prompt, tokens: limit, threads, out } = options;
    const variants: Variant[] = [];
    let reference: Subject | null = null;
    let text = { name: "", tokens: 0 };
    for (const place of args.models) {
      process.stderr.write(`measuring ${place}\n`);
      await using model = await openModel(place);
      const tokenizer = requireTokenizer(model);
      const measured = await measuredText(tokenizer, options.text, warn);
      const { config, weights } = model;
      const subject: Subject = { name: place, config, weights, tokenizer, bytes: bytesOf(weights) };
      const same: Subject | null = reference && sameTokens(reference, subject) ? reference : null;
      variants.push(
        await measureVariant(subject, model.source, same, { text: measured, limit, prompt, signal, threads }),
      );
      text = { name: measured.name, tokens: Math.min(limit, measured.tokens.length) };
      reference ??= subject;
    }
    const report = {
      title: `${args.models.length} models compared`,
      machine: machineName(),
      text,
      prompt,
      variants,
      histograms: [],
      sensitivity: [],
      cache: null,
    };
    await writeReport(resolve(out), report);
    return { text: `${variantTable(variants)}\n\n${resolve(out)}/report.html shows more`, json: report };
  },
});

const warn = (line: string): void => void process.stderr.write(`${line}\n`);

/** Whether two models' distributions are over the same tokens. */
function sameTokens(a: Subject, b: Subject): boolean {
  const { vocab } = a.config;
  if (vocab !== b.config.vocab) return false;
  for (let id = 0; id < vocab; id++) if (a.tokenizer.idToToken(id) !== b.tokenizer.idToToken(id)) return false;
  return true;
}
