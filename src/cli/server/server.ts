import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { UsageError } from "../errors.ts";
import type { Access } from "./access.ts";
import { ApiError } from "./errors.ts";
import { type Limits, usualLimits } from "./limits.ts";
import { Queue } from "./queue.ts";
import { route, type Service, type Site, sendJson } from "./routes.ts";

export interface ServerOptions extends Access {
  /** 0 takes one that is free. */
  readonly port: number;
  readonly limits?: Partial<Limits>;
  /** Receives errors that are the server's own fault. */
  readonly report: (error: unknown) => void;
}

export interface RunningServer {
  /** Where clients reach it. */
  readonly url: string;
  /** Requests so far. */
  readonly requests: number;
  /** Takes no more requests, finishes those that it has, breaks off what takes longer than the grace time, and ends. */
  close(): Promise<void>;
}

const closing = (): ApiError =>
  new ApiError(503, "the server is shutting down", { headers: { "retry-after": "5", connection: "close" } });

/**
 * Serves a site over HTTP.
 * @throws UsageError when it cannot listen there
 */
export async function startServer(site: Site, options: ServerOptions): Promise<RunningServer> {
  const limits = { ...usualLimits(site.positions), ...options.limits };
  const service: Service = { site, access: options, limits, queue: new Queue(limits.waiting) };
  /** Aborted when the grace time is over. */
  const ended = new AbortController();
  let requests = 0;
  let open = true;
  const server = createServer(
    {
      headersTimeout: limits.headersTime,
      requestTimeout: limits.requestTime,
      connectionsCheckingInterval: Math.min(limits.headersTime, limits.requestTime) / 2,
    },
    async (request, response) => {
      requests++;
      const gone = new AbortController();
      response.on("close", () => gone.abort(new Error("the client has left")));
      const signal = AbortSignal.any([gone.signal, ended.signal]);
      try {
        if (!open) throw closing();
        await route({ service, request, response, signal });
      } catch (error) {
        if (!gone.signal.aborted) answerError(response, error, options.report);
      }
      release(request, response, limits.stallTime);
    },
  );
  server.maxConnections = limits.connections;
  server.on("clientError", answerMalformed);
  await listen(server, options);
  return {
    url: urlOf(options.host, server.address() as AddressInfo),
    get requests() {
      return requests;
    },
    async close() {
      open = false;
      const closed = once(server, "close");
      server.close();
      const timer = setTimeout(() => ended.abort(closing()), limits.graceTime);
      // Those that do not take their answers would keep the server from ending.
      const last = setTimeout(() => server.closeAllConnections(), limits.graceTime + 1000);
      await closed;
      clearTimeout(timer);
      clearTimeout(last);
    },
  };
}

async function listen(server: Server, { host, port }: ServerOptions): Promise<void> {
  server.listen(port, host);
  try {
    await once(server, "listening");
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === "EADDRINUSE" ? "something listens there already; --port 0 takes a free one" : message;
    throw new UsageError(`cannot listen on ${host}, port ${port}: ${why}`, { cause });
  }
}

function urlOf(host: string, { port }: AddressInfo): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** Tells the client what went wrong; one that was promised a stream finds it there. */
function answerError(response: ServerResponse, error: unknown, report: (error: unknown) => void): void {
  const known = error instanceof ApiError;
  if (!known) report(error);
  const told = known ? error : new ApiError(500, "the server failed; its log says why");
  if (response.headersSent) response.end(`data: ${JSON.stringify(told.body)}\n\n`);
  else sendJson(response, told.status, told.body, told.details.headers);
}

/** Ends what a client leaves undone: an answer that it does not read, the rest of a request that has been refused. */
function release(request: IncomingMessage, response: ServerResponse, patience: number): void {
  request.resume();
  const timer = setTimeout(() => request.socket.destroy(), patience);
  let left = 2;
  const done = (): void => {
    if (--left === 0) clearTimeout(timer);
  };
  if (request.complete) done();
  else request.once("close", done);
  if (response.closed) done();
  else response.once("close", done);
}

/** Statuses of what does not even become a request, by Node's names for it. */
const malformed: Readonly<Record<string, readonly [number, string]>> = {
  HPE_HEADER_OVERFLOW: [431, "Request Header Fields Too Large"],
  ERR_HTTP_REQUEST_TIMEOUT: [408, "Request Timeout"],
};

function answerMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const [status, phrase] = malformed[error.code ?? ""] ?? [400, "Bad Request"];
  const body = JSON.stringify(new ApiError(status, phrase).body);
  const headers = `content-type: application/json\r\ncontent-length: ${body.length}\r\nconnection: close`;
  socket.end(`HTTP/1.1 ${status} ${phrase}\r\n${headers}\r\n\r\n${body}`, () => socket.destroy());
}
