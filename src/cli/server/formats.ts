import type { ChatLogprob } from "./logprobs.ts";
import { completionLogprobs } from "./logprobs.ts";
import type { Piece } from "./texts.ts";

/** A text or a piece of one, with the log-probabilities of its tokens where they were asked for. */
export interface Part extends Pick<Piece, "index" | "text" | "finishReason"> {
  readonly logprobs: readonly ChatLogprob[] | undefined;
  /** Length of the text of the tokens before, in UTF-16 units. */
  readonly offset: number;
}

/** How one of OpenAI's interfaces words an answer. */
export interface Format {
  /** What the ids of answers begin with. */
  readonly prefix: string;
  /** Names of a whole answer and of a piece of one. */
  readonly whole: string;
  readonly chunk: string;
  /** @param rivals most probable tokens asked for with each */
  choice(answer: Part, rivals: number): unknown;
  /** @param first whether it is the first piece of its answer */
  piece(part: Part, rivals: number, first: boolean): unknown;
}

function textChoice({ index, text, logprobs, offset, finishReason }: Part, rivals: number): unknown {
  const inTerms = logprobs ? completionLogprobs(logprobs, rivals, offset) : null;
  return { index, text, logprobs: inTerms, finish_reason: finishReason };
}

export const completionFormat: Format = {
  prefix: "cmpl",
  whole: "text_completion",
  chunk: "text_completion",
  choice: textChoice,
  piece: textChoice,
};

const chatLogprobs = (logprobs: Part["logprobs"]): unknown => (logprobs ? { content: logprobs, refusal: null } : null);

export const chatFormat: Format = {
  prefix: "chatcmpl",
  whole: "chat.completion",
  chunk: "chat.completion.chunk",
  choice: ({ index, text, logprobs, finishReason }) => ({
    index,
    message: { role: "assistant", content: text, refusal: null },
    logprobs: chatLogprobs(logprobs),
    finish_reason: finishReason,
  }),
  piece: ({ index, text, logprobs, finishReason }, _, first) => ({
    index,
    delta: { ...(first && { role: "assistant" }), ...(finishReason === null && { content: text }) },
    logprobs: chatLogprobs(logprobs),
    finish_reason: finishReason,
  }),
};
