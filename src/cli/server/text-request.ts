import { randomInt } from "node:crypto";
import type { JsonObject } from "../../formats/json.ts";
import type { GenerateOptions } from "../../generate/index.ts";
import type { TextModel } from "../model.ts";
import { ApiError, refused } from "./errors.ts";
import { Parameters, shown } from "./parameters.ts";

/** What both kinds of requests come down to. */
export interface TextRequest {
  readonly prompts: readonly Prompt[];
  /** Answers to each prompt. */
  readonly count: number;
  readonly options: GenerateOptions & { readonly seed: number };
  /** Most probable tokens to give with each token, or undefined for no log-probabilities at all. */
  readonly logprobs: number | undefined;
  readonly stream: boolean;
  /** Whether a stream ends with how many tokens were used. */
  readonly includeUsage: boolean;
}

export interface Prompt {
  readonly ids: readonly number[];
  /** Text that comes before the answer. */
  readonly echo: string;
}

/** What the two kinds of requests say in their own ways. */
interface Own {
  readonly prompts: readonly Prompt[];
  readonly maxTokens: number | undefined;
  readonly logprobs: number | undefined;
}

const mostAnswers = 64;
const mostStops = 16;

/**
 * Checks a request's parameters.
 * @param own reads those that only its kind has
 * @throws ApiError
 */
export function textRequest(body: JsonObject, model: TextModel, own: (parameters: Parameters) => Own): TextRequest {
  const parameters = new Parameters(body);
  checkModel(parameters.string("model"), model.name);
  const { prompts, maxTokens, logprobs } = own(parameters);
  const count = parameters.integer("n", { min: 1, max: mostAnswers }) ?? 1;
  const stream = parameters.boolean("stream");
  const result: TextRequest = {
    prompts,
    count,
    options: {
      ...model.advice,
      ...sampling(parameters, model),
      eosIds: model.eosIds,
      stop: stops(parameters),
      seed: parameters.integer("seed") ?? randomInt(2 ** 31),
      ...(maxTokens !== undefined && { maxTokens }),
      ...(logprobs !== undefined && { logprobs: true, topLogprobs: logprobs }),
    },
    logprobs,
    stream,
    includeUsage: includeUsage(parameters, stream),
  };
  parameters.ignore("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key");
  parameters.unsupported("logit_bias", "{}");
  parameters.unsupported("response_format", '{"type":"text"}');
  parameters.end();
  if (prompts.length * count > mostAnswers)
    throw refused("n", `${prompts.length} prompts with ${count} answers each are more than ${mostAnswers} answers`);
  return result;
}

function checkModel(wanted: string | undefined, name: string): void {
  if (wanted === undefined || wanted === name) return;
  const message = `there is no model ${shown(wanted)} here; this server has ${shown(name)}`;
  throw new ApiError(404, message, { param: "model", reason: "model_not_found" });
}

/** How tokens are drawn; what a request does not say is left out. */
function sampling(parameters: Parameters, { session }: TextModel): GenerateOptions {
  const options = {
    temperature: parameters.number("temperature", { min: 0, max: 2 }),
    topP: parameters.number("top_p", { min: Number.MIN_VALUE, max: 1 }),
    frequencyPenalty: parameters.number("frequency_penalty", { min: -2, max: 2 }),
    presencePenalty: parameters.number("presence_penalty", { min: -2, max: 2 }),
    // Not OpenAI's, but known to servers of open models.
    topK: parameters.integer("top_k", { min: 1, max: session.config.vocab }),
    minP: parameters.number("min_p", { min: 0, max: 1 }),
    repetitionPenalty: parameters.number("repetition_penalty", { min: Number.MIN_VALUE, max: 100 }),
  };
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function stops(parameters: Parameters): string[] {
  const value = parameters.any("stop") ?? [];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  if (list.length <= mostStops && list.every((stop) => typeof stop === "string" && stop !== ""))
    return list as string[];
  throw refused("stop", `stop must be a text or up to ${mostStops} of them, none empty, not ${shown(value)}`);
}

function includeUsage(parameters: Parameters, stream: boolean): boolean {
  const options = parameters.object("stream_options");
  if (!options) return false;
  if (!stream) throw refused("stream_options", "stream_options goes with stream only");
  const own = new Parameters(options);
  const include = own.boolean("include_usage");
  own.ignore("include_obfuscation");
  own.end();
  return include;
}

/** @throws ApiError for a prompt that leaves the model no room, or is empty */
export function checkLength(ids: readonly number[], param: string, { session }: TextModel): void {
  const { maxPositions } = session.config;
  if (ids.length === 0) throw refused(param, `${param} is empty; a model needs at least one token to begin with`);
  if (ids.length <= maxPositions) return;
  const message = `${param} has ${ids.length} tokens, but the model takes ${maxPositions}; shorten it`;
  throw new ApiError(400, message, { param, reason: "context_length_exceeded" });
}
