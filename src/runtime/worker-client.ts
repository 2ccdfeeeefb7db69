import { ArgumentError } from "../tensor/index.ts";
import { type DeviceOptions, inNode } from "./device.ts";
import { DeviceError, FeedError, RuntimeFailure } from "./errors.ts";
import type { Execution, ExecutionPlan } from "./execution.ts";
import { fromPlain, type Reply, type Request, toPlain } from "./worker-protocol.ts";

type Answer = Extract<Reply, { ok: true }>;
type Asked = Request extends infer R ? (R extends Request ? Omit<R, "call" | "session"> : never) : never;

/** The worker thread, in the form that Node's and the browser's share. */
interface Thread {
  post(request: Request): void;
  /** Lets the process end although the thread is waiting. */
  idle(waiting: boolean): void;
}

let calls = 0;
let sessions = 0;
const open = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();
const announcers = new Map<number, (message: string) => void>();
let thread: Promise<Thread> | undefined;

/** Opens a session in the worker thread, which all off-thread programs of this thread share. */
export async function openInWorker(plan: ExecutionPlan, options: DeviceOptions): Promise<Execution> {
  const session = sessions++;
  announcers.set(session, options.announce ?? console.warn);
  const ask = (request: Asked): Promise<Answer> => send({ ...request, session, call: calls++ } as Request);
  const { device } = await ask({ method: "open", plan, options: sendable(options) }).catch((error: unknown) => {
    announcers.delete(session);
    throw error;
  });
  return {
    device: device!,
    run: async (feeds) => fromPlain((await ask({ method: "run", values: toPlain(feeds) })).values!),
    read: async (names) => fromPlain((await ask({ method: "read", ...(names && { names }) })).values!),
    write: async (values) => {
      await ask({ method: "write", values: toPlain(values) });
    },
    close: async () => {
      await ask({ method: "close" });
      announcers.delete(session);
    },
  };
}

/** The options that the worker needs; a caller's record may hold more, even what cannot be sent. */
function sendable({ device, fallback, threads, spin }: DeviceOptions): Omit<DeviceOptions, "announce"> {
  return {
    ...(device !== undefined && { device }),
    ...(fallback !== undefined && { fallback }),
    ...(threads !== undefined && { threads }),
    ...(spin !== undefined && { spin }),
  };
}

async function send(request: Request): Promise<Answer> {
  thread ??= start();
  const running = await thread;
  return new Promise((resolve, reject) => {
    open.set(request.call, { resolve, reject });
    running.idle(false);
    running.post(request);
  });
}

/** By code: a minifier changes the names of classes. */
const kinds: Readonly<Record<string, new (message: string) => Error>> = {
  ARGUMENT: ArgumentError,
  DEVICE: DeviceError,
  FEED: FeedError,
};

function receive(reply: Reply, running: Thread): void {
  if ("announce" in reply) {
    announcers.get(reply.session)?.(reply.announce);
    return;
  }
  const waiting = open.get(reply.call);
  open.delete(reply.call);
  if (open.size === 0) running.idle(true);
  if (reply.ok) waiting?.resolve(reply);
  else waiting?.reject(new (kinds[reply.code] ?? RuntimeFailure)(reply.message));
}

function fail(reason: string): void {
  thread = undefined;
  for (const { reject } of open.values()) reject(new RuntimeFailure(`the worker thread ended: ${reason}`));
  open.clear();
}

async function start(): Promise<Thread> {
  if (inNode) {
    const worker = await startNodeWorker();
    const running: Thread = {
      post: (request) => worker.postMessage(request),
      idle: (waiting) => (waiting ? worker.unref() : worker.ref()),
    };
    worker.on("message", (reply: Reply) => receive(reply, running));
    worker.on("error", (error) => fail(error.message));
    worker.on("exit", (code) => fail(`exit code ${code}`));
    return running;
  }
  // In this form, word by word, bundlers find the worker's script.
  const worker = new Worker(new URL("./session.worker.js", import.meta.url), { type: "module" });
  const running: Thread = { post: (request) => worker.postMessage(request), idle: () => undefined };
  worker.addEventListener("message", (event: MessageEvent<Reply>) => receive(event.data, running));
  worker.addEventListener("error", ({ message }) => {
    worker.terminate();
    fail(message || "its script session.worker.js could not be loaded; it belongs beside the script that uses it");
  });
  return running;
}

async function startNodeWorker(): Promise<import("node:worker_threads").Worker> {
  const [threads, modules] = ["node:worker_threads", "node:module"];
  const { Worker } = (await import(
    /* @vite-ignore */ /* webpackIgnore: true */ threads
  )) as typeof import("node:worker_threads");
  // Not in the form above: this is no script for bundlers.
  const script = import.meta.url.replace(/worker-client(\.[jt]s)$/, "session.worker$1");
  if (script.endsWith(".js")) return new Worker(new URL(script));
  // A checkout runs from its TypeScript sources, which the thread has to learn to load.
  const { createRequire } = (await import(
    /* @vite-ignore */ /* webpackIgnore: true */ modules
  )) as typeof import("node:module");
  // The module form: the other one cannot find its own parts inside a worker.
  const loader = createRequire(import.meta.url)
    .resolve("tsx/esm/api")
    .replace(/\.cjs$/, ".mjs");
  return new Worker(
    `import(${JSON.stringify(loader)}).then((tsx) => { tsx.register(); return import(${JSON.stringify(script)}); });`,
    { eval: true },
  );
}
