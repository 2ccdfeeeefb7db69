import { type ChatMessage, ChatTemplateError } from "../../formats/index.ts";
import { isJsonObject, type JsonObject } from "../../formats/json.ts";
import type { TextModel } from "../model.ts";
import { ApiError, refused } from "./errors.ts";
import { Parameters, shown } from "./parameters.ts";
import { checkLength, type TextRequest, textRequest } from "./text-request.ts";

/** Roles that a message may have, with what templates call them. */
const roles = new Map([
  ["system", "system"],
  ["developer", "system"],
  ["user", "user"],
  ["assistant", "assistant"],
]);

/** A request to /v1/chat/completions, checked. @throws ApiError */
export function chatRequest(body: JsonObject, model: TextModel): TextRequest {
  return textRequest(body, model, (parameters) => {
    const ids = conversation(parameters.any("messages"), model);
    parameters.unsupported("tools", "[]");
    parameters.unsupported("tool_choice", '"none"', '"auto"');
    parameters.unsupported("functions", "[]");
    parameters.unsupported("function_call", '"none"', '"auto"');
    parameters.unsupported("modalities", '["text"]');
    parameters.ignore("parallel_tool_calls");
    return { prompts: [{ ids, echo: "" }], maxTokens: maxTokens(parameters), logprobs: logprobs(parameters) };
  });
}

function conversation(messages: unknown, model: TextModel): number[] {
  if (!model.tokenizer.chatTemplate) {
    const message = `${model.name} has no chat template, so it was not made for conversations; use /v1/completions`;
    throw new ApiError(400, message, { param: "messages", reason: "no_chat_template" });
  }
  if (!Array.isArray(messages) || messages.length === 0)
    throw refused("messages", "messages must be a list of at least one message");
  try {
    const ids = model.tokenizer.encodeChat(messages.map(message), { addGenerationPrompt: true });
    checkLength(ids, "messages", model);
    return ids;
  } catch (error) {
    if (error instanceof ChatTemplateError) throw refused("messages", error.message);
    throw error;
  }
}

function message(value: unknown, index: number): ChatMessage {
  const where = `messages[${index}]`;
  if (!isJsonObject(value)) throw refused(where, `${where} must be an object, not ${shown(value)}`);
  const parameters = new Parameters(value);
  const role = parameters.any("role");
  const known = typeof role === "string" ? roles.get(role) : undefined;
  if (known === undefined) {
    const given = role === undefined ? "missing" : shown(role);
    throw refused(`${where}.role`, `${where}.role must be one of ${[...roles.keys()].join(", ")}; it is ${given}`);
  }
  const content = text(parameters.any("content"), `${where}.content`);
  const name = parameters.string("name");
  parameters.unsupported("tool_calls", "[]");
  parameters.ignore("refusal");
  parameters.end();
  return { role: known, content, ...(name !== undefined && { name }) };
}

/** Text, or parts that are all text. */
function text(content: unknown, where: string): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw refused(where, `${where} must be text or a list of parts`);
  return content
    .map((part: unknown, i) => {
      if (isJsonObject(part) && part["type"] === "text" && typeof part["text"] === "string") return part["text"];
      const type = isJsonObject(part) ? part["type"] : part;
      throw refused(`${where}[${i}]`, `${where}[${i}] must be a part of type "text", not ${shown(type ?? null)}`);
    })
    .join("");
}

function maxTokens(parameters: Parameters): number | undefined {
  const old = parameters.integer("max_tokens", { min: 1 });
  const now = parameters.integer("max_completion_tokens", { min: 1 });
  if (old !== undefined && now !== undefined && old !== now)
    throw refused("max_tokens", `max_tokens ${old} and max_completion_tokens ${now} contradict each other`);
  return now ?? old;
}

function logprobs(parameters: Parameters): number | undefined {
  const wanted = parameters.boolean("logprobs");
  const top = parameters.integer("top_logprobs", { min: 0, max: 20 });
  if (top !== undefined && !wanted) throw refused("top_logprobs", "top_logprobs goes with logprobs only");
  return wanted ? (top ?? 0) : undefined;
}
