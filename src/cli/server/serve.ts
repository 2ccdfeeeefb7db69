import type { OptionSpec, Outcome } from "../command.ts";
import { isLoopback } from "./access.ts";
import type { Site } from "./routes.ts";
import { startServer } from "./server.ts";

/** The options of commands that serve. */
export const serverOptions = {
  host: {
    type: "string",
    value: "address",
    default: "127.0.0.1",
    summary: "where to listen; 0.0.0.0 for all networks",
  },
  port: { type: "integer", value: "number", min: 0, max: 65535, default: 8080, summary: "0 takes a free one" },
  apiKey: { type: "string", value: "key", summary: "what clients must show; better by the variable PARE_API_KEY" },
  corsOrigin: { type: "string", value: "origin", summary: "whose web pages may use it; default none" },
} as const satisfies Record<string, OptionSpec>;

/** Values of those options, and how the command was called. */
export interface ServeOptions {
  readonly host: string;
  readonly port: number;
  readonly apiKey: string | undefined;
  readonly corsOrigin: string | undefined;
  readonly json: boolean;
  readonly signal: AbortSignal;
}

/**
 * Serves until Ctrl-C or the system's request to end, and says where.
 * @param path what clients ask for, behind the server's address
 * @throws UsageError when it cannot listen there
 */
export async function serveUntilTold(
  site: Site,
  { name, path }: { readonly name: string; readonly path: string },
  { json, signal, ...options }: ServeOptions,
): Promise<Outcome> {
  const apiKey = (options.apiKey ?? process.env["PARE_API_KEY"]) || undefined;
  const report = (error: unknown): void => void process.stderr.write(`pare: ${(error as Error).stack ?? error}\n`);
  const server = await startServer(site, { ...options, apiKey, report });
  if (!isLoopback(options.host) && !apiKey)
    process.stderr.write("pare: others on the network can use this server; --api-key keeps them out\n");
  (json ? process.stderr : process.stdout).write(`serving ${name} at ${server.url}${path}\n`);
  await told(signal);
  await server.close();
  return { text: "", json: { model: name, url: server.url, requests: server.requests } };
}

/** Waits for Ctrl-C or for the system's request to end. */
function told(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
    process.once("SIGTERM", () => resolve());
  });
}
