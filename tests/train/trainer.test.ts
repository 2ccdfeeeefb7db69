import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { compile } from "../../src/runtime/index.ts";
import {
  ArgumentError,
  argMax,
  flattenTree,
  HostTensor,
  isHostTensor,
  log,
  mul,
  Rng,
  type Tensor,
} from "../../src/tensor/index.ts";
import { type LogEntry, train } from "../../src/train/index.ts";
import { checkpointFolder, openRunLog } from "../../src/train/node.ts";
import { forward, job, options, Rings } from "./job.ts";

const folders: string[] = [];
const temporary = (): string => {
  folders.push(mkdtempSync(join(tmpdir(), "pare-train-")));
  return folders.at(-1)!;
};
afterAll(() => {
  for (const folder of folders) rmSync(folder, { recursive: true });
});

const bits = (params: unknown): string =>
  Object.values(flattenTree(params, isHostTensor))
    .map((t) => Buffer.from(t.rawBytes()).toString("hex"))
    .join("");

async function accuracy(params: ReturnType<typeof options>["params"]): Promise<number> {
  const data = new Rings();
  data.restore(new Rng(99).toJSON());
  const { x, y } = data.next();
  await using program = await compile((input) => argMax(forward(params as never, input, null), -1), [x]);
  const guess = await program(x);
  return guess.toArray().filter((g, i) => g === y.at(i)).length / y.size;
}

describe("train", () => {
  it("learns to tell three rings apart", async () => {
    const { params, log, step, stopped } = await train(options(300));
    expect([step, stopped]).toEqual([300, "done"]);
    expect(log[0]!.values.loss).toBeGreaterThan(0.9);
    expect(log.at(-1)!.values.loss).toBeLessThan(0.3);
    expect(Object.keys(log[0]!.values).sort()).toEqual(["gradNorm", "loss", "rate"]);
    expect(await accuracy(params)).toBeGreaterThan(0.9);
  });

  it("gives the same bits for the same seed, others for another", async () => {
    const [a, b, c] = [await train(options(8)), await train(options(8)), await train({ ...options(8), seed: 4 })];
    expect(bits(a.params)).toBe(bits(b.params));
    expect(bits(a.params)).not.toBe(bits(c.params));
  });

  it("averages micro-batches to the gradient of the whole", async () => {
    // The same micro-batch once and three times: the average is the same, and so is the step.
    const { loss, ...rest } = options(1);
    const first = new Rings().next();
    const fixed = { next: () => first, state: () => 0, restore: () => undefined };
    const noDropout: typeof loss = (p, b) => loss(p, b, { key: null as never });
    const one = await train({ ...rest, data: fixed, loss: noDropout, accumulate: 1 });
    const three = await train({ ...rest, data: fixed, loss: noDropout, accumulate: 3 });
    const [x, y] = [one, three].map((r) =>
      Object.values(flattenTree(r.params, isHostTensor)).flatMap((t) => t.toArray()),
    );
    for (const [i, v] of x!.entries()) expect(y![i]).toBeCloseTo(v, 5);
  });

  it("goes on after SIGKILL at any moment with the very same bits", async () => {
    const steps = 300;
    const reference = await job(temporary(), steps);
    const folder = temporary();
    let killed = 0;
    for (const after of [1, 50, 37, 64, 20]) {
      const status = await runUntil(folder, steps, after);
      if (status === "killed") killed++;
    }
    expect(killed).toBe(5);
    const resumed = await job(folder, steps);
    expect(resumed.step).toBe(steps);
    expect(bits(resumed.params)).toBe(bits(reference.params));
    expect(resumed.log[0]!.step).toBeGreaterThan(100);
  }, 120_000);

  it("stops after the step under way when asked, and resumes", async () => {
    const folder = temporary();
    const store = checkpointFolder(folder);
    const stop = new AbortController();
    const half = await train({
      ...options(10),
      checkpoint: { every: 100, store },
      signal: stop.signal,
      onLog: ({ step }) => step === 4 && stop.abort(),
    });
    expect([half.step, half.stopped]).toEqual([4, "aborted"]);
    const rest = await train({ ...options(10), checkpoint: { every: 100, store } });
    expect(rest.log.map((e) => e.step)).toEqual([5, 6, 7, 8, 9, 10]);
    expect(bits(rest.params)).toBe(bits((await train(options(10))).params));
  });

  it.each([5, 100])("keeps its last step of %i, so that a finished run is not done again", async (steps) => {
    const checkpoint = { every: 100, store: checkpointFolder(temporary()) };
    const first = await train({ ...options(steps), checkpoint });
    const again = await train({ ...options(steps), checkpoint });
    expect(again.log).toEqual([]);
    expect(bits(again.params)).toBe(bits(first.params));
  });

  it("evaluates every so often and stops early when nothing improves", async () => {
    const seen: number[] = [];
    const values = [3, 2, 2.5, 2.4, 2.3, 1];
    const result = await train({
      ...options(60),
      evaluate: {
        every: 5,
        run: async (_params, step) => {
          seen.push(step);
          return { score: values[seen.length - 1]! };
        },
      },
      earlyStop: { metric: "score", patience: 3 },
    });
    expect([result.stopped, result.step]).toEqual(["early", 25]);
    expect(seen).toEqual([5, 10, 15, 20, 25]);
  });

  it("stops on a loss that is not a number, names the layer, and saves the state before", async () => {
    const folder = temporary();
    const store = checkpointFolder(folder);
    const { loss, ...rest } = options(20);
    let batches = 0;
    const data = new Rings();
    // From the 13th batch on one coordinate is infinite: the first layer is the first to break.
    const poisoned = {
      next: () => {
        const batch = data.next();
        if (++batches > 12) batch.x.set(0, Number.POSITIVE_INFINITY);
        return batch;
      },
      state: () => ({ batches, inner: data.state() }),
      restore: (s: unknown) => {
        const state = s as { batches: number; inner: unknown };
        batches = state.batches;
        data.restore(state.inner);
      },
    };
    const run = train({ ...rest, loss, data: poisoned, checkpoint: { every: 4, store } });
    await expect(run).rejects.toThrow(
      /^training diverged: the loss is NaN at step 7; the activation at "layers\.0" broke first; the state from before this step was saved as checkpoint 6$/,
    );
    const kept = await store.latest({ params: {}, optimizer: {} });
    expect(kept!.step).toBe(6);
    const saved = await store.latest(await stateOf(6));
    expect(bits(saved!.state)).toBe(bits(await stateOf(6)));
  });

  it("says when no point is to blame", async () => {
    const { loss, ...rest } = options(3);
    const broken = train({ ...rest, loss: (p, b, c) => log(mul(loss(p, b, c) as Tensor, -1)) });
    await expect(broken).rejects.toThrow(
      "the loss is NaN at step 1; no named point of the forward pass was broken before the loss; no checkpoint store was given",
    );
  });

  it.each([
    [{ steps: 0 }, "steps must be a whole number from 1, not 0"],
    [{ accumulate: 1.5 }, "accumulate must be a whole number from 1, not 1.5"],
    [{ trainable: () => false }, "no floating-point parameter is to be trained"],
    [{ evaluate: { every: 0, run: async () => ({}) } }, "evaluate.every must be a whole number from 1, not 0"],
  ])("refuses options that cannot be meant (%#)", async (change, message) => {
    await expect(train({ ...options(5), ...change })).rejects.toThrow(new ArgumentError(message));
  });
});

describe("checkpoints", () => {
  it("refuse a model of another shape, and a file that is none", async () => {
    const store = checkpointFolder(temporary());
    const state = { params: { w: HostTensor.zeros("f32", [2]) }, optimizer: {} };
    await store.save({ step: 3, state, data: null, best: null });
    await expect(store.latest({ params: { w: HostTensor.zeros("f32", [3]) }, optimizer: {} })).rejects.toThrow(
      '"params.w" is F32 [2] there, but f32 [3] in this run',
    );
    await expect(store.latest({ params: { v: HostTensor.zeros("f32", [2]) }, optimizer: {} })).rejects.toThrow(
      'it lacks "params.v"; the checkpoint belongs to another model or optimizer',
    );
  });

  it("keep the newest few", async () => {
    const folder = temporary();
    const store = checkpointFolder(folder, { keep: 2 });
    for (const step of [1, 2, 3])
      await store.save({
        step,
        state: { params: { w: HostTensor.from([step]) }, optimizer: {} },
        data: null,
        best: null,
      });
    expect([1, 2, 3].map((s) => existsSync(join(folder, `checkpoint-0000000${s}.safetensors`)))).toEqual([
      false,
      true,
      true,
    ]);
  });
});

describe("run log", () => {
  it("drops lines of steps that will be logged again, and a line cut off", async () => {
    const path = join(temporary(), "log.jsonl");
    const entry = (step: number): LogEntry => ({ step, kind: "train", values: { loss: 1 / step }, seconds: step });
    const first = await openRunLog(path, 0);
    for (const step of [1, 2, 3]) first.write(entry(step));
    const { appendFileSync } = await import("node:fs");
    appendFileSync(path, '{"step":4,"ki');
    const second = await openRunLog(path, 2);
    second.write(entry(3));
    expect(
      readFileSync(path, "utf8")
        .trim()
        .split("\n")
        .map((line) => (JSON.parse(line) as LogEntry).step),
    ).toEqual([1, 2, 3]);
  });
});

/** State after `steps` steps of an undisturbed run. */
async function stateOf(steps: number): Promise<Parameters<ReturnType<typeof checkpointFolder>["latest"]>[0]> {
  const store = checkpointFolder(temporary());
  const { steps: _all, ...rest } = options(20);
  const stop = new AbortController();
  await train({
    ...rest,
    steps: 20,
    checkpoint: { every: 100, store },
    signal: stop.signal,
    onLog: ({ step }) => step === steps && stop.abort(),
  });
  const like = {
    params: flattenTree(rest.params, isHostTensor),
    optimizer: rest.optimizer.init(flattenTree(rest.params, isHostTensor)),
  };
  return (await store.latest(like))!.state;
}

/** Runs the job in a process of its own and kills it once `steps.txt` has grown by `after` lines since it began. */
function runUntil(folder: string, steps: number, after: number): Promise<"killed" | "ended"> {
  const counter = join(folder, "steps.txt");
  const lines = (): number => (existsSync(counter) ? readFileSync(counter, "utf8").split("\n").length - 1 : 0);
  const before = lines();
  const child = spawn(
    process.execPath,
    ["--import", "tsx", new URL("./job.ts", import.meta.url).pathname, "run", folder, String(steps)],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  return new Promise((resolve, reject) => {
    const timer = setInterval(() => lines() - before >= after && child.kill("SIGKILL"), 2);
    child.on("error", reject);
    child.on("exit", (code, signal) => {
      clearInterval(timer);
      if (signal === "SIGKILL") resolve("killed");
      else if (code === 0) resolve("ended");
      else reject(new Error(`the job failed with ${code}`));
    });
  });
}
