import { randomInt } from "node:crypto";
import { decodeUtf8 } from "../../formats/json.ts";
import type { SamplingOptions } from "../../generate/index.ts";
import { answer, figures, harmless } from "../answer.ts";
import { chat } from "../chat.ts";
import { command } from "../command.ts";
import { UsageError } from "../errors.ts";
import { modelArgument, modelOptions, openTextModel } from "../model.ts";

/** What the model that pare brings, a writer of stories, begins with when it is told nothing. */
const storyOpening = "Once upon a time";

/** Where neither the user nor the model's authors say how to draw. */
const usual: SamplingOptions = { temperature: 0.8, topP: 0.95 };

/** Far more than any context holds. */
const promptLimit = 16_000_000;

/** Continues a prompt, or talks with the user. */
export const run = command({
  args: modelArgument,
  options: {
    prompt: {
      type: "string",
      value: "text",
      short: "p",
      summary: "what to answer or continue; - reads standard input",
    },
    raw: { type: "flag", summary: "continue the prompt as it stands, even where the model has a chat template" },
    maxTokens: { type: "integer", value: "count", short: "n", min: 1, summary: "tokens at most; default what fits" },
    temperature: { type: "number", value: "t", min: 0, summary: "0 takes the best token; default the model's or 0.8" },
    topK: { type: "integer", value: "k", min: 1, summary: "draw from the k best tokens only" },
    topP: {
      type: "number",
      value: "p",
      min: 0,
      max: 1,
      summary: "draw from the best tokens that make up p; default 0.95",
    },
    minP: { type: "number", value: "p", min: 0, max: 1, summary: "draw from tokens p times as likely as the best" },
    repetitionPenalty: { type: "number", value: "x", min: 0, summary: "above 1: repeat less" },
    stop: { type: "string", value: "text", summary: "end before this text" },
    seed: { type: "integer", value: "n", summary: "same seed, same text; default another each time" },
    ...modelOptions,
  },
  graceful: true,
  async run({ args, options, json, signal }) {
    const given = options.prompt === "-" ? await readStandardInput() : options.prompt;
    if (given === "") throw new UsageError("the prompt is empty; a model needs something to begin with");
    const talks = given === undefined && !json && process.stdin.isTTY && process.stdout.isTTY;
    if (given === undefined && !talks && args.model !== undefined)
      throw new UsageError('there is no prompt; give one with --prompt "...", or with --prompt - on standard input');

    const began = performance.now();
    await using model = await openTextModel(args.model, options);
    const loadSeconds = (performance.now() - began) / 1000;
    const { temperature, topK, topP, minP, repetitionPenalty, stop } = options;
    const seed = options.seed ?? randomInt(2 ** 31);
    const sampling = { ...usual, ...model.advice, ...definedOf({ temperature, topK, topP, minP, repetitionPenalty }) };
    const settings = { ...sampling, ...definedOf({ maxTokens: options.maxTokens }), stop: stop ? [stop] : [], seed };
    const plain = options.raw || !model.tokenizer.chatTemplate;
    if (talks) {
      const terminal = { input: process.stdin, output: process.stdout, note };
      // From here on the terminal's Ctrl-C is the conversation's; before, it ends the command.
      if (signal.aborted) return { text: "", json: null };
      await chat(model, { ...settings, plain, ...(model.embedded && { opening: storyOpening }) }, terminal);
      return { text: "", json: null };
    }

    const prompt = given ?? storyOpening;
    const show = (text: string): void => {
      if (!json) process.stdout.write(process.stdout.isTTY ? harmless(text) : text);
    };
    if (given === undefined) show(prompt);
    const ids = plain
      ? model.tokenizer.encode(prompt)
      : model.tokenizer.encodeChat([{ role: "user", content: prompt }], { addGenerationPrompt: true });
    const result = await answer(model, ids, { ...settings, signal }, show);
    show("\n");
    note(figures(result, seed));
    const { name, session } = model;
    // Kibibytes, of the whole process.
    const peakBytes = process.resourceUsage().maxRSS * 1024;
    return {
      text: "",
      json: { model: name, device: session.device, seed, prompt, loadSeconds, peakBytes, ...result },
    };
  },
});

const note = (line: string): void => void process.stderr.write(`${line}\n`);

/** All of standard input, without the line break that ends it. @throws UsageError, FormatError */
async function readStandardInput(): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > promptLimit)
      throw new UsageError(`standard input is longer than ${promptLimit} bytes, too long a prompt`);
    chunks.push(chunk);
  }
  return decodeUtf8(Buffer.concat(chunks), "standard input").replace(/\r?\n$/, "");
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The entries that are there. */
function definedOf<T extends object>(entries: T): Defined<T> {
  return Object.fromEntries(Object.entries(entries).filter(([, value]) => value !== undefined)) as Defined<T>;
}
