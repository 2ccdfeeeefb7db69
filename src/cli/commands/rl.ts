import { resolve } from "node:path";
import { fullTraining, loraTraining, maskKinds, spectralTraining, type TrainingMethod } from "../../methods/index.ts";
import { decoderConfig } from "../../models/index.ts";
import { bytesOf } from "../../report/index.ts";
import { megabytes } from "../../report/node.ts";
import { verifierNames } from "../../train/index.ts";
import { command } from "../command.ts";
import { UsageError } from "../errors.ts";
import { endTokens, readGenerationConfig } from "../generation-config.ts";
import { modelArgument, stemOf } from "../model.ts";
import { readQuestions } from "../rl/prompts.ts";
import { reinforce } from "../rl/reinforce.ts";
import { nameOf } from "../text-file.ts";
import { outputTypes } from "../train/run-folder.ts";
import { existing } from "../train/start.ts";

const adapters = ["none", "lora", "pissa", "milora"] as const;

/** Trains a model by rewards that a program can check: answers that are right become likelier. */
export const rl = command({
  args: modelArgument,
  options: {
    prompts: {
      type: "string",
      value: "file",
      summary: 'JSON lines of {"prompt": "...", "answer": "..."}',
    },
    verify: {
      type: "string",
      value: "how",
      choices: verifierNames,
      default: "exact",
      summary: "the completion is the answer, its last number is, or the answer is an expression found in it",
    },
    samples: { type: "integer", value: "n", min: 2, default: 8, summary: "completions of a prompt, that are compared" },
    batch: { type: "integer", value: "n", min: 1, default: 8, summary: "prompts in a step" },
    steps: { type: "integer", value: "n", min: 1, default: 100, summary: "in all, those of a stopped run included" },
    rate: { type: "number", value: "n", min: 0, summary: "learning rate; default 1e-5, of adapters 1e-4" },
    kl: {
      type: "number",
      value: "n",
      min: 0,
      default: 0,
      summary: "weight of the divergence from the model that training began with",
    },
    mask: {
      type: "string",
      value: "name",
      choices: ["none", ...maskKinds],
      default: "none",
      summary: "entries of the layers' matrices that may change: small or not principal ones, principal, small, random",
    },
    maskShare: {
      type: "number",
      value: "share",
      summary: "share of entries that a mask counts as principal, and as small; default 0.5",
    },
    adapter: {
      type: "string",
      value: "name",
      choices: adapters,
      default: "none",
      summary: "trains thin matrices only and merges them at the end",
    },
    rank: { type: "integer", value: "n", min: 1, summary: "of adapters, default 8" },
    maxTokens: { type: "integer", value: "n", min: 1, default: 64, summary: "of a completion" },
    temperature: { type: "number", value: "t", default: 1, summary: "at which completions are drawn" },
    raw: { type: "flag", summary: "continue prompts as they stand, even where the model has a chat template" },
    accumulate: { type: "integer", value: "n", min: 1, default: 1, summary: "parts of a step, to take less memory" },
    checkpoint: { type: "integer", value: "n", min: 1, default: 10, summary: "steps between checkpoints" },
    dtype: { type: "string", value: "type", choices: outputTypes, default: "f16", summary: "of what is written" },
    out: { type: "string", value: "folder", short: "o", summary: "default the model's name and -rl" },
    force: { type: "flag", summary: "replace the folder, and checkpoints of another run" },
    seed: { type: "integer", value: "n", min: 0, default: 0, summary: "of all that is random" },
    threads: { type: "integer", value: "count", min: 1, max: 1024, summary: "threads; default one per physical core" },
  },
  graceful: true,
  example: "pare rl my-model --prompts sums.jsonl --verify number --mask safe --steps 200 --out my-model-rl",
  async run({ args, options, signal }) {
    const { prompts, verify, mask, adapter, rank, maxTokens, seed, raw } = options;
    if (prompts === undefined)
      throw new UsageError('there are no prompts; give a file of {"prompt": "...", "answer": "..."} with --prompts');
    const method = methodOf(adapter, { rank, seed });
    if (mask !== "none" && adapter !== "none")
      throw new UsageError("--mask chooses entries of the matrices, and --adapter leaves these as they are; give one");
    if (mask === "none" && options.maskShare !== undefined)
      throw new UsageError(`--mask-share means nothing without --mask, which is one of ${maskKinds.join(", ")}`);
    const share = options.maskShare ?? 0.5;
    if (!(share > 0 && share < 1)) throw new UsageError(`--mask-share must be above 0 and below 1, not ${share}`);
    if (!(options.temperature > 0))
      throw new UsageError(`--temperature must be above 0, not ${options.temperature}: completions have to differ`);
    const note = (line: string): void => void process.stderr.write(`${line}\n`);
    const beginning = await existing(args.model);
    const { json, tokenizer, source } = beginning;
    const { maxPositions } = decoderConfig(json);
    const questions = await readQuestions(tokenizer, prompts, { verify, maxTokens, maxPositions, raw });
    const generation = source === null ? {} : await readGenerationConfig(source);
    const out = resolve(options.out ?? `${stemOf(args.model)}-rl`);
    note(`${method.name}: ${options.steps} steps on ${nameOf(prompts)}, ${questions.length} prompts`);
    const result = await reinforce({
      beginning,
      method,
      questions,
      stop: endTokens(tokenizer, [json, generation], source ?? ""),
      mask: mask === "none" ? null : { kind: mask, share },
      steps: options.steps,
      batch: options.batch,
      samples: options.samples,
      accumulate: options.accumulate,
      rate: options.rate ?? (adapter === "none" ? 1e-5 : 1e-4),
      kl: options.kl,
      temperature: options.temperature,
      maxTokens,
      checkpointEvery: options.checkpoint,
      dtype: options.dtype,
      out,
      identity: { from: source, prompts: [nameOf(prompts), questions.length], verify, raw },
      force: options.force,
      seed,
      threads: options.threads,
      signal,
      note,
    });
    if (!result) return { text: "", json: { out, stopped: true } };
    const { weights, ...figures } = result;
    const bytes = bytesOf(weights);
    const { reward, kl, skipped } = figures;
    const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
    return {
      text: [
        `right ${percent(reward.first)} -> ${percent(reward.last)} (first and last steps)`,
        `divergence ${(kl?.last ?? 0).toPrecision(3)} nats a token; ${percent(skipped.last)} of prompts told nothing apart`,
        `${megabytes(bytes)} of weights: ${out}`,
        `${out}/training/curves.html shows the course of it`,
      ].join("\n"),
      json: { out, method: method.name, mask, bytes, ...figures },
    };
  },
});

/** @throws UsageError for a rank without an adapter */
function methodOf(
  adapter: (typeof adapters)[number],
  { rank, seed }: { readonly rank: number | undefined; readonly seed: number },
): TrainingMethod {
  if (adapter === "none" && rank !== undefined)
    throw new UsageError(`--rank means nothing without --adapter, which is one of ${adapters.slice(1).join(", ")}`);
  switch (adapter) {
    case "none":
      return fullTraining();
    case "lora":
      return loraTraining({ rank: rank ?? 8, seed });
    default:
      return spectralTraining(adapter, rank ?? 8);
  }
}
