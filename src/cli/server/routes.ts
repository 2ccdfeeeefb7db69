import type { IncomingMessage, ServerResponse } from "node:http";
import type { JsonObject } from "../../formats/json.ts";
import type { TextModel } from "../model.ts";
import { type Access, checkHost, checkKey, corsHeaders, preflightHeaders } from "./access.ts";
import { readBody } from "./body.ts";
import { chatRequest } from "./chat-request.ts";
import { completionRequest } from "./completion-request.ts";
import { ApiError } from "./errors.ts";
import { chatFormat, completionFormat, type Format } from "./formats.ts";
import type { Limits } from "./limits.ts";
import type { Queue } from "./queue.ts";
import { streamAnswer, wholeAnswer } from "./respond.ts";
import type { TextRequest } from "./text-request.ts";

/** What all requests share. */
export interface Service {
  readonly model: TextModel;
  readonly access: Access;
  readonly limits: Limits;
  readonly queue: Queue;
  /** When the model was opened, in Unix seconds. */
  readonly since: number;
}

/** One request with the answer that it is to get. */
export interface Exchange {
  readonly service: Service;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborted when the client has left, or may wait no longer. */
  readonly signal: AbortSignal;
}

type Handler = (exchange: Exchange) => Promise<void> | void;

const completions: Handler = (exchange) => generated(exchange, completionRequest, completionFormat);
const chatCompletions: Handler = (exchange) => generated(exchange, chatRequest, chatFormat);

const routes: Readonly<Record<string, { readonly method: "GET" | "POST"; readonly handle: Handler }>> = {
  "/health": { method: "GET", handle: ({ response }) => sendJson(response, 200, { status: "ok" }) },
  "/v1/models": {
    method: "GET",
    handle: ({ response, service }) => sendJson(response, 200, { object: "list", data: [modelObject(service)] }),
  },
  "/v1/completions": { method: "POST", handle: completions },
  "/v1/chat/completions": { method: "POST", handle: chatCompletions },
};

/** Answers a request. @throws ApiError, or whatever went wrong, for the caller to tell the client */
export async function route(exchange: Exchange): Promise<void> {
  const { request, response, service } = exchange;
  checkHost(request, service.access);
  for (const [name, value] of Object.entries(corsHeaders(service.access))) response.setHeader(name, value);
  if (request.method === "OPTIONS" && service.access.corsOrigin !== undefined) {
    response.writeHead(204, preflightHeaders).end();
    return;
  }
  const path = (request.url ?? "").replace(/\?.*$/s, "");
  if (path !== "/health") checkKey(request, service.access);
  const found = Object.hasOwn(routes, path) ? routes[path]! : modelRoute(path, service);
  if (request.method !== found.method) {
    const message = `${path} takes ${found.method}, not ${request.method}`;
    throw new ApiError(405, message, { headers: { allow: found.method } });
  }
  await found.handle(exchange);
}

function modelRoute(path: string, { model }: Service): (typeof routes)[string] {
  const [, name] = /^\/v1\/models\/(.+)$/.exec(path) ?? [];
  if (name === undefined) throw new ApiError(404, `there is nothing at ${path}`, { reason: "not_found" });
  if (name !== model.name && name !== encodeURIComponent(model.name))
    throw new ApiError(404, `there is no model ${name} here`, { param: "model", reason: "model_not_found" });
  return { method: "GET", handle: ({ response, service }) => sendJson(response, 200, modelObject(service)) };
}

const modelObject = ({ model, since }: Service): unknown => ({
  id: model.name,
  object: "model",
  created: since,
  owned_by: "pare",
});

async function generated(
  { service, request, response, signal }: Exchange,
  check: (body: JsonObject, model: Service["model"]) => TextRequest,
  format: Format,
): Promise<void> {
  const { model, limits, queue } = service;
  const wanted = check(await readBody(request, limits.bodyBytes), model);
  using _turn = await queue.enter(signal);
  if (wanted.stream) await streamAnswer({ model, request: wanted, format }, { response, limits }, signal);
  else sendJson(response, 200, await wholeAnswer(model, wanted, format, signal));
}

export function sendJson(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Readonly<Record<string, string>> = {},
): void {
  const text = JSON.stringify(body);
  response.writeHead(status, {
    "content-type": "application/json; charset=utf-8",
    "content-length": Buffer.byteLength(text),
    ...headers,
  });
  response.end(text);
}
