import type { JsonObject } from "../../formats/json.ts";
import type { TextModel } from "../model.ts";
import { refused } from "./errors.ts";
import { type Parameters, shown } from "./parameters.ts";
import { checkLength, type Prompt, type TextRequest, textRequest } from "./text-request.ts";

const mostPrompts = 64;
/** Of OpenAI's interface. */
const usualMaxTokens = 16;

/** A request to /v1/completions, checked. @throws ApiError */
export function completionRequest(body: JsonObject, model: TextModel): TextRequest {
  return textRequest(body, model, (parameters) => {
    const logprobs = parameters.integer("logprobs", { min: 0, max: 20 });
    const echo = parameters.boolean("echo");
    if (echo && logprobs !== undefined) throw refused("echo", "echo together with logprobs is not supported here");
    parameters.unsupported("suffix", '""');
    parameters.unsupported("best_of", "1");
    return {
      prompts: prompts(parameters, model, echo),
      maxTokens: parameters.integer("max_tokens", { min: 1 }) ?? usualMaxTokens,
      logprobs,
    };
  });
}

/** One prompt or several, each a text or its tokens. */
function prompts(parameters: Parameters, model: TextModel, echo: boolean): Prompt[] {
  const value = parameters.any("prompt");
  if (value === undefined) throw refused("prompt", "the prompt is missing");
  const several = Array.isArray(value) && !value.every((entry) => typeof entry === "number");
  const list: unknown[] = several ? (value as unknown[]) : [value];
  if (list.length > mostPrompts) throw refused("prompt", `${list.length} prompts are more than ${mostPrompts}`);
  return list.map((prompt) => {
    const ids = tokens(prompt, model);
    checkLength(ids, "prompt", model);
    return { ids, echo: echo ? (typeof prompt === "string" ? prompt : model.tokenizer.decode(ids)) : "" };
  });
}

function tokens(prompt: unknown, { tokenizer, session }: TextModel): number[] {
  // A text without a character is no prompt, also where the tokenizer would begin it with a token of its own.
  if (typeof prompt === "string") return prompt === "" ? [] : tokenizer.encode(prompt);
  const { vocab } = session.config;
  const isToken = (id: unknown): boolean => Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocab;
  if (Array.isArray(prompt) && prompt.every(isToken)) return prompt as number[];
  throw refused("prompt", `a prompt must be text or tokens from 0 to ${vocab - 1}, not ${shown(prompt)}`);
}
