import { join } from "node:path";
import type { ChatMessage, Tokenizer } from "../../formats/index.ts";
import { embeddedModel } from "../../models/node.ts";
import { Rng } from "../../tensor/index.ts";
import {
  type BatchSource,
  type Example,
  ExampleBatches,
  IGNORED,
  type TokenBatch,
  TokenBatches,
  tokenBatch,
} from "../../train/index.ts";
import { UsageError } from "../errors.ts";
import { readJsonLines } from "../json-lines.ts";
import { nameOf, textOf } from "../text-file.ts";

/** What a model learns from, and what it is tested on meanwhile. */
export interface Lessons {
  readonly name: string;
  readonly data: BatchSource<TokenBatch>;
  /** Batches that training does not see; none where there is too little text for it. */
  readonly heldOut: readonly TokenBatch[];
  /** In words: how much there is. */
  readonly size: string;
}

export interface LessonOptions {
  /** Plain text. Without it and `data`, what comes with pare. */
  readonly text: string | undefined;
  /** JSON lines: `messages`, `prompt` and `response`, or `text`. */
  readonly data: string | undefined;
  readonly batch: number;
  readonly length: number;
  readonly seed: number;
}

/** Of a text or a list of examples, the share that is held out. */
const HELD_OUT = 0.1;
/** Batches that are held out at most. */
const HELD_OUT_BATCHES = 8;
const END = "<|endoftext|>";

/**
 * Reads what a model is to learn from.
 * @throws UsageError naming file and line of what cannot be read, or where there is too little for a batch
 */
export async function readLessons(tokenizer: Tokenizer, options: LessonOptions): Promise<Lessons> {
  const { text, data } = options;
  if (text !== undefined && data !== undefined)
    throw new UsageError("give --text (plain text) or --data (JSON lines), not both");
  if (data !== undefined) return fromExamples(data, await readExamples(tokenizer, data), options);
  const path = trainingText(text);
  const name = nameOf(path);
  return fromText(name, encodeStories(tokenizer, await textOf(path)), options);
}

/** Path of the plain text to learn: the one named, or what comes with pare. */
export function trainingText(path: string | undefined): string {
  return path ?? join(embeddedModel, "training-sample.txt");
}

/** Stories that `<|endoftext|>` parts, each behind the token that begins texts, where the tokenizer has one. */
export function encodeStories(tokenizer: Tokenizer, text: string): number[] {
  const first = tokenizer.bosId ?? tokenizer.eosId;
  return text
    .split(END)
    .filter((story) => story.trim() !== "")
    .flatMap((story) => [
      ...(first === undefined ? [] : [first]),
      ...tokenizer.encode(story, { addSpecialTokens: false }),
    ]);
}

function fromText(name: string, tokens: readonly number[], { batch, length, seed }: LessonOptions): Lessons {
  const windows = Math.floor((tokens.length - 1) / length);
  if (windows < 2 * batch + 1)
    throw new UsageError(
      `${name} has ${tokens.length} tokens, too few for batches of ${batch} x ${length}; give more text, or smaller --batch and --length`,
    );
  const kept = Math.min(HELD_OUT_BATCHES, Math.floor((windows * HELD_OUT) / batch));
  const cut = tokens.length - kept * batch * length - 1;
  const heldOut = Array.from({ length: kept }, (_, i) =>
    tokenBatch(
      tokens,
      Array.from({ length: batch }, (_, row) => cut + (i * batch + row) * length),
      length,
    ),
  );
  const training = tokens.slice(0, cut);
  return {
    name,
    data: new TokenBatches(training, { batch, length, seed }),
    heldOut,
    size: `${training.length} tokens`,
  };
}

function fromExamples(path: string, examples: readonly Example[], options: LessonOptions): Lessons {
  const name = nameOf(path);
  const order = new Rng(options.seed).fork("held out").permutation(examples.length);
  const kept = Math.floor(examples.length * HELD_OUT);
  const chosen = (from: number, to?: number): Example[] => [...order].slice(from, to).map((i) => examples[i]!);
  const data = new ExampleBatches(chosen(kept), options);
  let heldOut: TokenBatch[] = [];
  if (kept > 0) {
    const source = new ExampleBatches(chosen(0, kept), options);
    // An epoch's worth, and no more than is quick.
    const tokens = chosen(0, kept).reduce((sum, { ids }) => sum + Math.min(ids.length, options.length + 1), 0);
    const batches = Math.ceil(tokens / (options.batch * options.length));
    heldOut = Array.from({ length: Math.min(HELD_OUT_BATCHES, batches) }, () => source.next());
  }
  return { name, data, heldOut, size: `${data.count} examples` };
}

/** Tokens in a batch that are learned. */
export function learnedTokens({ targets }: TokenBatch): number {
  let count = 0;
  for (let i = 0; i < targets.size; i++) if (targets.at(i) !== IGNORED) count++;
  return count;
}

async function readExamples(tokenizer: Tokenizer, path: string): Promise<Example[]> {
  const examples = await readJsonLines(path, { prompt: "...", response: "..." }, (record, fail) =>
    exampleOf(tokenizer, record, fail),
  );
  if (examples.length === 0) throw new UsageError(`${path} has no examples`);
  return examples;
}

function exampleOf(
  tokenizer: Tokenizer,
  record: Readonly<Record<string, unknown>>,
  fail: (why: string) => never,
): Example {
  const { messages, prompt, response = record["completion"], text } = record;
  if (Array.isArray(messages)) return conversation(tokenizer, messages as ChatMessage[], fail);
  if (typeof prompt === "string" && typeof response === "string") {
    if (tokenizer.chatTemplate) {
      const turns = [
        { role: "user", content: prompt },
        { role: "assistant", content: response },
      ];
      return conversation(tokenizer, turns, fail);
    }
    const asked = tokenizer.encode(prompt);
    const answer = tokenizer.encode(response, { addSpecialTokens: false });
    const end = tokenizer.eosId === undefined ? [] : [tokenizer.eosId];
    const ids = [...asked, ...answer, ...end];
    return { ids, learned: ids.map((_, i) => i >= asked.length) };
  }
  if (typeof text === "string") {
    const ids = encodeStories(tokenizer, text);
    return { ids, learned: ids.map(() => true) };
  }
  return fail('an example has "messages", "prompt" and "response", or "text"');
}

/** A conversation of which the assistant's turns are learned. */
function conversation(tokenizer: Tokenizer, messages: readonly ChatMessage[], fail: (why: string) => never): Example {
  if (!tokenizer.chatTemplate)
    fail('the tokenizer has no chat template to write "messages" with; give "prompt" and "response"');
  const ids = tokenizer.encodeChat(messages);
  const learned = ids.map(() => false);
  messages.forEach(({ role }, turn) => {
    if (role !== "assistant") return;
    const before = tokenizer.encodeChat(messages.slice(0, turn), { addGenerationPrompt: true });
    const after = tokenizer.encodeChat(messages.slice(0, turn + 1));
    if (!before.every((id, i) => id === ids[i]))
      fail(
        "the chat template writes earlier turns differently once later ones follow, so that answers cannot be told apart",
      );
    learned.fill(true, before.length, after.length);
  });
  if (!learned.includes(true)) fail("no message is the assistant's, so that nothing would be learned");
  return { ids, learned };
}
