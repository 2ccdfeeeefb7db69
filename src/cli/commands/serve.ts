import { command } from "../command.ts";
import { modelArgument, modelOptions, openTextModel } from "../model.ts";
import { isLoopback } from "../server/access.ts";
import { startServer } from "../server/server.ts";

/** Serves a model until it is told to end. */
export const serve = command({
  args: modelArgument,
  options: {
    host: {
      type: "string",
      value: "address",
      default: "127.0.0.1",
      summary: "where to listen; 0.0.0.0 for all networks",
    },
    port: { type: "integer", value: "number", min: 0, max: 65535, default: 8080, summary: "0 takes a free one" },
    apiKey: { type: "string", value: "key", summary: "what clients must show; better by the variable PARE_API_KEY" },
    corsOrigin: { type: "string", value: "origin", summary: "whose web pages may use it; default none" },
    ...modelOptions,
  },
  graceful: true,
  async run({ args, options, json, signal }) {
    const apiKey = options.apiKey ?? process.env["PARE_API_KEY"];
    const say = (text: string): void => void (json ? process.stderr : process.stdout).write(`${text}\n`);
    await using model = await openTextModel(args.model, options);
    const report = (error: unknown): void => void process.stderr.write(`pare: ${(error as Error).stack ?? error}\n`);
    const server = await startServer(model, { ...options, apiKey: apiKey === "" ? undefined : apiKey, report });
    if (!isLoopback(options.host) && !apiKey)
      process.stderr.write("pare: others on the network can use this server; --api-key keeps them out\n");
    say(`serving ${model.name} at ${server.url}/v1`);
    await told(signal);
    await server.close();
    return { text: "", json: { model: model.name, url: server.url, requests: server.requests } };
  },
});

/** Waits for Ctrl-C or for the system's request to end. */
function told(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
    process.once("SIGTERM", () => resolve());
  });
}
