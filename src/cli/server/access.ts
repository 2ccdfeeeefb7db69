import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { ApiError } from "./errors.ts";

export interface Access {
  /** What the server listens on. */
  readonly host: string;
  /** What clients must show, where it is set. */
  readonly apiKey?: string | undefined;
  /** The origin whose web pages may use the server, or `*`. */
  readonly corsOrigin?: string | undefined;
}

/** Whether only programs on this machine can reach a server that listens on `host`. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, "").toLowerCase();
  return bare === "localhost" || bare === "::1" || (isIP(bare) === 4 && bare.startsWith("127."));
}

/**
 * Keeps web pages from reaching a server of this machine under a name of their own (DNS rebinding).
 * @throws ApiError 403
 */
export function checkHost({ headers }: IncomingMessage, { host }: Access): void {
  if (!isLoopback(host)) return;
  const named = (headers.host ?? "").replace(/:\d+$/, "");
  if (!isLoopback(named)) throw new ApiError(403, `this server answers on this machine only, not as ${named}`);
}

/** @throws ApiError 401 */
export function checkKey({ headers }: IncomingMessage, { apiKey }: Access): void {
  if (apiKey === undefined) return;
  const given = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? "")?.[1];
  // Digests are of one length, and comparing them takes one time, whatever was given.
  if (given !== undefined && timingSafeEqual(digest(given), digest(apiKey))) return;
  const message = given === undefined ? "this server needs an API key: Authorization: Bearer <key>" : "wrong API key";
  throw new ApiError(401, message, { reason: "invalid_api_key", headers: { "www-authenticate": "Bearer" } });
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/** The headers that let web pages of the allowed origin read an answer. */
export function corsHeaders({ corsOrigin }: Access): Record<string, string> {
  return corsOrigin === undefined ? {} : { "access-control-allow-origin": corsOrigin, vary: "origin" };
}

/** Those that answer a browser's question before it sends a request. */
export const preflightHeaders: Readonly<Record<string, string>> = {
  "access-control-allow-methods": "GET, POST",
  "access-control-allow-headers": "*, authorization, content-type",
  "access-control-max-age": "600",
};
