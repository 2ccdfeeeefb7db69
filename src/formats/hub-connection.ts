import { HubError } from "./hub.ts";

/** Patience with a network that fails. */
export interface HubPatience {
  /** Tries in a row that may fail; one that gets further than all before starts the count anew. */
  readonly tries: number;
  /** Milliseconds before the second try; they double with each further one. */
  readonly pauseMs: number;
  /** Milliseconds without a byte after which a connection counts as broken. */
  readonly stallMs: number;
}

export const defaultPatience: HubPatience = { tries: 5, pauseMs: 500, stallMs: 30_000 };

/** A failure that another try may mend. */
class Transient extends Error {}

/** Talks to the hub: adds the token, watches for stalls, tries again, and says in words what was refused. */
export class HubConnection {
  readonly endpoint: string;
  readonly #token: string | undefined;
  readonly #patience: HubPatience;
  readonly #signal: AbortSignal | undefined;

  constructor(endpoint: string, token: string | undefined, patience: HubPatience, signal: AbortSignal | undefined) {
    this.endpoint = endpoint;
    this.#token = token;
    this.#patience = patience;
    this.#signal = signal;
  }

  /**
   * `action`, again after network failures, in growing intervals.
   * @param reached how far it has come, for actions that continue where they stopped
   * @throws HubError
   */
  async retrying<T>(action: () => Promise<T>, reached: () => number = () => 0): Promise<T> {
    let furthest = reached();
    for (let failures = 0; ; ) {
      try {
        return await action();
      } catch (cause) {
        if (this.#signal?.aborted) {
          throw new HubError("aborted", "the download was stopped; it can be continued", { cause });
        }
        // `fetch` reports broken connections as TypeError.
        if (!(cause instanceof Transient || cause instanceof TypeError)) throw cause;
        failures = reached() > furthest ? 1 : failures + 1;
        furthest = Math.max(furthest, reached());
        if (failures >= this.#patience.tries) {
          const message = `${this.endpoint} cannot be reached or keeps failing: ${reasonOf(cause)}`;
          throw new HubError("network", message, { cause });
        }
        await this.#pause(this.#patience.pauseMs * 2 ** (failures - 1));
      }
    }
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, milliseconds);
      function done(): void {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      }
      const signal = this.#signal;
      signal?.addEventListener("abort", done);
    });
  }

  /**
   * One request. The token goes to the hub only, never to where it redirects.
   * @param name what is asked for, in messages
   * @throws HubError when the hub refuses; Transient or TypeError when another try may help
   */
  async get(url: string, name: string, headers: Readonly<Record<string, string>> = {}): Promise<Response> {
    this.#signal?.throwIfAborted();
    const stalled = new AbortController();
    const timer = setTimeout(() => stalled.abort(), this.#patience.stallMs);
    try {
      const response = await fetch(url, {
        headers: { ...headers, ...(this.#token && this.#isOwn(url) && { Authorization: `Bearer ${this.#token}` }) },
        signal: this.#signal ? AbortSignal.any([this.#signal, stalled.signal]) : stalled.signal,
      });
      if (!response.ok) {
        await response.body?.cancel();
        throw this.#refusal(response, name);
      }
      return response;
    } catch (cause) {
      if (stalled.signal.aborted) throw new Transient(`no answer within ${this.#patience.stallMs} ms`, { cause });
      throw cause;
    } finally {
      clearTimeout(timer);
    }
  }

  #isOwn(url: string): boolean {
    return new URL(url).origin === new URL(this.endpoint).origin;
  }

  #refusal(response: Response, name: string): Error {
    const { status } = response;
    // Where the hub redirects, signed addresses expire; the next try gets a new one.
    if (!this.#isOwn(response.url)) return new Transient(`${new URL(response.url).host} answered ${status}`);
    const code = response.headers.get("X-Error-Code");
    const hint = this.#token ? "" : "; if it is private, set HF_TOKEN to a token that may read it";
    if (code === "GatedRepo") {
      return new HubError(
        "gated",
        `${name} is gated: ask for access at ${this.endpoint}, and set HF_TOKEN to a token of the account that has it`,
      );
    }
    if (code === "RevisionNotFound") return new HubError("missing", `${name}: the repository has no such revision`);
    if (code === "EntryNotFound") return new HubError("missing", `${name}: the repository has no such file`);
    if (status === 404 || code === "RepoNotFound") {
      return new HubError("missing", `${name} is not on ${this.endpoint}${hint}`);
    }
    if (status === 401) {
      return new HubError(
        "unauthorized",
        this.#token
          ? `${name}: the hub does not take the token; is HF_TOKEN still valid?`
          : `${name} asks for a token; set HF_TOKEN to one that may read it`,
      );
    }
    if (status === 403) return new HubError("unauthorized", `${name}: the token is not allowed to read it`);
    if (status === 408 || status === 429 || status >= 500) return new Transient(`the server answered ${status}`);
    return new HubError("refused", `${name}: ${this.endpoint} answered ${status}`);
  }

  /** The body of a response, chunk by chunk. @throws Transient when it stalls; TypeError when it breaks */
  async *chunks(response: Response): AsyncGenerator<Uint8Array> {
    if (!response.body) return;
    const reader = response.body.getReader();
    try {
      for (;;) {
        const { done, value } = await this.#within(reader.read());
        if (done) return;
        yield value;
      }
    } finally {
      // A connection that broke cannot be broken off once more.
      await reader.cancel().catch(() => {});
    }
  }

  async #within<T>(read: Promise<T>): Promise<T> {
    const { stallMs } = this.#patience;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stall = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Transient(`no byte within ${stallMs} ms`)), stallMs);
    });
    try {
      return await Promise.race([read, stall]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The innermost message: `fetch` wraps what happened in "fetch failed". */
function reasonOf(error: Error): string {
  return error.cause instanceof Error ? reasonOf(error.cause) : error.message;
}
