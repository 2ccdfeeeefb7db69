/** The worker's side: sessions that live off the main thread and answer its requests one after the other. */
import { PareError } from "../tensor/index.ts";
import { inNode } from "./device.ts";
import { RuntimeFailure } from "./errors.ts";
import { type Execution, openHere } from "./execution.ts";
import { fromPlain, type Reply, type Request, toPlain } from "./worker-protocol.ts";

interface Port {
  postMessage(message: Reply): void;
  listen(receive: (request: Request) => void): void;
}

const executions = new Map<number, Execution>();
let queue: Promise<void> = Promise.resolve();

function serve(port: Port): void {
  port.listen((request) => {
    queue = queue.then(async () => {
      try {
        port.postMessage({ call: request.call, ok: true, ...(await answer(request, port)) });
      } catch (error) {
        const { code, message } = error instanceof PareError ? error : new RuntimeFailure(String(error));
        port.postMessage({ call: request.call, ok: false, code, message });
      }
    });
  });
}

async function answer(request: Request, port: Port): Promise<Pick<Extract<Reply, { ok: true }>, "values" | "device">> {
  const { session } = request;
  if (request.method === "open") {
    const announce = (message: string): void => port.postMessage({ announce: message, session });
    const execution = await openHere(request.plan, { ...request.options, announce });
    executions.set(session, execution);
    return { device: execution.device };
  }
  const execution = executions.get(session);
  if (!execution) throw new RuntimeFailure("the thread that held this program has ended; compile the program again");
  switch (request.method) {
    case "run":
      return { values: toPlain(await execution.run(fromPlain(request.values))) };
    case "write":
      await execution.write(fromPlain(request.values));
      return {};
    case "read":
      return { values: toPlain(await execution.read(request.names)) };
    case "close":
      executions.delete(session);
      await execution.close();
      return {};
  }
}

if (inNode) {
  const name = "node:worker_threads";
  const threads = import(/* @vite-ignore */ /* webpackIgnore: true */ name) as Promise<
    typeof import("node:worker_threads")
  >;
  void threads.then(({ parentPort }) =>
    serve({
      postMessage: (reply) => parentPort!.postMessage(reply),
      listen: (receive) => parentPort!.on("message", receive),
    }),
  );
} else {
  serve({
    postMessage: (reply) => globalThis.postMessage(reply),
    listen: (receive) => globalThis.addEventListener("message", ({ data }: MessageEvent<Request>) => receive(data)),
  });
}
