/** The process of one participant: `participant.ts <module> <threads> <settings as JSON>`, driven by the messages of the harness. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { ParticipantModule, Replies, Request } from "./harness.ts";

/** Steps of each work before the first round: compilers and caches settle. */
const warmUp = 2;

const [module, threads, settings] = process.argv.slice(2);
const { create } = (await import(new URL(module!, import.meta.url).href)) as ParticipantModule;
const participant = create(Number(threads), JSON.parse(settings!));
globalThis.gc?.();
const before = process.memoryUsage.rss();

const handle = {
  async start(): Promise<Replies["start"]> {
    const began = performance.now();
    await participant.setup();
    return { setupSeconds: (performance.now() - began) / 1000, setupPeakBytes: peak() - before };
  },
  async warmUp({ work }: Request): Promise<Replies["warmUp"]> {
    const values: number[] = [];
    await participant.begin?.(work);
    for (let i = 0; i < warmUp; i++) values.push(await participant.step(work));
    forgetPeak();
    return { values };
  },
  async round({ work, seconds }: Request): Promise<Replies["round"]> {
    const result: Replies["round"] = { stepSeconds: [], cpuSeconds: [], values: [] };
    await participant.begin?.(work);
    const end = performance.now() + 1000 * seconds;
    while (performance.now() < end) {
      const [began, used] = [performance.now(), process.cpuUsage()];
      const value = await participant.step(work);
      const { user, system } = process.cpuUsage(used);
      result.stepSeconds.push((performance.now() - began) / 1000);
      result.cpuSeconds.push((user + system) / 1e6);
      result.values.push(value);
    }
    return result;
  },
  async finish(): Promise<Replies["finish"]> {
    const peakBytes = peak() - before;
    const result = { peakBytes, figures: (await participant.figures?.()) ?? {} };
    await participant.dispose();
    return result;
  },
};

process.on("message", async (request: Request) => {
  process.send!(await handle[request.do](request));
});

// Threads of a participant would keep the process alive without its harness.
process.once("disconnect", () => process.exit());

const peakReset = "/proc/self/clear_refs";

/** Linux can forget the peak of resident memory so far; elsewhere it includes the set-up. */
function forgetPeak(): void {
  if (existsSync(peakReset)) writeFileSync(peakReset, "5");
}

/** Largest resident memory, in bytes. */
function peak(): number {
  const status = "/proc/self/status";
  if (existsSync(status)) return 1024 * Number(/VmHWM:\s*(\d+)/.exec(readFileSync(status, "utf8"))![1]);
  return 1024 * process.resourceUsage().maxRSS;
}
