import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { Limits } from "./limits.ts";

/**
 * An answer in pieces, as server-sent events. A client that reads slower than tokens come is let fall behind to a limit;
 * beyond it the sender waits, and a client that then stays idle loses its connection.
 */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #limits: Limits;

  constructor(response: ServerResponse, limits: Limits) {
    this.#response = response;
    this.#limits = limits;
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" });
  }

  /** @param gone aborted when the client has left */
  async send(event: unknown, gone: AbortSignal): Promise<void> {
    const { backlogBytes, stallTime } = this.#limits;
    this.#response.write(`data: ${JSON.stringify(event)}\n\n`);
    if (this.#response.writableLength <= backlogBytes) return;
    const patience = AbortSignal.timeout(stallTime);
    try {
      await once(this.#response, "drain", { signal: AbortSignal.any([gone, patience]) });
    } catch (error) {
      if (!gone.aborted && !patience.aborted) throw error;
      this.#response.destroy();
    }
  }

  end(): void {
    this.#response.end("data: [DONE]\n\n");
  }
}
