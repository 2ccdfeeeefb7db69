import { type Blob, resolveObjectURL } from "node:buffer";
import { Worker as NodeWorker } from "node:worker_threads";

/** What makes a Node thread look like a browser's worker to the script that runs in it. */
const prelude = `
const { parentPort } = require("node:worker_threads");
globalThis.self = globalThis;
globalThis.postMessage = (data) => parentPort.postMessage(data);
parentPort.on("message", (data) => self.onmessage({ data }));
`;

/** As much of a browser's `Worker`, started from a blob URL, as jax-js needs to use several threads in Node. */
export class WebWorker {
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onerror: ((error: Error) => void) | null = null;
  readonly #thread: Promise<NodeWorker>;

  constructor(url: string) {
    this.#thread = this.#start(resolveObjectURL(url)!);
  }

  async #start(script: Blob): Promise<NodeWorker> {
    const thread = new NodeWorker(prelude + (await script.text()), { eval: true });
    thread.on("message", (data) => this.onmessage?.({ data }));
    thread.on("error", (error) => this.onerror?.(error));
    return thread;
  }

  postMessage(data: unknown): void {
    void this.#thread.then((thread) => thread.postMessage(data));
  }
}
