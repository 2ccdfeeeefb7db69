import { resolve } from "node:path";
import { bytesOf } from "../../report/index.ts";
import { megabytes } from "../../report/node.ts";
import { command } from "../command.ts";
import { outputFormats, parseFormats } from "../compress/formats.ts";
import { variantTable } from "../compress/table.ts";
import { measuredText } from "../compress/texts.ts";
import { UsageError } from "../errors.ts";
import { modelArgument, stemOf } from "../model.ts";
import { textOf } from "../text-file.ts";
import { readLessons, trainingText } from "../train/lessons.ts";
import { trainingMethod, trainingMethods } from "../train/methods.ts";
import { outputTypes } from "../train/run-folder.ts";
import { existing, newModel } from "../train/start.ts";
import { trainModel } from "../train/train-model.ts";
import { blockOf } from "./compress.ts";

/** Trains a model: from nothing, all of it further, adapters, or for weights of few bits. */
export const trainCommand = command({
  args: modelArgument,
  options: {
    new: {
      type: "string",
      value: "6x256",
      summary: "a new model of so many layers and such a width, or a config.json",
    },
    vocab: { type: "integer", value: "n", min: 257, default: 4096, summary: "tokens of a new model" },
    text: { type: "string", value: "file", summary: "plain text to learn; default stories that come with pare" },
    data: {
      type: "string",
      value: "file",
      summary: "JSON lines of messages, of prompt and response, or of text; answers are learned",
    },
    method: {
      type: "string",
      value: "name",
      choices: trainingMethods,
      default: "full",
      summary:
        "all weights, adapters (lora, pissa, milora, qlora), or weights of few bits (qat, parq, paretoq, quest, rolora)",
    },
    bits: { type: "number", value: "n", summary: "of weights of few bits; 1.58 is ternary" },
    inputBits: {
      type: "number",
      value: "n",
      summary: "of the matrices' inputs, 16 leaves them: quest, rolora; default --bits",
    },
    block: { type: "string", value: "n", summary: "neighbours that share a scale, or channel: qat, qlora" },
    rank: { type: "integer", value: "n", min: 1, summary: "of adapters, default 8" },
    alpha: { type: "number", value: "n", summary: "of adapters, default twice the rank" },
    steps: { type: "integer", value: "n", min: 1, default: 200, summary: "in all, those of a stopped run included" },
    batch: { type: "integer", value: "n", min: 1, default: 8, summary: "rows in a step" },
    length: { type: "integer", value: "n", min: 2, default: 128, summary: "tokens in a row" },
    accumulate: { type: "integer", value: "n", min: 1, default: 1, summary: "batches that one step averages" },
    rate: { type: "number", value: "n", min: 0, summary: "highest learning rate; default the method's" },
    optimizer: {
      type: "string",
      value: "name",
      choices: ["adamw", "muon"],
      default: "adamw",
      summary: "what moves weights",
    },
    evaluate: { type: "integer", value: "n", min: 1, default: 50, summary: "steps between looks at held-out text" },
    checkpoint: { type: "integer", value: "n", min: 1, default: 50, summary: "steps between checkpoints" },
    dtype: {
      type: "string",
      value: "type",
      choices: outputTypes,
      default: "f16",
      summary: "of what is not packed",
    },
    out: { type: "string", value: "folder", short: "o", summary: "default the model's name and the method" },
    format: { type: "string", value: "list", default: "safetensors", summary: `of ${outputFormats.join(",")}` },
    report: { type: "flag", summary: "measure both models and write report.html and report.json" },
    measure: {
      type: "string",
      value: "file",
      summary: "text that a report measures on; default stories that no model here has read",
    },
    force: { type: "flag", summary: "replace the folder, and checkpoints of another run" },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "of all that is random" },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
  },
  graceful: true,
  example: "pare train HuggingFaceTB/SmolLM2-135M --data chats.jsonl --method lora --steps 500 --out my-chat",
  async run({ args, options, signal }) {
    const { method: name, bits, inputBits, rank, alpha, seed, steps, batch, length, text, data } = options;
    const block = options.block === undefined ? undefined : blockOf(options.block);
    const method = trainingMethod({ method: name, bits, inputBits, block, rank, alpha, seed });
    const formats = parseFormats(options.format);
    if (options.new !== undefined && args.model !== undefined)
      throw new UsageError("give a model to train further, or --new for one from nothing, not both");
    if (options.new !== undefined && data !== undefined)
      throw new UsageError("a new model learns from plain text first; give --text");
    const note = (line: string): void => void process.stderr.write(`${line}\n`);
    const beginning =
      options.new === undefined
        ? await existing(args.model)
        : await newModel(options.new, { text: await textOf(trainingText(text)), vocab: options.vocab, seed });
    const lessons = await readLessons(beginning.tokenizer, { text, data, batch, length, seed });
    if (options.report && beginning.source === null)
      throw new UsageError("a report compares with the model that training began with; a new one has none");
    const report =
      options.report && beginning.source !== null
        ? { source: beginning.source, text: await measuredText(beginning.tokenizer, options.measure, note) }
        : null;
    const rate = options.rate ?? (options.new === undefined ? method.rate : options.optimizer === "muon" ? 0.02 : 2e-3);
    const from = options.new ?? stemOf(args.model);
    const out = resolve(options.out ?? `${from.replace(/\.json$/, "")}-${name}`);
    note(`${method.name}: ${steps} steps on ${lessons.name}, ${lessons.size}`);
    const result = await trainModel({
      beginning,
      method,
      lessons,
      steps,
      rate,
      optimizer: options.optimizer,
      accumulate: options.accumulate,
      evaluateEvery: options.evaluate,
      checkpointEvery: options.checkpoint,
      dtype: options.dtype,
      out,
      formats,
      report,
      identity: {
        from: beginning.source ?? options.new,
        lessons: [lessons.name, lessons.size, batch, length],
        ...{ optimizer: options.optimizer, accumulate: options.accumulate, seed },
      },
      force: options.force,
      seed,
      threads: options.threads,
      signal,
      note,
    });
    if (!result) return { text: "", json: { out, stopped: true } };
    const { weights, report: cost, ...figures } = result;
    const bytes = bytesOf(weights);
    const held = figures.heldOut;
    const lines = [
      held
        ? `held-out loss ${held.before.toFixed(4)} -> ${held.after.toFixed(4)} nats a token (as saved)`
        : `loss ${figures.loss.toFixed(4)} nats a token`,
      `${megabytes(bytes)} of weights: ${out}`,
      `${out}/training/curves.html shows the course of it`,
    ];
    if (cost) lines.unshift(`${variantTable(cost.variants)}\n`);
    return {
      text: lines.join("\n"),
      json: { out, method: method.name, bytes, ...figures, ...(cost && { report: cost }) },
    };
  },
});
