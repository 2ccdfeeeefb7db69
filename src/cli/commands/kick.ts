import { mkdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import {
  kick as audit,
  disagreementLines,
  type KickReport,
  type KickSetting,
  kickCompressors,
  rowName,
  scoreKey,
} from "../../evaluate/index.ts";
import { openKickStore, sha256 } from "../../evaluate/node.ts";
import { writeFileAtomic } from "../../formats/node.ts";
import { requireTokenizer } from "../../models/index.ts";
import { embeddedModel, openModel } from "../../models/node.ts";
import { type KickDocument, kickPage } from "../../report/node.ts";
import { isHostTensor, leavesOf } from "../../tensor/index.ts";
import { command } from "../command.ts";
import { machineName } from "../compress/measure.ts";
import { readTexts } from "../compress/texts.ts";
import { UsageError } from "../errors.ts";
import { openJudge } from "../kick/judge.ts";
import { kickTaskNames, ownTaskNames, readKickTasks } from "../kick/tasks.ts";
import { textTable } from "../table.ts";

const compressors = Object.keys(kickCompressors());

/** Finds out what compression takes from a model that perplexity does not show. */
export const kick = command({
  args: {
    model: { summary: "as pare run takes it; default the model that pare brings" },
  },
  options: {
    methods: {
      type: "string",
      value: "a,b,...",
      default: compressors.join(","),
      summary: `of ${compressors.join(", ")}`,
    },
    tasks: {
      type: "string",
      value: "a,b,...",
      default: ownTaskNames.join(","),
      summary: `of ${kickTaskNames.join(", ")}; factoid=<file.jsonl> takes your own questions`,
    },
    sparsity: { type: "string", value: "a,b,...", default: "0.1,0.3,0.5,0.7", summary: "shares that pruning drops" },
    patterns: {
      type: "string",
      value: "n:m,...",
      default: "2:4",
      summary: "patterns that pruning keeps; none for none",
    },
    bits: { type: "string", value: "a,b,...", default: "8,4,3,2", summary: "bits that rounding goes to" },
    block: { type: "integer", value: "n", min: 16, summary: "neighbours that share a scale; default whole rows" },
    runs: { type: "integer", value: "n", min: 1, default: 3, summary: "calibration seeds of methods that calibrate" },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "the first of them" },
    eps: {
      type: "number",
      value: "share",
      min: 0,
      max: 0.99,
      default: 0.05,
      summary: "loss that still counts as matching",
    },
    limit: { type: "integer", value: "n", min: 1, default: 200, summary: "items of each task at most" },
    data: { type: "string", value: "folder", summary: "where the published sets of questions lie" },
    calibrate: { type: "string", value: "file", summary: "text to calibrate on" },
    samples: { type: "integer", value: "n", min: 1, default: 128, summary: "calibration windows" },
    length: {
      type: "integer",
      value: "tokens",
      min: 1,
      summary: "of a calibration window; default what fits, 2048 at most",
    },
    text: { type: "string", value: "file", summary: "text of perplexity; default the last tenth of --calibrate" },
    tokens: { type: "integer", value: "n", min: 2, default: 16_384, summary: "tokens of it at most" },
    judge: { type: "string", value: "url|model", summary: "judges summary and instruct: a chat interface, or a model" },
    judgeModel: {
      type: "string",
      value: "name",
      summary: "of the model behind the judge's address; key in PARE_JUDGE_KEY",
    },
    out: {
      type: "string",
      value: "folder",
      short: "o",
      default: "kick",
      summary: "report.html, report.json, and what is done",
    },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
  },
  graceful: true,
  example: "pare kick --methods magnitude,wanda,nearest --sparsity 0.2,0.5 --bits 8,4 --limit 100 --out report",
  async run({ args, options, signal }) {
    const { tasks: names, data, threads, out, seed, runs, eps, limit, samples } = options;
    const folder = resolve(out);
    const device = threads === undefined ? {} : { threads };
    const chosen = compressorsOf(options);
    const tasks = await readKickTasks(names, data);
    if (tasks.some(({ judged }) => judged) && options.judge === undefined)
      throw new UsageError("summary and instruct are judged; --judge names a chat interface or a model");
    await using model = await openModel(args.model ?? embeddedModel);
    const tokenizer = requireTokenizer(model);
    const texts = await readTexts(model.source, tokenizer, options, say);
    if (!texts.calibration || !texts.measured)
      throw new UsageError("methods calibrate on text like what the model will read; --calibrate names some");
    const length =
      options.length ?? Math.min(2048, model.config.maxPositions, Math.floor(texts.calibration.length / samples));
    const measured = texts.measured.tokens.slice(0, options.tokens);
    await mkdir(folder, { recursive: true });
    const settings = {
      weights: leavesOf(model.weights, isHostTensor).map(({ path, leaf }) => [path, sha256(leaf.rawBytes())]),
      tokenizer: sha256(tokenizer.files),
      tasks: tasks.map(({ name, items, metrics, settings: of }) => ({ name, items, metrics, settings: of })),
      calibration: sha256([...texts.calibration]),
      text: sha256(measured),
      judge: [options.judge ?? null, options.judgeModel ?? null],
      ...{ samples, length, seed, limit, block: options.block ?? null },
    };
    const store = await openKickStore(folder, { sha256: sha256(settings) });
    await using judging =
      options.judge === undefined
        ? null
        : await openJudge({ judge: options.judge, judgeModel: options.judgeModel, out: folder, threads, signal });
    try {
      const report = await audit(
        { config: model.config, weights: model.weights, tokenizer },
        {
          ...device,
          ...{ tasks, compressors: chosen, eps, runs, seed, limit, store, signal },
          judging: judging ?? undefined,
          calibration: { tokens: texts.calibration, count: samples, length },
          text: { tokens: measured },
          onProgress: ({ model: name, done, total, task }) =>
            say(`${done} of ${total} models; ${name}: ${task ?? "text"}`, true),
        },
      );
      for (const warning of report.warnings) say(`warning: ${warning}`);
      const document: KickDocument = {
        model: args.model === undefined ? "the model that pare brings" : basename(args.model),
        machine: machineName(),
        text: { name: texts.measured.name, tokens: measured.length },
        items: Object.fromEntries(tasks.map(({ name, items }) => [name, Math.min(limit, items.length)])),
        judgeCalls: judging?.calls ?? null,
        report,
      };
      for (const [file, text] of [
        ["report.html", kickPage(document)],
        ["report.json", `${JSON.stringify(document, null, 2)}\n`],
      ] as const)
        await writeFileAtomic(join(folder, file), (sink) => sink.write(new TextEncoder().encode(text)));
      const main = tasks.map((task) => scoreKey(task, task.metrics[0]!));
      return { text: `${tableOf(report, main)}\n\n${join(folder, "report.html")} shows more`, json: document };
    } catch (error) {
      if (!signal.aborted || error !== signal.reason) throw error;
      return {
        text: `stopped; the same command goes on from ${store.path}`,
        json: { stopped: true, kept: store.path },
      };
    }
  },
});

/** A line of progress: on a terminal each over the one before. */
function say(line: string, passing = false): void {
  if (!process.stderr.isTTY) process.stderr.write(`${line}\n`);
  else process.stderr.write(passing ? `\r\u001b[K${line}` : `\r\u001b[K${line}\n`);
}

interface Grid {
  readonly methods: string;
  readonly sparsity: string;
  readonly patterns: string;
  readonly bits: string;
  readonly block: number | undefined;
}

function compressorsOf({ methods, sparsity, patterns, bits, block }: Grid) {
  const known = kickCompressors(block === undefined ? {} : { block });
  const pruning: KickSetting[] = [
    ...numbersOf("--sparsity", sparsity).map((share) => ({ sparsity: share })),
    ...listOf(patterns).map((pattern) => ({ pattern: pattern as `${number}:${number}` })),
  ];
  const rounding: KickSetting[] = numbersOf("--bits", bits).map((count) => ({ bits: count }));
  return listOf(methods).map((name) => {
    const compressor = known[name];
    if (!compressor) throw new UsageError(`--methods takes ${compressors.join(", ")}, not "${name}"`);
    return { compressor, grid: name === "nearest" || name === "gptq" ? rounding : pruning };
  });
}

const listOf = (text: string): string[] =>
  text === "none"
    ? []
    : text
        .split(",")
        .map((part) => part.trim())
        .filter((part) => part !== "");

function numbersOf(flag: string, text: string): number[] {
  return listOf(text).map((part) => {
    const number = Number(part);
    if (Number.isNaN(number)) throw new UsageError(`${flag} takes numbers with commas between them, not "${part}"`);
    return number;
  });
}

function tableOf(report: KickReport, keys: readonly string[]): string {
  const { dense, rows } = report;
  const shown = (value: number | null): string => (value === null ? "–" : value.toFixed(3));
  const lines = [
    ["dense", "", "", dense.perplexity.toFixed(2), ...keys.map((key) => shown(dense.scores[key]!.value))],
    ...rows.map((row) => [
      rowName(row),
      `${(100 * row.achievedSparsity).toFixed(0)} %`,
      row.bitsPerWeight.toFixed(2),
      row.perplexity.toFixed(2),
      ...keys.map((key) => `${shown(row.scores[key]!.mean)}${row.scores[key]!.matching ? "" : " *"}`),
    ]),
  ];
  const heads = ["model", "sparsity", "bits/weight", "perplexity", ...keys];
  const right = heads.map((_, i) => i).slice(1);
  const pairs = disagreementLines(report).map((line) => `- ${line}`);
  const note = `* lost more than ${+(100 * report.eps).toFixed(1)} % of the dense model's score`;
  const where = pairs.length > 0 ? ["", "Where perplexity and tasks disagree:", ...pairs] : [];
  return [textTable(heads, lines, { right }), note, ...where].join("\n");
}
