import type { JsonObject } from "../../formats/json.ts";
import type { TextModel } from "../model.ts";
import { readBody } from "./body.ts";
import { chatRequest } from "./chat-request.ts";
import { completionRequest } from "./completion-request.ts";
import { ApiError } from "./errors.ts";
import { chatFormat, completionFormat, type Format } from "./formats.ts";
import { streamAnswer, wholeAnswer } from "./respond.ts";
import { type Exchange, type Route, type Site, sendJson } from "./routes.ts";
import type { TextRequest } from "./text-request.ts";

/** A model that continues texts, as OpenAI's interface has it. The model stays the caller's to dispose. */
export function textSite(model: TextModel): Site {
  const described = { id: model.name, object: "model", created: Math.floor(Date.now() / 1000), owned_by: "pare" };
  const get = (body: unknown): Route => ({ method: "GET", handle: ({ response }) => sendJson(response, 200, body) });
  const post = (check: Check, format: Format): Route => ({
    method: "POST",
    handle: (exchange) => generated(model, exchange, check, format),
  });
  const routes = new Map([
    ["/v1/models", get({ object: "list", data: [described] })],
    ["/v1/completions", post(completionRequest, completionFormat)],
    ["/v1/chat/completions", post(chatRequest, chatFormat)],
  ]);
  return {
    positions: model.session.config.maxPositions,
    find(path) {
      const [, name] = /^\/v1\/models\/(.+)$/.exec(path) ?? [];
      if (name === undefined) return routes.get(path);
      if (name === model.name || name === encodeURIComponent(model.name)) return get(described);
      throw new ApiError(404, `there is no model ${name} here`, { param: "model", reason: "model_not_found" });
    },
  };
}

type Check = (body: JsonObject, model: TextModel) => TextRequest;

async function generated(
  model: TextModel,
  { service, request, response, signal }: Exchange,
  check: Check,
  format: Format,
): Promise<void> {
  const { limits, queue } = service;
  const wanted = check(await readBody(request, limits.bodyBytes), model);
  using _turn = await queue.enter(signal);
  if (wanted.stream) await streamAnswer({ model, request: wanted, format }, { response, limits }, signal);
  else sendJson(response, 200, await wholeAnswer(model, wanted, format, signal));
}
