/** The process of one participant: `participant.ts <module> <threads>`, driven by the messages of the harness. */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import type { ParticipantModule, Replies, Request } from "./harness.ts";

/** Steps before the first round: compilers and caches settle. */
const warmUp = 2;

const [module, threads] = process.argv.slice(2);
const { create } = (await import(new URL(module!, import.meta.url).href)) as ParticipantModule;
const participant = create(Number(threads));
globalThis.gc?.();
const before = process.memoryUsage.rss();

const handle = {
  async start(): Promise<Replies["start"]> {
    const began = performance.now();
    await participant.setup();
    const setupSeconds = (performance.now() - began) / 1000;
    const values: number[] = [];
    for (let i = 0; i < warmUp; i++) values.push(await participant.step());
    forgetPeak();
    return { setupSeconds, values };
  },
  async round(seconds: number): Promise<Replies["round"]> {
    const result: Replies["round"] = { stepSeconds: [], cpuSeconds: [], values: [] };
    const end = performance.now() + 1000 * seconds;
    while (performance.now() < end) {
      const [began, used] = [performance.now(), process.cpuUsage()];
      const value = await participant.step();
      const { user, system } = process.cpuUsage(used);
      result.stepSeconds.push((performance.now() - began) / 1000);
      result.cpuSeconds.push((user + system) / 1e6);
      result.values.push(value);
    }
    return result;
  },
  async finish(): Promise<Replies["finish"]> {
    const result = { peakBytes: peak() - before, figures: participant.figures?.() ?? {} };
    await participant.dispose();
    return result;
  },
};

process.on("message", async (request: Request) => {
  process.send!(await handle[request.do](request.seconds));
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
