import { evaluateModel, type Report } from "../../evaluate/node.ts";
import { embeddedModel, openModel } from "../../models/node.ts";
import { command } from "../command.ts";
import { UsageError } from "../errors.ts";
import { modelArgument, modelOptions } from "../model.ts";
import { textTable } from "../table.ts";

/** Evaluates a model on tasks, as lm-evaluation-harness would. */
export const evaluate = command({
  args: modelArgument,
  options: {
    ...modelOptions,
    tasks: {
      type: "string",
      value: "a,b,...",
      default: "held_out,continuations",
      summary: "tasks, or .json files that define one",
    },
    data: { type: "string", value: "folder", summary: "where data lies that pare does not come with" },
    limit: { type: "integer", value: "n", min: 1, summary: "only the first documents of each task" },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "of drawn examples, sampling and intervals" },
    window: { type: "integer", value: "tokens", min: 1, summary: "of perplexity; default all that the model reads" },
    stride: { type: "integer", value: "tokens", min: 1, summary: "between windows; default the window" },
    out: { type: "string", value: "folder", summary: "keeps results document by document, and goes on from there" },
  },
  graceful: true,
  async run({ args, options, signal }) {
    const { tasks, data, limit, seed, window, stride, device, threads, out } = options;
    const names = tasks.split(",").map((name) => name.trim());
    if (names.includes("")) throw new UsageError(`--tasks takes names with commas between them, not "${tasks}"`);
    await using model = await openModel(args.model ?? embeddedModel);
    const report = await evaluateModel(model, {
      tasks: names,
      data,
      limit,
      seed,
      out,
      signal,
      windows: { ...(window !== undefined && { window }), ...(stride !== undefined && { stride }) },
      device,
      ...(threads !== undefined && { threads }),
      ...(process.stderr.isTTY && { onDocument: showProgress }),
    });
    return { text: tableOf(report), json: report };
  },
});

function showProgress(task: string, done: number, total: number): void {
  process.stderr.write(`\r${task}: ${done} of ${total} documents${done === total ? "\n" : ""}`);
}

function tableOf({ model, tasks }: Report): string {
  const rows = tasks.flatMap(({ task, version, metrics, documents, asked }) =>
    Object.entries(metrics).map(([metric, { value, stderr, low, high }]) => [
      task,
      `${version}`,
      metric,
      shown(value),
      shown(stderr),
      `${shown(low)} to ${shown(high)}`,
      documents === asked ? `${documents}` : `${documents} of ${asked}`,
    ]),
  );
  const heads = ["task", "version", "metric", "value", "stderr", "95% interval", "documents"];
  const cut = tasks
    .filter(({ truncated }) => truncated > 0)
    .map(({ task, truncated }) => `${task}: ${truncated} prompts were too long for the model and lost their beginning`);
  return [model.source, textTable(heads, rows, { right: [3, 4, 6] }), ...cut].join("\n");
}

const shown = (value: number): string => value.toFixed(4);
