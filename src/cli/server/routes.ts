import type { IncomingMessage, ServerResponse } from "node:http";
import { type Access, checkHost, checkKey, corsHeaders, preflightHeaders } from "./access.ts";
import { ApiError } from "./errors.ts";
import type { Limits } from "./limits.ts";
import type { Queue } from "./queue.ts";

/** What a server offers. */
export interface Site {
  /** Tokens that its model takes. */
  readonly positions: number;
  /** What is at a path. @throws ApiError for what is nowhere, if it has more to say about it */
  find(path: string): Route | undefined;
}

export interface Route {
  readonly method: "GET" | "POST";
  /** @throws ApiError, or whatever went wrong, for the caller to tell the client */
  handle(exchange: Exchange): Promise<void> | void;
}

/** What all requests share. */
export interface Service {
  readonly site: Site;
  readonly access: Access;
  readonly limits: Limits;
  readonly queue: Queue;
}

/** One request with the answer that it is to get. */
export interface Exchange {
  readonly service: Service;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborted when the client has left, or may wait no longer. */
  readonly signal: AbortSignal;
}

const health: Route = { method: "GET", handle: ({ response }) => sendJson(response, 200, { status: "ok" }) };

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
  const found = path === "/health" ? health : service.site.find(path);
  if (!found) throw new ApiError(404, `there is nothing at ${path}`, { reason: "not_found" });
  if (request.method !== found.method) {
    const message = `${path} takes ${found.method}, not ${request.method}`;
    throw new ApiError(405, message, { headers: { allow: found.method } });
  }
  await found.handle(exchange);
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
