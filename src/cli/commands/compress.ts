import { resolve } from "node:path";
import { activationForms, methodNames, procedureOf, targets } from "../../methods/index.ts";
import { megabytes } from "../../report/node.ts";
import { command } from "../command.ts";
import { compressModel } from "../compress/compress.ts";
import { outputFormats, parseFormats } from "../compress/formats.ts";
import { variantTable } from "../compress/table.ts";
import { UsageError } from "../errors.ts";
import { modelArgument, stemOf } from "../model.ts";

/** Makes a model small, writes it for other programs, and shows what that cost. */
export const compress = command({
  args: modelArgument,
  options: {
    to: { type: "string", value: "form", choices: targets, default: "4bit", summary: "what the weights become" },
    method: {
      type: "string",
      value: "name",
      choices: methodNames,
      summary: "how; default gptq, sparsegpt or svd-llm, and without text the plain one",
    },
    block: { type: "string", value: "n", summary: "neighbours that share a scale, or channel; default 32" },
    asymmetric: { type: "flag", summary: "a zero point for each block; default at 3 and 2 bits" },
    keep: { type: "number", value: "share", min: 0, max: 1, default: 0.5, summary: "of sparse or lowrank weights" },
    activations: {
      type: "string",
      value: "form",
      choices: activationForms,
      summary: "inputs of matrices at run time; default keep, with smoothquant 8bit, with quarot 4bit",
    },
    embedding: {
      type: "string",
      value: "form",
      choices: ["keep", "f16", "bf16", "8bit", "4bit", "3bit", "2bit"],
      summary: "the embedding and head, rounded to nearest; default 8bit",
    },
    size: { type: "string", value: "60MB", summary: "bits by matrix, as many as fit into this size" },
    pplIncrease: { type: "string", value: "2%", summary: "bits by matrix, as few as raise perplexity by no more" },
    calibrate: { type: "string", value: "file", summary: "text like what the model will read" },
    windows: { type: "integer", value: "n", min: 1, default: 64, summary: "windows of text to calibrate on" },
    length: { type: "integer", value: "n", min: 2, summary: "tokens in a window; default 512 or what the model reads" },
    text: { type: "string", value: "file", summary: "text to measure on; default the last tenth of --calibrate" },
    out: { type: "string", value: "folder", short: "o", summary: "default the model's name and form" },
    format: { type: "string", value: "list", default: "safetensors", summary: `of ${outputFormats.join(",")}` },
    report: { type: "flag", summary: "measure both models and write report.html and report.json" },
    force: { type: "flag", summary: "replace the folder" },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "of what is random" },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
  },
  graceful: true,
  async run({ args, options, signal }) {
    const { to, method, asymmetric, keep, activations, size, pplIncrease } = options;
    const block = options.block === undefined ? undefined : blockOf(options.block);
    const recipe = { to, method, block, asymmetric: asymmetric || undefined, keep, activations };
    // Before anything is read: what cannot be meant.
    procedureOf(recipe);
    if (size !== undefined && pplIncrease !== undefined)
      throw new UsageError("give --size or --ppl-increase, not both: each says how many bits the other may take");
    const budget =
      size !== undefined
        ? { bytes: bytesOf(size) }
        : pplIncrease !== undefined
          ? { perplexityIncrease: shareOf(pplIncrease) }
          : undefined;
    const name = stemOf(args.model);
    const out = resolve(options.out ?? `${name}-${budget ? "mixed" : to.replace(":", "")}`);
    const result = await compressModel({
      model: args.model,
      recipe,
      budget,
      embedding: options.embedding === "keep" ? null : options.embedding,
      calibrate: options.calibrate,
      text: options.text,
      windows: options.windows,
      length: options.length,
      out,
      formats: parseFormats(options.format),
      report: options.report,
      force: options.force,
      seed: options.seed,
      threads: options.threads,
      signal,
      note: (line) => process.stderr.write(`${line}\n`),
    });
    if (!result) return { text: "", json: { out, stopped: true } };
    const { before, after, report } = result;
    const times = after <= before ? `${(before / after).toFixed(1)} times smaller` : "which is no smaller";
    const summary = `${megabytes(before)} became ${megabytes(after)}, ${times}: ${out}`;
    return {
      text: report ? `${variantTable(report.variants)}\n\n${summary}\n${out}/report.html shows more` : summary,
      json: { out, bytes: { before, after }, matrices: result.reports, ...(report && { report }) },
    };
  },
});

export function blockOf(text: string): number | "channel" {
  if (text === "channel") return text;
  const block = Number(text);
  if (Number.isInteger(block) && block >= 16 && block % 16 === 0) return block;
  throw new UsageError(`--block takes a multiple of 16, or channel, not "${text}"`);
}

const units: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
};

function bytesOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmg]?i?b)$/i.exec(text.trim());
  if (!match) throw new UsageError(`--size takes a size such as 60MB or 1.5GB, not "${text}"`);
  return Math.floor(Number(match[1]) * units[match[2]!.toLowerCase()]!);
}

function shareOf(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*%$/.exec(text.trim());
  if (!match) throw new UsageError(`--ppl-increase takes a share such as 2%, not "${text}"`);
  return Number(match[1]) / 100;
}
