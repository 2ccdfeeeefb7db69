/** The worker's side: sessions that live off the main thread and answer its requests one after the other. */
import { inNode } from "./device.ts";
import { type Execution, openHere } from "./execution.ts";
import { fromPlain, type Reply, type Request, toPlain } from "./worker-protocol.ts";

interface Port {
  postMessage(message: Reply): void;
  listen(receive: (request: Request) => void): void;
}

async function portHere(): Promise<Port> {
  if (inNode) {
    const name = "node:worker_threads";
    const { parentPort } = (await import(/* @vite-ignore */ name)) as typeof import("node:worker_threads");
    return { postMessage: (m) => parentPort!.postMessage(m), listen: (receive) => parentPort!.on("message", receive) };
  }
  return {
    postMessage: (m) => globalThis.postMessage(m),
    listen: (receive) =>
      globalThis.addEventListener("message", (event) => receive((event as MessageEvent<Request>).data)),
  };
}

const port = await portHere();
const executions = new Map<number, Execution>();
let queue: Promise<void> = Promise.resolve();

port.listen((request) => {
  queue = queue.then(async () => {
    try {
      port.postMessage({ call: request.call, ok: true, ...(await answer(request)) });
    } catch (error) {
      const { name, message } = error instanceof Error ? error : new Error(String(error));
      port.postMessage({ call: request.call, ok: false, name, message });
    }
  });
});

async function answer(request: Request): Promise<Pick<Extract<Reply, { ok: true }>, "values" | "device">> {
  const { session } = request;
  if (request.method === "open") {
    const announce = (message: string): void => port.postMessage({ announce: message, session });
    const execution = await openHere(request.plan, { ...request.options, announce });
    executions.set(session, execution);
    return { device: execution.device };
  }
  const execution = executions.get(session)!;
  switch (request.method) {
    case "run":
      return { values: toPlain(await execution.run(fromPlain(request.values))) };
    case "write":
      await execution.write(fromPlain(request.values));
      return {};
    case "read":
      return { values: toPlain(await execution.read()) };
    case "close":
      executions.delete(session);
      await execution.close();
      return {};
  }
}
