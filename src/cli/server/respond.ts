import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Tokenizer } from "../../formats/index.ts";
import type { TextModel } from "../model.ts";
import { EventStream } from "./event-stream.ts";
import type { Format, Part } from "./formats.ts";
import type { Limits } from "./limits.ts";
import { type ChatLogprob, chatLogprob } from "./logprobs.ts";
import type { TextRequest } from "./text-request.ts";
import { type Piece, texts, type Usage } from "./texts.ts";

/** Generates what a request asks for and gives it as one JSON document. @param signal ends the work early */
export async function wholeAnswer(model: TextModel, request: TextRequest, format: Format, signal: AbortSignal) {
  const answers: { text: string; logprobs: ChatLogprob[]; finishReason: Piece["finishReason"] }[] = [];
  const pieces = texts(model, request, signal);
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) {
      const choices = answers.map(({ text, logprobs, finishReason }, index) => {
        const part = {
          index,
          text,
          finishReason,
          offset: 0,
          logprobs: request.logprobs === undefined ? undefined : logprobs,
        };
        return format.choice(part, request.logprobs ?? 0);
      });
      return { ...head(model, format), object: format.whole, choices, usage: value };
    }
    const answer = (answers[value.index] ??= { text: "", logprobs: [], finishReason: null });
    answer.text += value.text;
    answer.logprobs.push(...logprobsOf(value, request, model.tokenizer));
    answer.finishReason = value.finishReason;
  }
}

/** As `wholeAnswer`, but sends each piece as soon as it is certain. */
export async function streamAnswer(
  { model, request, format }: { model: TextModel; request: TextRequest; format: Format },
  { response, limits }: { response: ServerResponse; limits: Limits },
  signal: AbortSignal,
): Promise<void> {
  const begin = { ...head(model, format), object: format.chunk };
  const stream = new EventStream(response, limits);
  const send = (choices: readonly unknown[], usage: Usage | null): Promise<void> =>
    stream.send({ ...begin, choices, ...(request.includeUsage && { usage }) }, signal);
  const pieces = texts(model, request, signal);
  let [index, offset] = [-1, 0];
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) {
      if (request.includeUsage) await send([], value);
      return stream.end();
    }
    const first = value.index !== index;
    if (first) [index, offset] = [value.index, 0];
    const logprobs = logprobsOf(value, request, model.tokenizer);
    const part: Part = { ...value, logprobs: logprobs.length > 0 ? logprobs : undefined, offset };
    for (const { token } of logprobs) offset += token.length;
    // A token that completes no text is told of only where its probability is wanted.
    if (value.text === "" && logprobs.length === 0 && value.finishReason === null && !first) continue;
    await send([format.piece(part, request.logprobs ?? 0, first)], null);
  }
}

function head(model: TextModel, { prefix }: Format) {
  return { id: `${prefix}-${randomUUID()}`, created: Math.floor(Date.now() / 1000), model: model.name };
}

function logprobsOf({ token }: Piece, { logprobs }: TextRequest, tokenizer: Tokenizer): ChatLogprob[] {
  return token && logprobs !== undefined ? [chatLogprob(tokenizer, token)] : [];
}
